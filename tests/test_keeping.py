"""What a sweep keeps: the checkpoints of its best trials, those that MLflow does not have yet, and free disk space."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import ferhpo
from ferhpo.driver.retention import Keeper
from ferhpo.errors import ConfigError, StorageError, SweepError
from ferhpo.evaluation.load import find_model
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.tracking import Tracker, TrackingSettings
from tests.simulated_sweep import make_sweep

VALUES = (0.3, 0.9, 0.5, 0.7, 0.8, 0.1)
EVERYTHING = ["best.ckpt", "epoch_0001.ckpt", "last.ckpt"]


def put_checkpoints(folder, num_bytes=10):
    folder.mkdir(parents=True)
    for name in EVERYTHING:
        (folder / name).write_bytes(bytes(num_bytes))


def files(sweep, number):
    return sorted(path.name for path in sweep.trial_folder(number).rglob("*.ckpt"))


@pytest.fixture
def ended(tmp_path):
    """A sweep of six trials with checkpoints, number 4 pruned and number 5 running; and the trials of its study."""
    sweep = make_sweep(tmp_path, "sweep", "keep_checkpoints=2", "tracking=none")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, sweep.objective)
    for value in VALUES:
        number = study.ask().number
        put_checkpoints(sweep.trial_folder(number))
        study.record_epoch(number, 1, {"val_acc": value}, "CONTINUE")
        if number < 5:
            study.finish(number, "PRUNED" if number == 4 else "COMPLETE")
    study.close()
    return sweep, study.trials()


def test_the_best_keep_all_and_the_others_nothing_that_mlflow_has(ended):
    sweep, trials = ended
    settled = {0}
    keeper = Keeper(sweep, lambda trial: trial.number in settled)
    keeper.tidy(trials)
    waiting = ["best.ckpt", "epoch_0001.ckpt"]
    # 1 and 3 are the best; 4 was pruned, so its value does not count; 5 is running.
    assert [files(sweep, n) for n in range(6)] == [[], EVERYTHING, waiting, EVERYTHING, waiting, EVERYTHING]
    settled |= {1, 2, 4, 5}
    keeper.tidy(trials, wanted=lambda trial: trial.number == 2)
    assert [files(sweep, n) for n in range(6)] == [[], EVERYTHING, waiting, EVERYTHING, [], EVERYTHING]
    keeper.tidy(trials)
    assert files(sweep, 2) == []
    Keeper(sweep, lambda trial: True).tidy(trials)  # as in the next driver
    assert [bool(files(sweep, n)) for n in range(6)] == [False, True, False, True, False, True]


def test_all_keeps_all(ended):
    sweep, trials = ended
    for value in ("all", None):  # a sweep older than the key has none
        config = {**sweep.config, "keep_checkpoints": value}
        if value is None:
            del config["keep_checkpoints"]
        Keeper(replace(sweep, composed=replace(sweep.composed, config=config)), lambda trial: True).tidy(trials)
        assert all(files(sweep, n) == EVERYTHING for n in range(6))


def test_the_error_for_a_removed_network_says_why(ended):
    sweep, trials = ended
    Keeper(sweep, lambda trial: True).tidy(trials)
    removed = (
        rf"{sweep.trial_folder(0)}/best.ckpt does not exist: keep_checkpoints is 2, and trial 0 was not among the best$"
    )
    with pytest.raises(SweepError, match=removed):
        find_model(f"{sweep.name}/0", sweep.folder.parent)
    assert best_checkpoint(sweep, trials[1]) == sweep.trial_folder(1) / "best.ckpt"
    shutil.rmtree(sweep.trial_folder(5))  # as if its first epoch has not ended
    assert best_checkpoint(sweep, trials[5]) == sweep.trial_folder(5) / "best.ckpt"


@pytest.mark.parametrize("value", [0, "some"])
def test_a_rule_that_is_none_is_refused(value):
    with pytest.raises(ConfigError) as caught:
        ferhpo.check("demo", [f"keep_checkpoints={value}"])
    assert caught.value.faults == (f"keep_checkpoints is {value}; it must be a whole number of 1 or more, or all",)


def test_little_space_is_a_warning_and_less_is_the_end(ended, caplog):
    sweep, _ = ended
    free = [10**9]
    keeper = Keeper(sweep, lambda trial: True, free_bytes=lambda folder: free[0])
    shutil.rmtree(sweep.trial_folder(0))
    put_checkpoints(sweep.trial_folder(0), 1_000_000)
    keeper.measure(0)
    keeper.check_space(num_slots=2)  # two trials of 3 MB may write three times that: 19 MB with START_BYTES
    assert caplog.messages == []
    free[0] = 90_000_000
    for _ in range(2):
        keeper.check_space(num_slots=2)
    assert caplog.messages == [
        f"disk: {sweep.folder} has 90 MB of free space; the sweep stops when it has less than 19 MB"
    ]
    free[0] = 18_000_000
    with pytest.raises(StorageError) as caught:
        keeper.check_space(num_slots=2)
    assert str(caught.value) == (
        f"{sweep.folder} has 18 MB of free space, and the next trials may need 19 MB; free some space and resume"
    )


@pytest.mark.full
def test_a_file_that_is_renamed_while_it_is_measured_costs_nothing(ended, monkeypatch):
    """The figures of a trial are drawn in a thread, under temporary names."""
    sweep, _ = ended[:2]
    keeper = Keeper(sweep, lambda trial: True, free_bytes=lambda folder: 0)
    folder = sweep.trial_folder(0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / ".curves.png.half").symlink_to(folder / "gone")
    (folder / "last.ckpt").write_bytes(bytes(7_000_000))
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    keeper.measure(0)
    with pytest.raises(StorageError, match="the next trials may need 22 MB"):  # three copies, and START_BYTES
        keeper.check_space(num_slots=1)


@pytest.mark.full
def test_a_checkpoint_stays_until_the_store_has_it(ended):
    """With a real MLflow store on SQLite."""
    sweep, trials = ended
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder.parent))
    tracker.open_sweep("sweep", {}, {}, "")
    keeper = Keeper(sweep, lambda trial: tracker.is_shipped(trial.number))
    for number in (0, 1):
        tracker.open_trial(number, {}, {})
        tracker.log_artifact(number, sweep.trial_folder(number) / "best.ckpt", "checkpoint")
        tracker.close_trial(number, "COMPLETE")
    keeper.tidy(trials)
    assert files(sweep, 0) == ["best.ckpt", "epoch_0001.ckpt"]
    tracker.start()
    assert tracker.flush(120) == 0
    keeper.tidy(trials)
    assert (files(sweep, 0), files(sweep, 1)) == ([], EVERYTHING)
    assert len(list(sweep.folder.parent.rglob("artifacts/checkpoint/best.ckpt"))) == 2
    tracker.close(1)


@pytest.mark.full
def test_a_sweep_leaves_the_checkpoints_of_its_best_and_sends_all(warm, tiny, tmp_path):
    from ferhpo.driver import ray_cluster

    options = [*tiny, "num_trials=5", "keep_checkpoints=2", "scheduler=none", "trainer.max_epochs=2"]
    options += ["compute.num_cpus=2", "compute.gpus_per_trial=0", "tracking.models=all"]
    result = ferhpo.sweep("demo", options)
    sweep = result.sweep
    assert not ray_cluster.ray.is_initialized(), "the next sweep of this process may need other resources"
    assert (result.counts, result.unshipped) == ({"COMPLETE": 5}, 0)
    board = [trial.number for trial in sweep.leaderboard()]
    assert [files(sweep, number) for number in board] == [["best.ckpt", "last.ckpt"]] * 2 + [[]] * 3
    assert len(list((tmp_path / "mlruns").rglob("checkpoint/best.ckpt"))) == 5
    assert not (sweep.folder / "rejected.jsonl").exists(), "no file was removed before it was uploaded"
    assert all((sweep.trial_folder(number) / "model").exists() for number in board), "models=all exports every trial"
    with pytest.raises(SweepError, match=r"keep_checkpoints is 2.*its MLflow run has it under checkpoint/$"):
        find_model(f"demo/{board[-1]}", sweep.folder.parent)
    extended = ferhpo.sweep("demo", [f"output_dir={tmp_path / 'mlruns'}", "num_trials=6"], resume=True)
    assert (extended.counts, extended.unshipped) == ({"COMPLETE": 6}, 0)
    assert sum(bool(files(sweep, number)) for number in range(6)) == 2
