"""A driver that is killed or interrupted during a sweep, and then resumed: real processes, Ray and MLflow."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

import ferhpo
from ferhpo.errors import FerhpoError
from tests.processes import end

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]
NUM_TRIALS, NUM_EPOCHS = 4, 5
OVERRIDES = [
    "name=hurt",
    f"num_trials={NUM_TRIALS}",
    f"trainer.max_epochs={NUM_EPOCHS}",
    "scheduler=none",  # which might stop the very trial that is to be interrupted
    "tracking.report=false",
    "data.num_train=700",  # an epoch takes about half a second
    "data.num_val=140",
    "data.num_test=14",
    "compute.num_cpus=2",
    "compute.gpus_per_trial=0",
]
STOP_SECONDS = 60  # how long a driver may take to end after SIGINT or SIGTERM


def wait_for(holds, driver, folder, log):
    """Wait until `holds` is true of the trials of a running sweep."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert driver.poll() is None, log.read_text()
        try:
            trials = ferhpo.load_sweep("hurt", folder).trials()
        except FerhpoError:  # not created yet
            trials = []
        if holds(trials):
            return
        time.sleep(0.05)
    raise AssertionError(f"the condition was not met in time\n{log.read_text()}")


def is_worth_killing(trials):
    """Return whether a trial has ended, and another has ended an epoch and has more to run."""
    unfinished = [t for t in trials if t.state == "RUNNING" and t.decisions and t.decisions[-1] == "CONTINUE"]
    return any(t.state != "RUNNING" for t in trials) and any(len(t.epochs) < NUM_EPOCHS - 2 for t in unfinished)


def refuse_second_driver(warm, driver, folder, log):
    wait_for(bool, driver, folder, log)
    before = (folder / "hurt" / "sweep.json").read_bytes()
    second_log = log.with_name("second.txt")
    second = warm.start("sweep", "--resume", "hurt", f"output_dir={folder}", "num_trials=99", log=second_log)
    assert second.wait(60) == 2, second_log.read_text()
    refusal = f"sweep hurt is being run by process {driver.pid} on {socket.gethostname()} since "
    assert refusal in second_log.read_text()
    assert (folder / "hurt" / "sweep.json").read_bytes() == before


def checkpointed_epochs(folder, number):
    """Return the history in a trial's last.ckpt, including timings: a training that restarted would have others."""
    path = folder / "hurt" / "trials" / f"{number:04d}" / "last.ckpt"
    return torch.load(path, weights_only=True)["history"] if path.exists() else []


def runs_by_trial(folder):
    """Return the MLflow client, the parent run, and the runs of each trial."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("ferhpo")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = {}
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            number = int(run.data.tags["ferhpo.trial"].split("/")[1])
            children.setdefault(number, []).append(run)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parents, children


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_a_driver_that_ends_in_mid_sweep_is_resumed_without_loss_or_double(warm, tmp_path, sent):
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    driver = warm.start("sweep", "demo", f"output_dir={folder}", *OVERRIDES, log=log)
    try:
        if sent == signal.SIGKILL:
            refuse_second_driver(warm, driver, folder, log)
        wait_for(is_worth_killing, driver, folder, log)
        if sent == signal.SIGINT:
            os.killpg(driver.pid, sent)  # as a terminal sends it, to the workers too
        else:
            driver.send_signal(sent)
        exit_status = driver.wait(STOP_SECONDS)
    finally:
        driver.kill()
    before = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials()}
    interrupted = [number for number, trial in before.items() if trial.state == "RUNNING"]
    assert interrupted
    assert any(before[number].epochs for number in interrupted)
    if sent == signal.SIGKILL:
        assert exit_status == -signal.SIGKILL
    else:
        assert exit_status == 130, log.read_text()
        assert "Stopped. Resume with: ferhpo sweep --resume hurt" in log.read_text()
        assert "Traceback" not in log.read_text()
        _, parents, children = runs_by_trial(folder)
        assert [run.info.status for run in parents] == ["KILLED"]
        assert {run.info.status for number in interrupted for run in children[number]} == {"KILLED"}
        assert not [run for runs in children.values() for run in runs if run.info.status == "RUNNING"]
    saved = {number: checkpointed_epochs(folder, number) for number in interrupted}

    resumed = warm.start("sweep", "--resume", "hurt", f"output_dir={folder}", log=log)
    assert resumed.wait(400) == 0, log.read_text()

    after = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials()}
    for number, trial in before.items():
        assert (after[number].sample, after[number].seed) == (trial.sample, trial.seed)
        assert after[number].epochs[: len(trial.epochs)] == trial.epochs
        if number not in interrupted:
            assert after[number] == trial
    for number in interrupted:
        num_saved = len(saved[number])
        assert num_saved >= len(before[number].epochs)
        assert checkpointed_epochs(folder, number)[:num_saved] == saved[number]
        assert after[number].epochs[:num_saved] == saved[number][: len(after[number].epochs)]
    assert_whole(folder)
    assert re.search(r"Registered ferhpo-hurt version 1", log.read_text())


def test_a_driver_that_is_stopped_while_its_first_workers_start_leaves_nothing_running(warm, tmp_path):
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    driver = warm.start("sweep", "demo", f"output_dir={folder}", *OVERRIDES, log=log)
    try:
        wait_for(bool, driver, folder, log)  # a trial exists; its worker takes seconds to start
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(STOP_SECONDS) == 130, log.read_text()
    finally:
        driver.kill()
    assert "Stopped. Resume with: ferhpo sweep --resume hurt" in log.read_text()
    assert "Traceback" not in log.read_text()
    _, parents, children = runs_by_trial(folder)
    assert [run.info.status for run in parents] == ["KILLED"]
    left = {trial.number for trial in ferhpo.load_sweep("hurt", folder).trials() if trial.state == "RUNNING"}
    assert left  # another trial may have ended its last epoch within the grace period
    for number, (run,) in children.items():
        assert run.info.status == ("KILLED" if number in left else "FINISHED")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_a_training_that_ends_in_the_middle_goes_on_from_its_checkpoint(warm, tmp_path, sent):
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    training = warm.start("train", "demo", f"output_dir={folder}", *OVERRIDES, log=log)
    try:
        wait_for(lambda trials: bool(trials and trials[0].epochs), training, folder, log)
        training.send_signal(sent)
        assert training.wait(STOP_SECONDS) == (-signal.SIGKILL if sent == signal.SIGKILL else 130), log.read_text()
    finally:
        training.kill()
    (before,) = ferhpo.load_sweep("hurt", folder).trials()
    assert before.state == "RUNNING"
    if sent != signal.SIGKILL:
        assert "Stopped. Resume with: ferhpo train --resume hurt" in log.read_text()
        _, parents, children = runs_by_trial(folder)
        assert [run.info.status for run in (*parents, *children[0])] == ["KILLED", "KILLED"]
    assert warm.run("train", "--resume", "hurt", f"output_dir={folder}", log=log) == 0, log.read_text()
    (after,) = ferhpo.load_sweep("hurt", folder).trials()
    assert (after.state, len(after.epochs)) == ("COMPLETE", NUM_EPOCHS)
    assert after.epochs[: len(before.epochs)] == before.epochs
    assert checkpointed_epochs(folder, 0)[: len(before.epochs)] == before.epochs
    client, parents, children = runs_by_trial(folder)
    assert [run.info.status for run in (*parents, *children[0])] == ["FINISHED", "FINISHED"]
    points = client.get_metric_history(children[0][0].info.run_id, "epoch_seconds")
    assert [(point.step, point.value) for point in points] == [
        (row["epoch"], row["epoch_seconds"]) for row in after.epochs
    ]


def assert_whole(folder):
    """Check that study and MLflow have every trial once, ended, with its epochs 1 to n."""
    trials = ferhpo.load_sweep("hurt", folder).trials()
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert {trial.state for trial in trials} == {"COMPLETE"}
    client, parents, children = runs_by_trial(folder)
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert {number: len(runs) for number, runs in children.items()} == dict.fromkeys(range(NUM_TRIALS), 1)
    for trial in trials:
        assert [row["epoch"] for row in trial.epochs] == list(range(1, NUM_EPOCHS + 1))
        (run,) = children[trial.number]
        assert (run.info.status, run.data.tags["ferhpo.state"]) == ("FINISHED", "COMPLETE")
        for key in ("val_acc", "train_loss", "epoch_seconds"):
            points = client.get_metric_history(run.info.run_id, key)
            assert [(point.step, point.value) for point in points] == [(row["epoch"], row[key]) for row in trial.epochs]


def test_trials_whose_workers_are_killed_go_on_from_their_checkpoints(warm, tmp_path):
    """The driver survives: it resumes the trials under their numbers, and the sweep ends normally."""
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    driver = warm.start("sweep", "demo", f"output_dir={folder}", *OVERRIDES, log=log)
    try:
        wait_for(is_worth_killing, driver, folder, log)
        workers = warm.workers()
        assert workers
        end(workers)
        before = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials()}
        assert driver.wait(400) == 0, log.read_text()
    finally:
        driver.kill()
    output = log.read_text()
    assert re.search(
        r"^trial \d: its worker process has died; (resumes after epoch \d|restarts from the beginning)$",
        output,
        re.MULTILINE,
    )
    assert "raylet" not in output, "Ray's own message about it is silenced"
    after = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials()}
    for number, trial in before.items():
        assert after[number].epochs[: len(trial.epochs)] == trial.epochs
        assert checkpointed_epochs(folder, number)[: len(trial.epochs)] == trial.epochs
    assert_whole(folder)


def test_a_kill_while_mlflow_makes_its_tables_leaves_a_store_that_opens(tmp_path):
    database, fresh = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.new"
    program = (
        "from ferhpo.tracking.settings import TrackingSettings; from ferhpo.tracking.store import connect\n"
        f"print(len(connect(TrackingSettings(output_dir={str(tmp_path)!r})).search_experiments()))"
    )
    environment = os.environ | {"FERHPO_CACHE_DIR": str(tmp_path / "cache")}  # without an empty database to copy
    first = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not fresh.exists() or fresh.stat().st_size == 0:
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert fresh.exists()
    assert not database.exists()
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stdout) == (0, "1\n"), again.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"mlflow.db", "mlflow.db.lock"}
