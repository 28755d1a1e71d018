"""What a driver does at each event of a sweep: tells the study, hands records to tracking. It knows nothing of Ray.

What a reader would get wrong: an epoch that was recorded before a crash comes again after the resume, from the trial's
checkpoint; it is ignored here, so neither the study nor MLflow sees it twice.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ferhpo.record import Sweep
from ferhpo.space import leaves
from ferhpo.study import SweepStudy, TrialRecord

PARAM_SECTIONS = ("data", "augment", "model", "optim", "lr_schedule", "trainer")
CONTINUE, STOP = "CONTINUE", "STOP"
METRICS = (
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "val_acc_clean",
    "val_macro_f1",
    "lr",
    "epoch_seconds",
    "images_per_second",
    "device_memory_mb",
)


class Ledger:
    """The driver's books of one sweep."""

    def __init__(
        self,
        sweep: Sweep,
        study: SweepStudy,
        tracker: Any,
        num_trials: int | None,
        on_event: Callable[["Ledger"], None] = lambda ledger: None,
        on_new_trial: Callable[[TrialRecord, dict[str, Any]], None] = lambda trial, config: None,
    ) -> None:
        self.sweep, self.study, self.tracker = sweep, study, tracker
        self.on_event, self.on_new_trial = on_event, on_new_trial
        self.space = study.space
        self.max_epochs = int(sweep.config["trainer"]["max_epochs"])
        size, num_continuous = self.space.size()
        is_grid = sweep.config["sampler"]["_target_"].endswith("GridSampler")
        limits = [num_trials] if num_trials is not None else []
        limits += [size] if is_grid and not num_continuous else []
        self.num_trials = min(limits) if limits else None
        self.running: dict[int, int] = {}  # number -> last epoch seen
        self.started_seconds = time.monotonic()
        self.num_ended_before = sum(trial.state != "RUNNING" for trial in study.trials())
        self._attempts: dict[int, int] = {}
        self._facts: dict[int, dict[str, Any]] = {}
        self._began: dict[int, float] = {}
        self._waiting: deque[int] = deque()
        for number in study.interrupted():
            trial = study.trial(number)
            if trial.decisions and (trial.decisions[-1] == STOP or trial.epochs[-1]["epoch"] >= self.max_epochs):
                self._end(number, self._state_after_stop(trial))
            else:
                self._waiting.append(number)
        self._tell_tracking_what_it_missed()

    def _tell_tracking_what_it_missed(self) -> None:
        """The study is written first: what a kill kept from tracking is handed over now, and whole trials where the
        sweep began without tracking; the rest is known there."""
        for trial in self.study.trials():
            if not trial.epochs and trial.state == "RUNNING":
                continue
            if not self.tracker.was_opened(trial.number):
                self._open_in_tracking(trial)
                self.report_facts(trial.number, trial.extra)
            for row in trial.epochs:
                metrics = {key: value for key, value in row.items() if key != "epoch"}
                self.tracker.log_epoch(trial.number, int(row["epoch"]), metrics)
            if trial.state != "RUNNING" and not self.tracker.was_closed(trial.number):
                self._close_in_tracking(trial)

    def next_trial(self) -> TrialRecord | None:
        """The next trial to run: interrupted ones first, then a new one; None when there is none to start now."""
        if self._waiting:
            return self.study.trial(self._waiting.popleft())
        if self.num_trials is not None and self.study.num_asked >= self.num_trials:
            return None
        return self.study.ask()

    @property
    def is_finished(self) -> bool:
        """Nothing runs, and nothing is left to start."""
        asked_all = self.num_trials is not None and self.study.num_asked >= self.num_trials
        return asked_all and not self._waiting and not self.running

    def start(self, number: int) -> None:
        """A trial was handed to a worker."""
        trial = self.study.trial(number)
        self.running[number] = len(trial.epochs)
        self._began[number] = time.monotonic()
        self._open_in_tracking(trial)
        self.on_event(self)

    def _open_in_tracking(self, trial: TrialRecord) -> None:
        is_new = not self.tracker.was_opened(trial.number)
        config = self.space.apply(trial.sample)
        self.tracker.open_trial(trial.number, self._params(trial, config), {"ferhpo.seed": str(trial.seed)})
        if is_new:
            self.on_new_trial(trial, config)

    def _params(self, trial: TrialRecord, applied: Mapping[str, Any]) -> dict[str, object]:
        """What was sampled and what was fixed, by dotted path."""
        fixed = dict(leaves({section: applied[section] for section in PARAM_SECTIONS}))
        fixed = {path: value for path, value in fixed.items() if not path.endswith("_target_")}
        groups = {section: self.sweep.composed.groups[section] for section in PARAM_SECTIONS if section != "trainer"}
        return {**groups, **fixed, **trial.sample, "seed": trial.seed}

    def report_facts(self, number: int, facts: Mapping[str, Any]) -> None:
        """What a worker knows of its trial before the first epoch."""
        if number in self._facts or not facts:
            return
        self._facts[number] = dict(facts)
        counts = {key: float(facts[key]) for key in ("num_parameters", "macs") if key in facts}
        self.tracker.log_metrics(number, counts)
        tags = {f"ferhpo.{key}": str(value) for key, value in facts.items() if key not in counts and value != ""}
        self.tracker.set_tags(number, tags)

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float], decide: Callable[[], str]) -> str:
        """Record an epoch and return what is to happen next; one recorded before is ignored."""
        known = self.study.trial(number).epochs
        self.running[number] = max(epoch, self.running.get(number, 0))
        if known and epoch <= known[-1]["epoch"]:
            return CONTINUE
        decision = decide()
        kept = {key: float(metrics[key]) for key in METRICS if key in metrics}
        self.study.record_epoch(number, epoch, kept, decision)
        self.tracker.log_epoch(number, epoch, kept)
        self.on_event(self)
        return decision

    def stopped(self, number: int) -> None:
        """The scheduler's stop has been carried out, or the last epoch has been recorded."""
        self._end(number, self._state_after_stop(self.study.trial(number)))

    def _state_after_stop(self, trial: TrialRecord) -> str:
        # ASHA answers STOP at its max_t too: a trial that ran all its epochs is complete, not pruned.
        return "COMPLETE" if trial.epochs and trial.epochs[-1]["epoch"] >= self.max_epochs else "PRUNED"

    def ended(self, number: int, state: str, reason: str = "") -> None:
        """A worker told how its trial ended."""
        self._end(number, state, reason)

    def lost(self, number: int, reason: str) -> None:
        """The worker or its node died: the trial runs again from its checkpoint, up to compute.max_retries times."""
        self._attempts[number] = self._attempts.get(number, 0) + 1
        if self._attempts[number] <= int(self.sweep.config["compute"]["max_retries"]):
            self.running.pop(number, None)
            self._waiting.appendleft(number)
        else:
            self._end(number, "FAILED", f"worker lost {self._attempts[number]} times: {reason}")

    def _end(self, number: int, state: str, reason: str = "") -> None:
        began = self._began.get(number)
        before = self.study.trial(number).seconds or 0.0
        seconds = before + (time.monotonic() - began if began is not None else 0.0)
        trial = self.study.finish(number, state, reason, seconds, self._facts.get(number))
        self.running.pop(number, None)
        self._close_in_tracking(trial)
        self.on_event(self)

    def _close_in_tracking(self, trial: TrialRecord) -> None:
        """Hand the value, the kept checkpoint and the outcome to tracking."""
        if trial.value is not None and trial.best_epoch is not None:
            best = {f"best_{self.study.objective.metric}": trial.value, "best_epoch": float(trial.best_epoch)}
            if trial.clean_acc is not None:
                best["best_val_acc_clean"] = trial.clean_acc
            self.tracker.log_metrics(trial.number, best)
        checkpoint = self.sweep.trial_folder(trial.number) / "best.ckpt"
        if checkpoint.exists():
            self.tracker.log_artifact(trial.number, checkpoint, "checkpoint")
            self.tracker.log_text(trial.number, confusion_json(checkpoint), "confusion.json")
        # Also an empty reason is written: it takes the place of that of an earlier interruption.
        self.tracker.close_trial(trial.number, trial.state, {"ferhpo.reason": trial.reason})

    def interrupt(self, state: str = "STOPPED", reason: str = "stopped by a person; resume goes on") -> None:
        """The sweep ends before its trials: what runs is closed in MLflow, and stays open in the study.

        state: STOPPED (KILLED in MLflow) for a person's doing, FAILED for an error's
        """
        for number in self.study.interrupted():
            if self.tracker.was_opened(number):  # not asked a moment ago, its worker still starting
                self.tracker.close_trial(number, state, {"ferhpo.reason": reason})
        self.running.clear()


def confusion_json(checkpoint: Path) -> str:
    """The confusion matrix of a checkpoint: rows are true classes, columns what was answered, in images."""
    import torch

    kept = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return json.dumps({"class_names": kept["class_names"], "confusion": kept["confusion"].tolist()})
