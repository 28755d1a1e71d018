"""Estimators and HOG networks through sweep, study, MLflow and registry, for real."""

import mlflow.pyfunc
import numpy as np
import pytest
import torch

import ferhpo
from ferhpo.data.dataset import VAL
from ferhpo.tracking import fetch
from ferhpo.trial.load_data import load_data

DATA = ["data.num_train=140", "data.num_val=70", "data.num_test=14"]
SMALL = [
    *DATA,
    "model.width_multiplier=0.05",
    "trainer.batch_size=32",
    "compute.num_cpus=2",
    "compute.gpus_per_trial=0",
]


def answers_of_the_registered_model(result, data, folder):
    """Probabilities of the raw validation images, by the model that the sweep registered."""
    name, number = result.registered
    path = fetch.download(result.sweep.tracking, name, number, folder)
    return mlflow.pyfunc.load_model(str(path)).predict(data.images[data.split == VAL]).to_numpy()


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "overrides",
    [
        ["model=decision_tree", "model.features=pixels", "trainer.max_epochs=1"],
        ["model=lda", "model.features=hog", "trainer.max_epochs=1"],
        ["model.hog={pixels_per_cell: 12}", "trainer.max_epochs=2", "augment=flip", "model.width_multiplier=0.05"],
    ],
    ids=["tree", "lda", "hog"],
)
def test_the_registered_model_scores_on_raw_images_what_its_trial_did(overrides, tmp_path):
    result = ferhpo.train("demo", [*DATA, *overrides, f"output_dir={tmp_path / 'mlruns'}"])
    data = load_data(result.sweep.composed)
    answers = answers_of_the_registered_model(result, data, tmp_path / "model")
    labels = data.labels[data.split == VAL]
    assert (answers.argmax(1) == labels).mean() == pytest.approx(result.best.value)
    right = answers[np.arange(len(labels)), labels]
    epoch = result.best.epochs[result.best.best_epoch - 1]
    assert -np.log(right).mean() == pytest.approx(epoch["val_loss"], rel=1e-3)
    assert result.best.extra["num_parameters"] > 0
    held = torch.load(result.sweep.trial_folder(0) / "best.ckpt", weights_only=True)
    assert int(held["confusion"].sum()) == len(labels)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_estimators_beside_networks_are_complete_also_where_the_scheduler_stops_them(warm, tmp_path):
    result = ferhpo.sweep(
        "demo",
        [
            *SMALL,
            f"output_dir={tmp_path / 'mlruns'}",
            "+space.model.options=[cnn,lda,decision_tree]",
            "space.optim.lr.when={model: cnn}",
            "trainer.max_epochs=2",
            "scheduler.max_t=2",
            "scheduler.grace_period=1",
            "sampler=random",
            "num_trials=8",
        ],
    )
    trials = result.sweep.trials()
    once = [trial for trial in trials if trial.sample["model"] != "cnn"]
    assert len(trials) == 8
    assert 0 < len(once) < 8
    assert {trial.state for trial in once} == {"COMPLETE"}
    assert ["STOP"] in [trial.decisions for trial in once], "the scheduler would have stopped one that was a network"
    assert {len(trial.epochs) for trial in once} == {1}
    assert all("optim.lr" not in trial.sample for trial in once)
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}


@pytest.mark.full
def test_a_fit_that_was_kept_and_not_recorded_is_not_made_again(tmp_path, monkeypatch):
    """A kill between best.ckpt and the study: the resume tells the study what the checkpoint holds."""
    from ferhpo.driver.ledger import Ledger
    from ferhpo.models.estimators import Estimator

    overrides = [*DATA, "model=lda", "trainer.max_epochs=1", "tracking=none", f"output_dir={tmp_path}", "name=kept"]

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "report", killed)
        assert not ferhpo.train("demo", overrides).finished
    monkeypatch.setattr(Estimator, "fit", lambda *arguments: pytest.fail("fitted again"))
    result = ferhpo.train("kept", [f"output_dir={tmp_path}"], resume=True)
    assert result.counts == {"COMPLETE": 1}
    assert result.best.extra["num_parameters"] == 7 * 48 * 48 + 7
