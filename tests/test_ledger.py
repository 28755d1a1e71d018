"""Exact resume without Ray: a simulated sweep with one slot, killed at many events, gives what an uninterrupted one does."""

import json
from dataclasses import replace
from functools import cache

import pytest

from ferhpo.config import Objective, compose, instantiate
from ferhpo.driver import RecordingScheduler
from ferhpo.ledger import STOP, Ledger
from ferhpo.record import create_sweep, load_sweep
from ferhpo.study import SweepStudy
from ferhpo.tracking import Tracker, TrackingSettings

NUM_TRIALS = 9
SCHEDULERS = ("none", "asha", "hyperband", "median")


class Killed(Exception):  # noqa: N818
    """The process ends here."""


@cache
def composed(*overrides):
    return compose("demo", [f"num_trials={NUM_TRIALS}", "trainer.max_epochs=6", *overrides])


def make_sweep(tmp_path, name, *overrides):
    base = composed(*overrides)
    return create_sweep(replace(base, config={**base.config, "name": name, "output_dir": str(tmp_path)}))


def value_of(trial, epoch):
    """A simulated objective; some trials diverge."""
    lr = trial.sample["optim.lr"]
    return 1 - abs(lr - 0.003) * 30 - 0.5 / (epoch + trial.number % 3)


def drive(sweep, num_events, uri="none"):
    """One driver process, from opening to the end or to its death after `num_events` events; returns whether it ended."""
    count = 0

    def event():
        nonlocal count
        count += 1
        if count == num_events:
            raise Killed

    config, objective = sweep.config, Objective()
    study = SweepStudy(sweep.folder, sweep.space(), config["sampler"], config["seed"], objective)
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri=uri))
    tracker.open_sweep(sweep.name, {}, {}, "")
    try:
        ledger = Ledger(sweep, study, tracker, config["num_trials"])
        extra = {} if "FIFO" in config["scheduler"]["_target_"] else {"metric": "val_acc", "mode": "max"}
        scheduler = RecordingScheduler(instantiate(config["scheduler"], **extra), ledger, config["seed"])
        while (trial := ledger.next_trial()) is not None:
            event()
            ledger.start(trial.number)
            scheduler._add(trial.number)
            if trial.number % 4 == 3:
                ledger.ended(trial.number, "DIVERGED", "loss is nan")
                continue
            for epoch in range(1, ledger.num_reports + 1):  # a checkpoint reports its history again
                metrics = {ledger.unit: epoch, "val_acc": value_of(trial, epoch), "train_loss": 1.0}
                folded = [{"epoch": 1, "val_acc": metrics["val_acc"] + 0.1}] if ledger.unit == "fold" else None
                decision = ledger.report(
                    trial.number, epoch, metrics, lambda m=metrics: scheduler._decide(trial.number, m), folded
                )
                if decision == STOP:
                    scheduler._finish(trial.number, metrics)
                event()
                if decision == STOP:
                    break
            if decision == STOP:
                ledger.stopped(trial.number)
            else:
                ledger.ended(trial.number, "COMPLETE")
            event()
    except Killed:
        return False
    finally:
        study.close()
        tracker.close(0)
    return True


def told(sweep):
    return [
        (t.number, t.state, t.sample, t.seed, t.value, t.best_epoch, t.epochs, t.decisions, t.folds, t.fold_epochs)
        for t in load_sweep(sweep.name, sweep.folder.parent).trials()
    ]


@pytest.mark.parametrize(
    ("sampler", "scheduler", "folds"),
    [
        *((sampler, scheduler, None) for sampler in ("random", "tpe_quick") for scheduler in SCHEDULERS),
        ("tpe_quick", "asha", 5),
        pytest.param("tpe_quick", "median", 5, marks=pytest.mark.full),
    ],
)
def test_a_killed_sweep_ends_as_an_uninterrupted_one(tmp_path, sampler, scheduler, folds):
    choice = [f"sampler={sampler}", f"scheduler={scheduler}"]
    choice += [] if folds is None else [f"data.folds={folds}"]
    whole = make_sweep(tmp_path, "whole", *choice)
    assert drive(whole, -1)
    expected = told(whole)
    assert len(expected) == NUM_TRIALS
    assert all(row[1] != "RUNNING" for row in expected)
    if scheduler != "none":
        assert any(row[1] == "PRUNED" for row in expected), "the scheduler had something to decide"
    for kills in ([1], [2], [8, 9], [17, 30], [29]):
        sweep = make_sweep(tmp_path, f"killed{kills[0]}", *choice)
        assert not drive(sweep, kills[0])
        for kill in [*kills[1:], -1]:
            drive(sweep, kill)
        assert told(sweep) == expected


def test_a_cross_validated_trial_is_pruned_by_its_running_mean(tmp_path):
    """By hand: ASHA's first rung, one fold, lets the third above the best third of those before it go on."""
    sweep = make_sweep(tmp_path, "sweep", "scheduler=asha", "data.folds=5")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, NUM_TRIALS)
    scheduler = RecordingScheduler(
        instantiate(sweep.config["scheduler"], metric="val_acc", mode="max"), ledger, sweep.config["seed"]
    )

    def fold(number, done, mean, best=0.99):  # an epoch of a fold may be as good as it likes
        metrics = {"fold": done, "val_acc": mean}
        return ledger.report(
            number, done, metrics, lambda: scheduler._decide(number, metrics), [{"epoch": 1, "val_acc": best}]
        )

    for number, mean in enumerate((0.5, 0.6, 0.7)):
        ledger.start(ledger.next_trial().number)
        assert fold(number, 1, mean) == "CONTINUE"
    ledger.start(ledger.next_trial().number)
    assert fold(3, 1, 0.63) == STOP  # below 0.5, 0.6, 0.7's upper third: 0.633
    ledger.stopped(3)
    assert (study.trial(3).state, study.trial(3).value, len(study.trial(3).folds)) == ("PRUNED", 0.63, 1)
    for done in (2, 3, 4):
        assert fold(2, done, 0.69) == "CONTINUE"
    assert not ledger.is_finished
    fold(2, 5, 0.68)
    ledger.stopped(2)
    assert (study.trial(2).state, study.trial(2).value) == ("COMPLETE", 0.68)
    study.close()


@pytest.mark.parametrize("kept_lines", range(2, 10))
def test_folds_that_a_kill_kept_from_tracking_are_told_once_at_the_resume(tmp_path, kept_lines):
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
    assert len(lines) == 8
    spool.write_text("".join(lines[:kept_lines]))
    tracker, ledger = open_ledger()
    tracker.close(0)
    study.close()
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    mine = [record for record in records if record.get("number") == number]
    assert [record["epoch"] for record in mine if "epoch" in record] == [1, 2]
    assert [(record["fold"], len(record["epochs"])) for record in mine if record["op"] == "fold"] == [(0, 2), (1, 2)]
    assert [record["state"] for record in mine if record["op"] == "close"] == ["COMPLETE"]


def test_a_sweep_begun_without_tracking_is_told_whole_to_a_store_at_its_resume(tmp_path):
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


def test_a_lost_worker_is_tried_again_and_then_failed(tmp_path):
    sweep = make_sweep(tmp_path, "lost", "compute.max_retries=2")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri="none"))
    ledger = Ledger(sweep, study, tracker, NUM_TRIALS)
    first = ledger.next_trial().number
    for _ in range(2):
        ledger.start(first)
        ledger.lost(first, "killed")
        assert ledger.next_trial().number == first, "the same number runs again"
    ledger.start(first)
    ledger.lost(first, "killed")
    assert study.trial(first).state == "FAILED"
    assert study.trial(first).reason == "worker lost 3 times: killed"
    assert ledger.next_trial().number == first + 1
    study.close()


@pytest.mark.parametrize("kept_lines", range(2, 11))
def test_what_a_kill_kept_from_tracking_is_told_at_the_resume(tmp_path, kept_lines):
    """The study has it all, the spool was cut: afterwards each epoch stands there once, and every run is closed."""
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
