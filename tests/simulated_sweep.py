"""A sweep with a simulated objective: real configuration, study, ledger and scheduler; one slot, no Ray, no network.

Its trials end in every possible state, and `drive` can end at any event, like a driver that is killed.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ferhpo.components.build import instantiate
from ferhpo.config import Composed, Objective
from ferhpo.config.compose import compose
from ferhpo.driver.ledger import CONTINUE, STOP, Ledger
from ferhpo.driver.ray_hooks import RecordingScheduler
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import Sweep, create_sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings

NUM_TRIALS = 9
CONDITIONAL = ("space.optim.options=[sgd,adam]",)  # each with its own draws, in addition to the widths of demo's blocks
NUMERIC = ("~space.model.block_channels",)
FINITE = (*NUMERIC, "~space.optim.lr", "~space.model.dense_dropout")
SPACES = {
    "random": CONDITIONAL,
    "tpe_quick": CONDITIONAL,
    "cmaes": (*NUMERIC, "sampler.n_startup_trials=3"),
    "grid": FINITE,
    "qmc": NUMERIC,
}
SCHEDULERS = ("none", "asha", "hyperband", "median")


class Killed(Exception):  # noqa: N818
    """The driver was killed here."""


@cache
def composed(*overrides: str) -> Composed:
    return compose("demo", [f"num_trials={NUM_TRIALS}", "trainer.max_epochs=6", *overrides])


def make_sweep(folder: Path, name: str, *overrides: str, listed: list[dict[str, Any]] | None = None) -> Sweep:
    """Create a sweep in `folder`."""
    base = composed(*overrides)
    config = {**base.config, "name": name, "output_dir": str(folder)}
    return create_sweep(replace(base, config=config), listed=listed or ())


def value_of(trial: TrialRecord, epoch: int) -> float:
    """Return a simulated objective: curves with different limits and rates, so that they cross."""
    digest = hashlib.sha256(json.dumps(trial.sample, sort_keys=True).encode() + bytes([trial.seed % 256])).digest()
    height, rate = 0.3 + digest[0] / 512, 1 + digest[1] / 64
    return height * (1 - math.exp(-epoch / rate))


def ending(trial: TrialRecord) -> tuple[int, str]:
    """Return after how many epochs a trial ends by itself, and its state; 9 epochs are more than there are."""
    kinds = {2: (2, "DIVERGED"), 4: (4, "COMPLETE"), 5: (0, "INFEASIBLE"), 7: (1, "FAILED")}
    return kinds.get(trial.number % 9, (9, "COMPLETE"))


def drive(
    sweep: Sweep,
    num_events: int = -1,
    uri: str | None = "none",
    num_trials: int = NUM_TRIALS,
    on_event: Callable[[RecordingScheduler], None] = lambda scheduler: None,
) -> bool:
    """Simulate one driver until it ends, or is killed after `num_events` events; return whether it ended.

    Events that the journal has already, e.g. an epoch that a resumed trial reports again, do not count.
    on_event: called at every event, and at the end
    """
    count, num_bytes, journal = 0, 0, sweep.folder / JOURNAL

    def event() -> None:
        nonlocal count, num_bytes
        if journal.stat().st_size == num_bytes:
            return
        count, num_bytes = count + 1, journal.stat().st_size
        on_event(scheduler)
        if count == num_events:
            raise Killed

    config = sweep.config
    study = SweepStudy(sweep.folder, sweep.space(), config["sampler"], config["seed"], Objective(), sweep.listed)
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=sweep.folder, uri=uri))
    tracker.open_sweep(sweep.name, {}, {}, "")
    try:
        ledger = Ledger(sweep, study, tracker, num_trials)
        num_bytes = journal.stat().st_size
        extra = {} if "FIFO" in config["scheduler"]["_target_"] else {"metric": "val_acc", "mode": "max"}
        scheduler = RecordingScheduler(instantiate(config["scheduler"], "scheduler", **extra), ledger, config["seed"])
        while (trial := ledger.next_trial()) is not None:
            event()
            _run_trial(ledger, scheduler, trial, event)
            event()
        on_event(scheduler)
    except Killed:
        return False
    finally:
        study.close()
        tracker.close(0)
    return True


def _run_trial(ledger: Ledger, scheduler: RecordingScheduler, trial: TrialRecord, event: Callable[[], None]) -> None:
    """Run a trial as Tune and a worker do: a resumed trial first reports the epochs of its checkpoint again."""
    ledger.start(trial.number)
    scheduler._add(trial.number)
    last_epoch, state = ending(trial)
    for epoch in range(1, min(last_epoch, ledger.num_reports) + 1):
        metrics = {ledger.unit: epoch, "val_acc": value_of(trial, epoch), "train_loss": 1.0}
        fold_epochs = [{"epoch": 1, "val_acc": metrics["val_acc"] + 0.1}] if ledger.unit == "fold" else None
        decision = ledger.report(
            trial.number, epoch, metrics, lambda m=metrics: scheduler._decide(trial.number, m), fold_epochs
        )
        if decision == STOP:
            scheduler._finish(trial.number, metrics)
        event()
        if decision == STOP:
            ledger.stopped(trial.number)
            return
        assert decision == CONTINUE
    ledger.ended(trial.number, state, "" if state == "COMPLETE" else f"simulated end of trial {trial.number}")


def recorded(sweep: Sweep) -> list[tuple[Any, ...]]:
    """Return all that a sweep's study has of its trials, except times."""
    return [
        (
            trial.number,
            trial.state,
            trial.reason,
            trial.sample,
            trial.seed,
            trial.value,
            trial.best_epoch,
            trial.epochs,
            trial.decisions,
            trial.sequences,
            trial.folds,
            trial.fold_epochs,
        )
        for trial in load_sweep(sweep.name, sweep.folder.parent).trials()
    ]
