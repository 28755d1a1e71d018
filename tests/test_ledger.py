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
                metrics = {"epoch": epoch, "val_acc": value_of(trial, epoch), "train_loss": 1.0}
                decision = ledger.report(
                    trial.number, epoch, metrics, lambda m=metrics: scheduler._decide(trial.number, m)
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
        (t.number, t.state, t.sample, t.seed, t.value, t.best_epoch, t.epochs, t.decisions)
        for t in load_sweep(sweep.name, sweep.folder.parent).trials()
    ]


@pytest.mark.parametrize("scheduler", ["none", "asha", "hyperband", "median"])
@pytest.mark.parametrize("sampler", ["random", "tpe_quick"])
def test_a_killed_sweep_ends_as_an_uninterrupted_one(tmp_path, sampler, scheduler):
    choice = [f"sampler={sampler}", f"scheduler={scheduler}"]
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
