"""What data.folds makes of a configuration, of a data set, and of the metrics of folds."""

import statistics

import numpy as np
import pytest

from ferhpo.config import Objective, validate
from ferhpo.config.compose import compose
from ferhpo.config.folds import num_folds
from ferhpo.data import fer2013, synthetic
from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, face_data
from ferhpo.data.splits import identical_groups
from ferhpo.errors import ConfigError
from ferhpo.trial.cross_validation import running_means
from ferhpo.trial.load_data import fold_data

NUM_FOLDS = 5


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_counts_folds_where_trials_have_them(scheduler):
    config = compose("demo", [f"scheduler={scheduler}", f"data.folds={NUM_FOLDS}", "trainer.max_epochs=40"]).config
    assert num_folds(config) == NUM_FOLDS
    assert config["scheduler"]["time_attr"] == "fold"
    assert config["scheduler"].get("max_t", NUM_FOLDS) == NUM_FOLDS


def test_a_scheduler_counts_epochs_where_one_fold_is_chosen():
    config = compose("demo", [f"data.folds={NUM_FOLDS}", "data.fold=2"]).config
    assert num_folds(config) is None
    assert (config["scheduler"]["time_attr"], config["scheduler"]["max_t"]) == ("epoch", 6)
    assert config["trainer"]["max_epochs"] == 6


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["scheduler.grace_period=6"], "scheduler.grace_period is 6, but data.folds is 5; set scheduler.grace_period=5"),
        (["scheduler.max_t=20"], "scheduler.max_t is 20, but data.folds is 5; set scheduler.max_t=5"),
        (
            ["scheduler.time_attr=epoch"],
            "scheduler.time_attr is epoch; trials report once per fold, because data.folds is 5 and data.fold is null; "
            "set scheduler.time_attr=fold",
        ),
    ],
)  # fmt: skip
def test_check_explains_a_scheduler_that_does_not_fit_the_folds(overrides, fault):
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose("demo", [f"data.folds={NUM_FOLDS}", "trainer.max_epochs=40", *overrides]))
    assert fault in caught.value.faults


def test_the_fold_is_no_hyperparameter():
    fault = (
        "space.data.fold: data settings cannot be searched, because the data set is loaded once per sweep; "
        "set data.fold instead"
    )
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(
            compose("demo", ["space.data={fold: {choices: [0, 1]}}", "data.folds=2", "data.fold=0"])
        )
    assert list(caught.value.faults) == [fault]


@pytest.mark.full
def test_a_scheduler_may_last_as_long_as_the_folds_however_few_the_epochs():
    overrides = ["trainer.max_epochs=1", "scheduler.grace_period=9"]
    composed = compose("demo", ["data.folds=9", *overrides])
    validate.check_composed(composed)
    assert (composed.config["scheduler"]["time_attr"], composed.config["scheduler"]["max_t"]) == ("fold", 9)
    with pytest.raises(ConfigError, match=r"scheduler.grace_period is 9, but trainer.max_epochs is 1"):
        validate.check_composed(compose("demo", overrides))


def test_running_means_are_those_of_the_folds_so_far():
    rows = [{"epoch": e, "val_acc": acc, "val_loss": 1 - acc} for e, acc in ((3, 0.5), (1, 0.7), (2, 0.9))]
    assert running_means(rows[:1], "val_acc") == {"val_acc": 0.5, "val_loss": 0.5}
    means = running_means(rows, "val_acc")
    assert means == {
        "val_acc": pytest.approx(0.7),
        "val_loss": pytest.approx(0.3),
        "val_acc_std": pytest.approx(statistics.stdev([0.5, 0.7, 0.9])),
    }


def test_the_best_row_is_the_first_of_equal_ones_and_never_one_without_a_number():
    rows = [{"epoch": 1, "val_loss": float("nan")}, {"epoch": 2}, *({"epoch": e, "val_loss": 0.3} for e in (3, 4))]
    assert Objective("val_loss", "min").best_row(rows)["epoch"] == 3
    assert Objective("val_loss", "max").best_row(rows)["epoch"] == 3
    assert Objective("val_acc", "max").best_row(rows) is None


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    """A fer2013.csv of 360 images, every third one there twice, once in Training and once in PublicTest or Training."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("faces") / "fer2013.csv"
    images = rng.integers(0, 256, (240, 48 * 48))
    labels = rng.integers(0, 7, 240)
    usages = rng.choice(["Training", "Training", "PublicTest", "PrivateTest"], 240)
    rows = [(i, usages[i]) for i in range(240)] + [
        (i, "Training") for i in range(0, 240, 2) if usages[i] != "PrivateTest"
    ]
    lines = [f"{labels[i]},{' '.join(map(str, images[i]))},{usage}" for i, usage in rows]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return path


@pytest.mark.parametrize("subset", [None, 60])
def test_a_fold_of_cross_validation_is_what_reading_that_fold_gives(csv, tmp_path, subset):
    section = {"path": csv, "folds": NUM_FOLDS, "split_seed": 3, "train_subset": subset, "cache_dir": tmp_path}
    whole = fer2013.load(**section)
    assert whole.split_name == "published"
    assert not (whole.split == UNUSED).any()
    for fold in range(NUM_FOLDS):
        view, read = fold_data(whole, section, fold), fer2013.load(**section, fold=fold)
        assert (view.digest, view.split_name) == (read.digest, read.split_name)
        assert (view.split == read.split).all()
        assert view.images is whole.images
        assert view.labels is whole.labels


def test_all_folds_together_validate_every_pooled_image_once_and_divide_no_group(csv, tmp_path):
    section = {"path": csv, "folds": NUM_FOLDS, "cache_dir": tmp_path}
    whole = fer2013.load(**section)
    groups = identical_groups(whole.images)
    assert len(np.unique(groups)) < len(groups)
    views = [fold_data(whole, section, fold) for fold in range(NUM_FOLDS)]
    validates = np.stack([view.split == VAL for view in views])
    assert (validates.sum(axis=0) == ((whole.split == TRAIN) | (whole.split == VAL))).all()
    for view in views:
        assert ((view.split == TEST) == (whole.split == TEST)).all()
        assert not set(groups[view.split == TRAIN]) & set(groups[view.split == VAL])


def test_images_of_one_subject_stay_together_also_in_the_subset_of_a_fold():
    rng = np.random.default_rng(0)
    subjects, labels = np.repeat(np.arange(60), 4), np.tile(np.arange(4), 60)
    images = rng.integers(0, 256, (240, 8, 8), np.uint8)
    split = np.where(subjects < 50, TRAIN, TEST).astype(np.uint8)
    data = face_data(images, labels, split, ("a", "b", "c", "d"), "drawn", "published", groups=subjects)
    section = {"folds": 4, "split_seed": 1, "train_subset": 100}
    for fold in range(4):
        view = fold_data(data, section, fold)
        assert (view.split == TRAIN).sum() == 100
        assert not set(subjects[view.split == TRAIN]) & set(subjects[view.split == VAL])
        assert not set(subjects[view.split == TEST]) & set(subjects[view.split != TEST])


def test_a_subset_that_a_fold_cannot_give_is_refused():
    data = synthetic.load(num_train=30, num_val=10, num_test=0, image_size=24, folds=4)
    with pytest.raises(
        ConfigError, match=r"data.train_subset is 35; it must be at most 31, the number of training images of published"
    ):
        fold_data(data, {"folds": 4, "train_subset": 35}, 0)


def test_drawn_faces_have_folds_too():
    keys = {"num_train": 50, "num_val": 20, "num_test": 5, "image_size": 24, "folds": 3}
    whole = synthetic.load(**keys)
    for fold in range(3):
        assert fold_data(whole, keys, fold).digest == synthetic.load(**keys, fold=fold).digest
    with pytest.raises(ConfigError, match=r"data.fold is 3; with data.folds=3 it must be at most 2"):
        synthetic.load(**keys, fold=3)
