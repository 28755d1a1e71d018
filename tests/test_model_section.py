"""What models ask of the rest of a configuration: features, and no settings that an estimator has no use for."""

import numpy as np
import pytest

from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.config.model_section import find_faults, shared_hog
from ferhpo.data.features.hog import Hog
from ferhpo.errors import ConfigError
from ferhpo.seeds import derive_seed
from ferhpo.storage.study.sweep_study import random_sample
from ferhpo.trial.load_data import load_data
from ferhpo.trial.run import build_network
from ferhpo.tuning import plan as planning
from ferhpo.tuning.plan import make_plan

HOG = "model.hog={pixels_per_cell: 12}"
SMALL = ["data.num_train=14", "data.num_val=7", "data.num_test=7"]
TWO = "+space.model.options=[cnn,lda]"


def faults(*overrides):
    composed = compose("demo", overrides)
    return find_faults(composed, composed.space())[0]


@pytest.mark.parametrize(
    ("overrides", "hog"),
    [
        ([], None),
        ([HOG], Hog(pixels_per_cell=12)),
        (["model=resnet"], None),
        (["model=lda", "~space.model.features"], None),
        (["model=lda"], Hog()),  # which its slice draws
        (["model=lda", "model.features=hog", "~space.model.features"], Hog()),
        ([TWO], Hog()),
    ],
    ids=str,
)
def test_features_are_those_that_a_trial_may_take(overrides, hog):
    assert shared_hog(compose("demo", overrides)) == hog


def test_data_has_features_where_a_model_asks_for_them(tmp_path, monkeypatch):
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path))
    assert load_data(compose("demo", SMALL)).features is None
    data = load_data(compose("demo", [*SMALL, HOG]))
    np.testing.assert_array_equal(data.features, Hog(pixels_per_cell=12)(data.images))


def test_network_counts_the_features_of_the_whole_image():
    config = compose("demo", [HOG, "augment.crop=40"]).config
    assert build_network(config, 1, 7, 48).num_image_features == Hog(pixels_per_cell=12).num_features(48)


def test_features_that_the_data_cannot_have_are_a_fault_of_the_configuration():
    composed = compose("demo", [*SMALL, "data.image_size=24", "model.hog={pixels_per_cell: 16}"])
    with pytest.raises(
        ConfigError, match=r"model\.hog\.pixels_per_cell is 16 and hog\.cells_per_block is 2; a block of"
    ):
        load_data(composed)


def test_hog_is_not_drawn():
    message = (
        "space.model.hog{}: HOG settings cannot be searched, because features are computed once per sweep; set "
        "model.hog, and run one sweep per setting"
    )
    assert faults("+space.model.hog={choices: [null, {orientations: 9}]}") == [message.format("")]
    assert faults("model.hog={orientations: 9}", "+space.model.hog.orientations={low: 6, high: 12}") == [
        message.format(".orientations")
    ]


def test_models_that_want_different_features_are_refused():
    composed = compose("demo", [TWO, HOG])
    assert shared_hog(composed) == Hog(pixels_per_cell=12)  # an override rules every option that has the key
    composed.options["model"]["lda"]["hog"] = {"orientations": 6}
    assert find_faults(composed, composed.space())[0] == [
        "model.hog of cnn is {'orientations': 9, 'pixels_per_cell': 12, 'cells_per_block': 2}, but that of lda is "
        "{'orientations': 6, 'pixels_per_cell': 8, 'cells_per_block': 2}; all trials share the features: use the same settings"
    ]


def test_every_setting_without_use_for_an_estimator_is_told():
    told = faults(
        "model=decision_tree",
        "scheduler=none",
        "augment=flip",
        "trainer.class_weights=balanced",
        "trainer.weight_averaging=ema",
    )
    assert told == [
        "trainer.max_epochs is 6, but decision_tree is fitted once; set trainer.max_epochs=1",
        "trainer.class_weights is balanced, but decision_tree does not use it; set trainer.class_weights=none",
        "trainer.weight_averaging is ema, but decision_tree does not use it; set trainer.weight_averaging=null",
        "augment.flip is set, but decision_tree is fitted once, to unmodified images; set augment=none",
        "space.optim.lr is a draw, but decision_tree does not use it; remove it with ~space.optim.lr",
    ]


def test_an_estimator_beside_networks_is_told_as_a_warning():
    composed = compose("demo", [TWO])
    assert find_faults(composed, composed.space())[1] == [
        "lda is fitted once, to unmodified images; trainer, augment, optim and lr_schedule apply to networks only"
    ]


def test_check_tells_all_of_it():
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose("demo", ["model=lda", "scheduler=none", "space.model.shrinkage.high=1.5"]))
    assert list(caught.value.faults) == [
        "trainer.max_epochs is 6, but lda is fitted once; set trainer.max_epochs=1",
        "space.optim.lr is a draw, but lda does not use it; remove it with ~space.optim.lr",
        "space.model.shrinkage.high is 1.5, which model rejects: model.shrinkage is 1.5; it must be in [0, 1], auto or "
        "null",
    ]
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose("demo", ["model=linear_svm", "model.C=-1"]), for_sweep=False)
    assert list(caught.value.faults) == [
        "model.C is -1; it must be above 0",
        "trainer.max_epochs is 6, but linear_svm is fitted once; set trainer.max_epochs=1",
    ]


@pytest.mark.full
@pytest.mark.parametrize("models", ["[decision_tree,lda]", "[cnn,lda]"])
def test_a_plan_leaves_estimators_out_and_says_so(models, monkeypatch):
    monkeypatch.setattr(planning, "measure_macs_per_second", lambda seconds=0.5: 1e9)
    monkeypatch.setattr(planning, "NUM_SAMPLES", 12)
    draws = ("stem_channels", "num_blocks", "block_channels", "conv_dropout", "dense_dropout")
    removed = (
        [] if "cnn" in models else [f"~space.model.{draw}" for draw in draws]
    )  # draws that no option has are faults
    composed = compose("demo", [f"+space.model.options={models}", *removed])
    plan = make_plan(composed, 28_709, 48, 1, 7)
    samples = [random_sample(composed.space(), derive_seed(0, number, "plan")) for number in range(12)]
    count = sum(sample["model"] != "cnn" for sample in samples)
    assert plan.warnings == [
        f"{count} of 12 samples are scikit-learn estimators, whose parameters, memory and time are known only after "
        "fitting; they are not included"
    ]
    assert (plan.parameters is None) == (plan.seconds == 0) == (count == 12)
    num_networks = 8 * (12 - count) / 12
    assert plan.disk_bytes == pytest.approx(num_networks * plan.checkpoint_bytes * 5 / 4)
