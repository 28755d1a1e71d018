"""The ledger at each event of a sweep, without Ray. test_exact_resume.py kills whole sweeps at these events."""

import json
from types import SimpleNamespace

import pytest

from ferhpo.components.build import instantiate
from ferhpo.config import Objective
from ferhpo.driver.ledger import STOP, Ledger
from ferhpo.driver.ray_hooks import LedgerCallback, RecordingScheduler, count_every_loss, why_lost
from ferhpo.errors import FailuresError
from ferhpo.publish.sync import sync
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import Tracker, TrackingSettings
from ferhpo.tracking.store import connect
from ferhpo.tuning.session import end_early
from tests.servers import assert_whole_in_mlflow
from tests.simulated_sweep import NUM_TRIALS, drive, make_sweep


@pytest.fixture
def ledger_of_one(tmp_path):
    """Return a function that makes the ledger of a sweep with one running trial, and the sweep."""
    closed = []

    def make(*choice, uri="none"):
        sweep = make_sweep(tmp_path, "sweep", *choice)
        study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
        tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri=uri))
        tracker.open_sweep("sweep", {}, {}, "")
        ledger = Ledger(sweep, study, tracker, 1)
        ledger.start(ledger.next_trial().number)
        closed.extend([lambda: tracker.close(0), study.close])
        return ledger, sweep

    yield make
    for close in closed:
        close()


def test_a_cross_validated_trial_is_pruned_by_its_running_mean(tmp_path):
    """Computed by hand: at ASHA's first rung (one fold), a trial continues if it is in the best third so far."""
    sweep = make_sweep(tmp_path, "sweep", "scheduler=asha", "data.folds=5")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, NUM_TRIALS)
    scheduler = RecordingScheduler(
        instantiate(sweep.config["scheduler"], "scheduler", metric="val_acc", mode="max"), ledger, sweep.config["seed"]
    )

    def fold(number, done, mean, best=0.99):  # the best epoch of a fold does not matter
        metrics = {"fold": done, "val_acc": mean}
        return ledger.report(
            number, done, metrics, lambda: scheduler._decide(number, metrics), [{"epoch": 1, "val_acc": best}]
        )

    for number, mean in enumerate((0.5, 0.6, 0.7)):
        ledger.start(ledger.next_trial().number)
        assert fold(number, 1, mean) == "CONTINUE"
    ledger.start(ledger.next_trial().number)
    assert fold(3, 1, 0.63) == STOP  # below the upper third of 0.5, 0.6, 0.7: 0.633
    ledger.stopped(3)
    assert (study.trial(3).state, study.trial(3).value, len(study.trial(3).folds)) == ("PRUNED", 0.63, 1)
    for done in (2, 3, 4):
        assert fold(2, done, 0.69) == "CONTINUE"
    assert not ledger.is_finished
    fold(2, 5, 0.68)
    ledger.stopped(2)
    assert (study.trial(2).state, study.trial(2).value) == ("COMPLETE", 0.68)
    study.close()


@pytest.mark.parametrize("kept_lines", range(2, 11))
def test_folds_that_a_kill_kept_from_tracking_are_recorded_once_at_the_resume(tmp_path, kept_lines):
    sweep = make_sweep(tmp_path, "sweep", "data.folds=2")
    settings = TrackingSettings(output_dir=tmp_path)
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())

    def open_ledger():
        tracker = Tracker(sweep.folder, settings)
        tracker.open_sweep("sweep", {}, {}, "")
        return tracker, Ledger(sweep, study, tracker, 1)

    tracker, ledger = open_ledger()
    number = ledger.next_trial().number
    ledger.start(number)
    for done in (1, 2):
        epochs = [{"epoch": epoch, "val_acc": epoch / 10} for epoch in (1, 2)]
        ledger.report(number, done, {"val_acc": 0.2, "epoch": 1.5}, lambda: "CONTINUE", epochs)
    ledger.ended(number, "COMPLETE")
    tracker.close(0)
    spool = sweep.folder / "spool.jsonl"
    lines = spool.read_text().splitlines(keepends=True)
    assert len(lines) == 9
    spool.write_text("".join(lines[:kept_lines]))
    tracker, ledger = open_ledger()
    tracker.close(0)
    study.close()
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    mine = [record for record in records if record.get("number") == number]
    assert [record["epoch"] for record in mine if "epoch" in record] == [1, 2]
    assert [(record["fold"], len(record["epochs"])) for record in mine if record["op"] == "fold"] == [(0, 2), (1, 2)]
    assert [record["state"] for record in mine if record["op"] == "close"] == ["COMPLETE"]


def test_a_sweep_begun_without_tracking_is_recorded_whole_at_its_resume(tmp_path):
    sweep = make_sweep(tmp_path, "late", "sampler=random", "scheduler=asha")
    assert not drive(sweep, 20)
    assert drive(sweep, -1, uri=None)
    records = [json.loads(line) for line in (sweep.folder / "spool.jsonl").read_text().splitlines()]
    trials = load_sweep("late", tmp_path).trials()
    for trial in trials:
        own = [record for record in records if record.get("number") == trial.number]
        assert own[0]["op"] == "open_trial"
        assert own[-1]["op"] == "close"
        assert own[-1]["state"] == trial.state
        assert [r["epoch"] for r in own if "epoch" in r] == [row["epoch"] for row in trial.epochs]


@pytest.mark.parametrize("way", ["lost", "resumed", "over"])
def test_the_seconds_of_an_interrupted_trial_are_those_of_all_its_runs(tmp_path, monkeypatch, way):
    from ferhpo.driver import ledger

    clock = [1000.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: clock[0])
    sweep = make_sweep(tmp_path, "slow")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())

    def open_ledger():
        return Ledger(sweep, study, Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none")), 1)

    def run(ledger, epoch, seconds, decision="CONTINUE"):
        ledger.start(ledger.next_trial().number)
        clock[0] += seconds + 5
        ledger.report(0, epoch, {"val_acc": 0.5, "epoch_seconds": float(seconds)}, lambda: decision)

    ledger = open_ledger()
    run(ledger, 1, 30, "STOP" if way == "over" else "CONTINUE")
    clock[0] += 7  # spent in the second epoch, which is lost
    if way == "lost":
        ledger.lost(0, "killed")
    else:
        ledger = open_ledger()
    if way == "over":  # the kill came after the last report: opening the ledger ends the trial
        assert study.trial(0).seconds == 30
        return
    run(ledger, 2, 40)
    ledger.stopped(0)
    assert study.trial(0).seconds == 30 + (40 + 5)
    study.close()


def test_a_lost_worker_is_tried_again_and_then_failed(tmp_path):
    sweep = make_sweep(tmp_path, "lost", "compute.max_retries=2")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, NUM_TRIALS)
    first = ledger.next_trial().number
    for _ in range(2):
        ledger.start(first)
        ledger.lost(first, "killed")
        assert ledger.next_trial().number == first, "the same trial runs again"
    ledger.start(first)
    ledger.lost(first, "killed")
    assert study.trial(first).state == "FAILED"
    assert study.trial(first).reason == "worker lost 3 times: killed"
    assert ledger.next_trial().number == first + 1
    study.close()


@pytest.mark.parametrize("kept_lines", range(2, 11))
def test_what_a_kill_kept_from_tracking_is_told_at_the_resume(tmp_path, kept_lines):
    """The study is complete and the spool is cut: afterwards the spool has each epoch once, and every run is closed."""
    sweep = make_sweep(tmp_path, "sweep")
    settings = TrackingSettings(output_dir=tmp_path)
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())

    def open_ledger():
        tracker = Tracker(sweep.folder, settings)
        tracker.open_sweep("sweep", {}, {}, "")
        return tracker, Ledger(sweep, study, tracker, 2)

    tracker, ledger = open_ledger()
    for trial in (ledger.next_trial(), ledger.next_trial()):
        ledger.start(trial.number)
        for epoch in (1, 2):
            ledger.report(trial.number, epoch, {"val_acc": 0.5, "train_loss": 1.0}, lambda: "CONTINUE")
        ledger.ended(trial.number, "DIVERGED", "loss is nan")
    tracker.close(0)
    spool = sweep.folder / "spool.jsonl"
    lines = spool.read_text().splitlines(keepends=True)
    assert len(lines) == 11
    opened = {record["number"] for record in map(json.loads, lines[:kept_lines]) if record["op"] == "open_trial"}
    spool.write_text("".join(lines[:kept_lines]))
    tracker, ledger = open_ledger()
    tracker.close(0)
    study.close()
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    for number in opened:
        mine = [record for record in records if record.get("number") == number]
        assert [record["epoch"] for record in mine if "epoch" in record] == [1, 2]
        assert [record["state"] for record in mine if record["op"] == "close"] == ["DIVERGED"]


@pytest.mark.full
def test_what_a_kill_kept_from_tracking_is_told_by_a_sync(tmp_path):
    """As above, without a resume: MLflow gets the outcomes that the study has."""
    for kept_of_last in (1, 3, 4):  # the first of them opens trial 1
        sweep = make_sweep(tmp_path, f"kept-{kept_of_last}")
        study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
        tracker = Tracker(sweep.folder, sweep.tracking)
        tracker.open_sweep(sweep.name, {}, {}, "")
        ledger = Ledger(sweep, study, tracker, 2)
        for state in ("COMPLETE", "DIVERGED"):
            number = ledger.next_trial().number
            ledger.start(number)
            for epoch in (1, 2):
                ledger.report(number, epoch, {"val_acc": epoch / 10}, lambda: "CONTINUE")
            ledger.ended(number, state)
        tracker.close(0)
        study.close()
        spool = sweep.folder / "spool.jsonl"
        lines = spool.read_text().splitlines(keepends=True)
        opens = [(json.loads(line)["op"], json.loads(line).get("number")) for line in lines].index(("open_trial", 1))
        kept_lines = opens + kept_of_last
        assert kept_lines < len(lines)
        spool.write_text("".join(lines[:kept_lines]))
        assert sync(sweep.name, str(tmp_path)) > kept_lines
        assert_whole_in_mlflow(connect(sweep.tracking), sweep)


def test_a_sweep_that_is_stopped_in_its_last_trials_has_not_ended(tmp_path):
    sweep = make_sweep(tmp_path, "sweep")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, 1)
    ledger.start(ledger.next_trial().number)
    ledger.notice()
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "CONTINUE")
    ledger.left(0)
    assert (ledger.running, ledger.is_finished) == ({}, False)
    study.close()


@pytest.mark.parametrize("last", ["CONTINUE", "STOP"])
def test_of_a_trial_whose_worker_dies_after_its_last_report_nothing_is_lost(tmp_path, last):
    sweep = make_sweep(tmp_path, "sweep", "compute.max_retries=0")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, 2)
    ledger.start(ledger.next_trial().number)
    for epoch in range(1, 2 if last == "STOP" else ledger.num_reports + 1):
        ledger.report(0, epoch, {"val_acc": 0.5}, lambda: last)
    ledger.lost(0, "killed")
    assert study.trial(0).state == ("PRUNED" if last == "STOP" else "COMPLETE")
    study.close()


def test_a_fault_of_ours_at_the_end_of_a_trial_runs_it_no_second_time(tmp_path):
    """Tune attributes what a callback raises to the trial, and then calls on_trial_error for it."""
    sweep = make_sweep(tmp_path, "sweep")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))

    def listener(ledger):
        if study.trial(0).state != "RUNNING":
            raise OSError("stdout is full")

    ledger = Ledger(sweep, study, tracker, 2, listener)
    callback, trial = LedgerCallback(ledger), SimpleNamespace(config={"number": ledger.next_trial().number})
    callback.on_trial_start(0, [], trial)
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "STOP")
    for method in (callback.on_trial_complete, callback.on_trial_error):
        with pytest.raises(OSError, match="stdout is full"):
            method(0, [], trial)
    assert study.trial(0).state == "PRUNED"
    assert ledger.next_trial().number == 1
    study.close()


def test_a_run_that_a_kill_left_half_described_is_described_at_the_resume(tmp_path):
    sweep = make_sweep(tmp_path, "sweep")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    described = []
    for is_whole in (False, True, True):
        tracker = Tracker(sweep.folder, TrackingSettings(output_dir=tmp_path))
        tracker.open_sweep("sweep", {}, {}, "")

        def describe(trial, tracker=tracker, is_whole=is_whole):
            described.append(trial.number)
            tracker.log_text(trial.number, "...", "config.yaml")
            if is_whole:
                tracker.log_dataset(trial.number, "faces", "d" * 64, "drawn", {}, "training")

        ledger = Ledger(sweep, study, tracker, 1, on_new_trial=describe)
        ledger.start(ledger.next_trial().number)
        tracker.close(0)
    assert described == [0, 0]
    study.close()


def test_a_trial_that_began_anew_and_then_lost_its_worker_goes_on(ledger_of_one):
    """The second worker finds nothing damaged; the facts of the first one are kept."""
    ledger, _ = ledger_of_one()
    ledger.report_facts(0, {"pid": 1, "restarted": "begun again: last.ckpt is damaged"})
    ledger.lost(0, "killed")
    ledger.start(ledger.next_trial().number)
    ledger.report_facts(0, {"pid": 2})
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "STOP")
    ledger.stopped(0)
    extra = ledger.study.trial(0).extra
    assert (extra["pid"], extra["restarted"]) == (2, "begun again: last.ckpt is damaged")


def test_a_worker_that_is_lost_between_epochs_of_a_fold_is_no_loss_without_an_epoch(ledger_of_one):
    ledger, _ = ledger_of_one("data.folds=2", "compute.max_retries=1")
    for epochs_done in (3, 7, 9):
        ledger.heard_of(0, epochs_done)
        ledger.heard_of(0, 2)  # an epoch that a resumed fold trains again
        ledger.lost(0, "killed")
        assert ledger.study.trial(0).state == "RUNNING"
        ledger.start(ledger.next_trial().number)
    ledger.lost(0, "killed")
    assert ledger.study.trial(0).reason == "worker lost 2 times: killed"


def test_a_lost_worker_is_logged_in_one_line(ledger_of_one, caplog):
    ledger, _ = ledger_of_one()
    ledger.lost(0, "its worker process has died. Worker exit type: SYSTEM_ERROR")
    ledger.start(ledger.next_trial().number)
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "CONTINUE")
    ledger.lost(0, "the node has died.")
    assert [record.message for record in caplog.records] == [
        "trial 0: its worker process has died; restarts from the beginning",
        "trial 0: the node has died; resumes after epoch 1",
    ]


def test_a_sweep_whose_trials_all_failed_has_ended(ledger_of_one):
    """The same failure stops a sweep that has trials left."""
    ledger, _ = ledger_of_one("compute.stop_after_failures=1", "compute.max_retries=0")
    ledger.lost(0, "killed")
    assert ledger.is_finished
    ledger.check_first_failures()
    ledger.num_trials = 2
    with pytest.raises(
        FailuresError, match="the first 1 trials all failed: worker lost 1 times: killed; fix the cause"
    ):
        ledger.check_first_failures()


@pytest.mark.parametrize("way", ["by the ledger", "before there is one"])
def test_an_outcome_that_did_not_reach_tracking_is_recorded_by_the_interruption(ledger_of_one, monkeypatch, way):
    """Ctrl-C while best.ckpt is read: the study has the outcome, tracking does not."""
    ledger, sweep = ledger_of_one(uri=None)
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "STOP")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ledger.runs, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.stopped(0)
    assert ledger.study.trial(0).state == "PRUNED"
    if way == "by the ledger":
        ledger.interrupt()
    else:
        end_early(sweep, ledger.tracker, None, KeyboardInterrupt())
    assert ledger.tracker.was_closed(0, "PRUNED")


def test_a_trial_that_was_closed_as_something_else_is_closed_again(ledger_of_one):
    """The disk was full while a trial ended: tracking has FAILED, the study then has PRUNED."""
    ledger, _ = ledger_of_one(uri=None)
    ledger.report(0, 1, {"val_acc": 0.5}, lambda: "STOP")
    ledger.interrupt("FAILED", "disk full")
    ledger.study.finish(0, "PRUNED", "", 1.0, {})
    ledger.runs.catch_up(ledger.study.trials(), lambda trial: None)
    assert ledger.tracker.was_closed(0, "PRUNED")


def test_a_worker_that_ray_killed_for_its_memory_is_a_lost_worker_to_tune(tmp_path):
    """Ray reports it as an actor error or as OutOfMemoryError, depending on the moment; Tune knows only the first."""
    from ray.air.execution._internal import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayTaskError

    count_every_loss()
    count_every_loss()  # a second sweep in the same process
    errors = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: errors.append(("actor", error)))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: errors.append(("task", error)))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    text = "1 worker(s) were killed due to the node running low on memory. Memory on the node was 6.12GB used / 23.54GB limit (0.26)"
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=OutOfMemoryError(text))
    assert [where for where, _ in errors] == ["actor", "task"]
    (tmp_path / "error.txt").write_text(f"{errors[0][1]}\n")
    assert why_lost(SimpleNamespace(error_file=tmp_path / "error.txt")) == (
        "the node ran low on memory (6.12GB used / 23.54GB limit)",
        True,
    )
    RayActorManager._actor_task_failed(
        manager, tracked_actor_task=task, exception=RayTaskError("f", "trace", ValueError())
    )
    assert [where for where, _ in errors] == ["actor", "task", "task"]
    with pytest.raises(RuntimeError, match="no loss"):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=ValueError("no loss"))
