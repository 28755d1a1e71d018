"""Concurrent use of a running sweep: readers, a second driver, another sweep in the same store. Real processes."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ferhpo import cli
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.lock import LOCK, FolderLock
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import Tracker, TrackingSettings, num_unshipped
from tests.conftest import TINY
from tests.reports.made_sweeps import made_sweep
from tests.simulated_sweep import make_sweep, recorded


@pytest.fixture
def running(tmp_path):
    """A sweep that this process runs: one trial has ended, one is in its second epoch, nothing is uploaded."""
    sweep = make_sweep(tmp_path, "busy")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, sweep.objective)
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=tmp_path))
    tracker.open_sweep("busy", {}, {}, "")
    for number, value in enumerate((0.5, 0.6)):
        study.ask()
        tracker.open_trial(number, {}, {})
        study.record_epoch(number, 1, {"val_acc": value}, "CONTINUE")
        tracker.log_epoch(number, 1, {"val_acc": value})
    study.finish(0, "COMPLETE")
    yield sweep
    study.close()
    tracker.close(0)


def answer(capsys, *arguments):
    """Return the exit status, stdout and stderr of a command."""
    status = cli.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out.strip(), err.strip()


@pytest.mark.full
def test_a_running_sweep_is_read_and_left_alone(running, capsys):
    folder = ["--output-dir", running.folder.parent]
    before = {path: path.read_bytes() for path in running.folder.rglob("*") if path.is_file()}
    status, out, _ = answer(capsys, "runs", "busy", *folder, "--json")
    assert (status, [row["state"] for row in json.loads(out)]) == (0, ["COMPLETE", "RUNNING"])
    assert json.loads(answer(capsys, "runs", *folder, "--json")[1])[0]["counts"] == {"COMPLETE": 1, "RUNNING": 1}
    assert "5 records; the sweep is running and uploads its records itself" in answer(capsys, "doctor", *folder)[1]
    assert answer(capsys, "sync", "busy", *folder) == (
        0,
        "sweep busy is running and uploads its records itself; 5 records pending",
        "",
    )
    for verb in (["sweep", "--resume", "busy", f"output_dir={running.folder.parent}"], ["confirm", "busy", *folder]):
        status, _, message = answer(capsys, *verb)
        assert (status, message.partition(" on ")[0]) == (2, f"sweep busy is being run by process {os.getpid()}")
    assert {path: path.read_bytes() for path in before} == before
    assert "interrupted" not in answer(capsys, "runs", "busy", *folder)[1]
    assert answer(capsys, "runs", *folder)[1].endswith("1 complete, 1 running")


def test_a_sweep_that_nobody_runs_any_more_is_said_to_be_interrupted(tmp_path, capsys):
    made_sweep(tmp_path, ["COMPLETE", "RUNNING", "RUNNING"])
    assert answer(capsys, "runs", "made", "--output-dir", tmp_path)[1].endswith(
        "Not running; 2 trials were interrupted. Resume with: ferhpo sweep --resume made output_dir=" + str(tmp_path)
    )
    assert answer(capsys, "runs", "--output-dir", tmp_path)[1].endswith("1 complete, 2 interrupted")


@pytest.mark.full
def test_a_report_of_a_running_sweep_says_what_has_not_ended(running, capsys):
    status, out, _ = answer(capsys, "report", "busy", "--output-dir", running.folder.parent)
    assert status == 0
    assert "1 trial had not ended when this page was made" in Path(out).read_text(encoding="utf-8")


def test_readers_never_see_half_of_what_a_driver_writes(tmp_path):
    """Two readers read continuously while a driver asks, records and ends trials."""
    sweep, faults, is_over = make_sweep(tmp_path, "busy"), [], threading.Event()

    def read(counts):
        while not is_over.is_set():
            try:
                rows = recorded(sweep)
                num_unshipped(sweep.folder, TrackingSettings(output_dir=tmp_path))
            except Exception as error:  # any exception is a finding
                faults.append(repr(error))
                return
            counts.append(sum(len(row[7]) for row in rows))

    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, sweep.objective)
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=tmp_path))
    tracker.open_sweep("busy", {}, {}, "")
    counts_by_reader = [[], []]
    readers = [threading.Thread(target=read, args=(counts,)) for counts in counts_by_reader]
    for reader in readers:
        reader.start()
    for number in range(12):
        study.ask()
        tracker.open_trial(number, {}, {})
        for epoch in range(1, 6):
            study.record_epoch(number, epoch, {"val_acc": 0.5, "train_loss": 1.0}, "CONTINUE")
            tracker.log_epoch(number, epoch, {"val_acc": 0.5})
        study.finish(number, "COMPLETE")
    is_over.set()
    for reader in readers:
        reader.join()
    study.close()
    tracker.close(0)
    assert faults == []
    for counts in counts_by_reader:
        assert counts == sorted(counts), "what was read once never disappears"
        assert len(counts) > 5


def test_the_lock_of_a_dead_driver_is_free(tmp_path):
    """The kernel releases it with the process; the text that the dead process left in it does not count."""
    program = (
        "import sys, os, signal; from pathlib import Path; from ferhpo.storage.lock import FolderLock\n"
        "from ferhpo.tracking.spool import Spool\n"
        "folder = Path(sys.argv[1]); lock, spool = FolderLock(folder), Spool(folder)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert dead.returncode == -9
    assert json.loads((tmp_path / LOCK).read_text())["pid"] != os.getpid()
    lock = FolderLock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    tracker = Tracker(tmp_path, TrackingSettings(output_dir=tmp_path))
    tracker.close(0)
    lock.release()


def test_a_lock_whose_text_is_not_written_yet_is_a_lock(tmp_path):
    lock = FolderLock(tmp_path)
    (tmp_path / LOCK).write_text('{"pid": ')
    with pytest.raises(SweepError, match=r"is being run by process \? on \? since \?; wait for it"):
        FolderLock(tmp_path)
    lock.release()


def test_a_folder_that_cannot_be_locked_is_no_second_driver(tmp_path, monkeypatch):
    """As on a network file system without a lock service, which this machine does not have."""

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"driver.lock cannot be locked \(No locks available\); set output_dir to a"):
        FolderLock(tmp_path)


def test_who_only_looks_whether_a_sweep_runs_keeps_no_driver_out(tmp_path):
    """A driver waits for a lock that is held for a moment, and refuses one that stays."""
    lock = FolderLock(tmp_path)
    threading.Timer(0.2, lock.release).start()
    start = time.monotonic()
    driver = FolderLock(tmp_path)
    assert time.monotonic() - start >= 0.15, "it waited for the lock"
    with pytest.raises(SweepError, match="is being run by process"):
        FolderLock(tmp_path)
    driver.release()


def test_a_sweep_that_cannot_be_read_hides_none_of_the_others_in_the_list(running, capsys):
    odd, odder = (make_sweep(running.folder.parent, name).folder for name in ("odd", "odder"))
    (odd / "spool.jsonl").write_text("no record\n")
    os.mkfifo(odder / LOCK)
    assert cli.main(["runs", "--output-dir", str(running.folder.parent), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"busy", "odd", "odder"}
    assert "error" in rows["odd"]
    assert "is not a regular file" in rows["odder"]["error"]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_sweeps_at_once_into_one_store_both_end_whole(warm, tmp_path):
    """The store does not exist when both start, so its creation is tested too."""
    command = ["sweep", "demo", *TINY, f"output_dir={tmp_path}"]
    command += ["num_trials=3", "scheduler=none", "compute.num_cpus=1", "compute.gpus_per_trial=0"]
    names = ("one", "two")
    drivers = [warm.start(*command, f"name={name}", log=tmp_path / f"{name}.txt") for name in names]
    start = time.monotonic()
    for name, driver in zip(names, drivers, strict=True):
        assert driver.wait(580 - (time.monotonic() - start)) == 0, (tmp_path / f"{name}.txt").read_text()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "ferhpo"]
    for name in names:
        trials = load_sweep(name, tmp_path).trials()
        assert [trial.state for trial in trials] == ["COMPLETE"] * 3
        runs = client.search_runs([experiment.experiment_id], f"tags.`ferhpo.sweep` = '{name}'")
        (parent,) = runs
        trial_runs = client.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=100
        )
        assert sorted(run.info.status for run in (*runs, *trial_runs)) == ["FINISHED"] * 4
        by_number = {int(run.data.tags["ferhpo.trial"].split("/")[1]): run for run in trial_runs}
        for trial in trials:
            points = client.get_metric_history(by_number[trial.number].info.run_id, "val_acc")
            assert [(point.step, point.value) for point in points] == [
                (row["epoch"], row["val_acc"]) for row in trial.epochs
            ]
