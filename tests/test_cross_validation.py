"""A cross-validated trial with real networks: every fold runs once, and resumes exactly wherever it was stopped."""

import json
import shutil

import pytest
import torch

from ferhpo.components.build import instantiate
from ferhpo.config.compose import compose
from ferhpo.config.folds import fold_folder
from ferhpo.errors import SweepError
from ferhpo.seeds import derive_seed
from ferhpo.training.hardware.usage import NAMES
from ferhpo.trial import cross_validation
from ferhpo.trial.cross_validation import FOLD_RESULT, cross_validate, running_means
from ferhpo.trial.run import run_trial

FOLDS, EPOCHS, SEED = 3, 2, 7
TIMINGS = ("epoch_seconds", "images_per_second", "device_memory_mb", *NAMES)


class Killed(BaseException):
    """The process was killed here."""


@pytest.fixture(scope="module")
def config():
    overrides = ["data.num_train=60", "data.num_val=30", "data.num_test=5", "data.image_size=24", f"data.folds={FOLDS}"]
    overrides += ["model.width_multiplier=0.05", "model.num_blocks=2", "model.conv_dropout=0.2", "augment=flip"]
    return compose("demo", [*overrides, f"trainer.max_epochs={EPOCHS}", "trainer.batch_size=16"]).config


@pytest.fixture(scope="module")
def data(config):
    return instantiate(config["data"], "data")


def plain(row):
    """Return the metrics that are the same when a training is repeated."""
    return {key: value for key, value in row.items() if key not in TIMINGS}


def weights(folder):
    return [
        {name: tensor.numpy().tobytes() for name, tensor in torch.load(path, weights_only=True)["network"].items()}
        for fold in range(FOLDS)
        for path in [fold_folder(folder, fold) / "best.ckpt"]
    ]


@pytest.fixture(scope="module")
def whole(config, data, tmp_path_factory):
    """Run an uninterrupted trial; return (folder, reports)."""
    folder, reports = tmp_path_factory.mktemp("whole"), []
    outcome = cross_validate(config, data, folder, SEED, lambda *report: reports.append(report))
    assert outcome.state == "COMPLETE"
    return folder, reports


def test_reports_are_running_means_of_each_fold_at_its_best_epoch(whole):
    folder, reports = whole
    assert [done for done, _, _ in reports] == [1, 2, 3]
    best = [max(epochs, key=lambda row: row["val_acc"]) for _, _, epochs in reports]
    for done, means, epochs in reports:
        assert [row["epoch"] for row in epochs] == [1, 2]
        assert means == running_means(best[:done], "val_acc")
        assert ("val_acc_std" in means) == (done > 1)
    assert len({row["val_acc"] for row in best}) > 1, "the folds differ"
    for fold in range(FOLDS):
        kept = torch.load(fold_folder(folder, fold) / "best.ckpt", weights_only=True)
        assert kept["metrics"]["val_acc"] == best[fold]["val_acc"]


def test_a_fold_is_the_training_that_data_fold_gives(whole, config, tmp_path):
    one = {**config, "data": {**config["data"], "fold": 1}}
    epochs = []
    seed = derive_seed(SEED, 1, "fold")
    run_trial(
        one, instantiate(one["data"], "data"), tmp_path, seed, lambda epoch, row: epochs.append({"epoch": epoch, **row})
    )
    assert [plain(row) for row in epochs] == [plain(row) for row in whole[1][1][2]]


def drive(config, data, folder, monkeypatch, kill_at):
    """Simulate a process that is killed at event `kill_at`, an epoch's checkpoint or a fold's report.

    Returns (whether it ended by itself, the trained epochs, the reports).
    """
    count, trained, reports = 0, [], []

    def event():
        nonlocal count
        count += 1
        if count == kill_at:
            raise Killed

    def killable(config, data, folder, seed, report, *rest):
        num_saved = len(torch.load(folder / "last.ckpt", weights_only=True)["history"]) if folder.exists() else 0

        def after_epoch(epoch, metrics):
            report(epoch, metrics)
            if epoch > num_saved:
                trained.append((folder.name, epoch))
                event()

        return run_trial(config, data, folder, seed, after_epoch, *rest)

    def report(*arguments):
        reports.append(arguments)
        event()

    monkeypatch.setattr(cross_validation, "run_trial", killable)
    try:
        cross_validate(config, data, folder, SEED, report)
    except Killed:
        return False, trained, reports
    return True, trained, reports


MORE_KILLS = [pytest.param(kills, marks=pytest.mark.full) for kills in ([1], [2], [5], [6], [7], [8], [9], [1, 1, 1])]


@pytest.mark.parametrize("kills", [[3], [4], [2, 1, 2, 3], *MORE_KILLS], ids=str)
def test_a_trial_killed_anywhere_goes_on_exactly_and_trains_nothing_twice(
    whole, config, data, tmp_path, monkeypatch, kills
):
    trained = []
    for kill in kills:
        ended, newly_trained, _ = drive(config, data, tmp_path, monkeypatch, kill)
        assert not ended
        trained += newly_trained
    ended, newly_trained, reports = drive(config, data, tmp_path, monkeypatch, None)
    assert ended
    assert trained + newly_trained == [
        (f"fold{fold}", epoch) for fold in range(FOLDS) for epoch in range(1, EPOCHS + 1)
    ]
    assert weights(tmp_path) == weights(whole[0])
    assert [(done, plain(means), [plain(row) for row in epochs]) for done, means, epochs in reports] == [
        (done, plain(means), [plain(row) for row in epochs]) for done, means, epochs in whole[1]
    ]


def test_ended_folds_are_told_again_from_their_file_with_what_is_known_of_them(whole, config, data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    for path in folder.glob("fold*/*.ckpt"):
        path.unlink()
    reports, facts = [], {}
    cross_validate(config, data, folder, SEED, lambda *report: reports.append(report), facts.update)
    assert reports == whole[1]
    assert facts["num_parameters"] > 0
    assert not list(folder.glob("fold*/*.ckpt"))


def test_a_broken_file_of_a_fold_is_made_again_from_its_checkpoint(whole, config, data, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    path = fold_folder(folder, 1) / FOLD_RESULT
    before = path.read_text()
    path.write_text(before[:40])
    _, trained, reports = drive(config, data, folder, monkeypatch, None)
    assert trained == []
    assert reports == whole[1]
    assert json.loads(path.read_text())["epochs"] == json.loads(before)["epochs"]


def test_a_stop_in_the_report_leaves_the_other_folds_untrained(config, data, tmp_path):
    def stop(done, means, epochs):
        if done == 2:
            raise SystemExit

    with pytest.raises(SystemExit):
        cross_validate(config, data, tmp_path, SEED, stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold0", "fold1"]


@pytest.mark.parametrize(
    ("section", "key", "value", "state", "reason"),
    [
        ("optim", "lr", 1e30, "DIVERGED", "data.fold=0: train_loss is "),
        ("model", "num_blocks", 9, "INFEASIBLE", "data.fold=0: block 4 of 9: "),
    ],
)
def test_an_outcome_of_a_fold_is_the_trials_and_names_the_fold(
    config, data, tmp_path, section, key, value, state, reason
):
    changed = {**config, section: {**config[section], key: value}}
    outcome = cross_validate(changed, data, tmp_path, SEED, lambda *report: None)
    assert outcome.state == state
    assert outcome.reason.startswith(reason)
    assert not list(tmp_path.glob(f"fold*/{FOLD_RESULT}"))


def test_an_error_says_in_which_fold_it_was(whole, config, data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    (fold_folder(folder, 1) / FOLD_RESULT).unlink()
    last = torch.load(fold_folder(folder, 1) / "last.ckpt", weights_only=True)
    torch.save({**last, "format": 99}, fold_folder(folder, 1) / "last.ckpt")
    with pytest.raises(SweepError, match=r"fold1/last.ckpt has format 99; this version of ferhpo reads") as caught:
        cross_validate(config, data, folder, SEED, lambda *report: None)
    assert caught.value.__notes__ == ["data.fold=1"]
