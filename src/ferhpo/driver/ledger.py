"""Record each event of a sweep: update the study first, then tracking. Independent of Ray.

Note: after a resume, a trial reports the epochs (or folds) of its checkpoint again. Those that are recorded already are
ignored here, so neither the study nor MLflow receives them twice.
"""

import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ferhpo.components.kinds import has_estimator, is_grid
from ferhpo.config.folds import EPOCH, num_reports, report_unit
from ferhpo.driver.budget import Budget
from ferhpo.errors import FailuresError, first_line
from ferhpo.publish.trial_runs import TrialRuns
from ferhpo.scoring.collapse import most_answered
from ferhpo.states import RunState, TrialState
from ferhpo.storage.checkpoints import kept_confusion
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import redact

log = logging.getLogger("ferhpo.sweep")

CONTINUE, STOP = "CONTINUE", "STOP"
TRACE_SECONDS = 5.0  # for a hanging worker to write its stack trace


class Ledger:
    """Keep the driver's record of one sweep: which trials run, wait and have ended.

    num_trials: of the sweep; None for no limit, or for the size of the grid with a grid sampler
    on_event: called with the ledger after every event
    on_new_trial: called when a trial's MLflow run is opened
    on_end: called when a trial has ended
    """

    def __init__(
        self,
        sweep: Sweep,
        study: SweepStudy,
        tracker: Any,
        num_trials: int | None,
        on_event: Callable[["Ledger"], None] = lambda ledger: None,
        on_new_trial: Callable[[TrialRecord], None] = lambda trial: None,
        on_end: Callable[[TrialRecord], None] = lambda trial: None,
    ) -> None:
        self.sweep, self.study, self.tracker = sweep, study, tracker
        self.compute = sweep.run_config.compute
        self.on_event, self.on_end = on_event, on_end
        self.space = study.space
        self.runs = TrialRuns(sweep, tracker, on_new_trial)
        self.unit, self.num_reports = report_unit(sweep.config), num_reports(sweep.config)
        size, num_continuous = self.space.size()
        limits = [num_trials] if num_trials is not None else []
        limits += [size] if is_grid(sweep.config["sampler"]) and not num_continuous else []
        self.num_trials = min(limits) if limits else None
        self.running: dict[int, int] = {}  # number -> last epoch (or fold) reported
        self.budget = Budget(sweep.run_config.budget)
        self.stop_reason = ""  # why the sweep ends before its last trial; "" if the user interrupts it
        self.is_stopping = False  # no new trial starts; running ones are interrupted after their next report
        self.started_seconds = time.monotonic()
        self.num_ended_before = sum(trial.state.is_over for trial in study.trials())
        self._losses: dict[int, tuple[int, int]] = {}  # number -> (epochs, losses since) at its worker's last loss
        self._epochs_done: dict[int, int] = {}  # of cross-validated trials, over all folds
        self._first_failures: list[TrialRecord] | None = []  # None once a trial did not fail
        self._heard: dict[int, float] = {}  # number -> time of its last sign of life
        self._not_finite: set[str] = set()  # metrics that were warned about
        self._facts: dict[int, dict[str, Any]] = {}
        self._began: dict[int, float] = {}
        self._seconds_before: dict[int, float] = {}  # in attempts that were interrupted
        self._waiting: deque[int] = deque()
        for number in study.interrupted():
            trial = study.trial(number)
            self._seconds_before[number] = self._epoch_seconds(number)
            if self.is_over(number):
                self._end(number, self._state_after_stop(trial))
            else:
                self._waiting.append(number)
        self.runs.catch_up(study.trials(), on_end)

    def next_trial(self) -> TrialRecord | None:
        """Return the next trial to run, interrupted ones first; None if no trial can start now."""
        if self._waiting:
            return self.study.trial(self._waiting.popleft())
        if self.num_trials is not None and self.study.num_asked >= self.num_trials:
            return None
        if not self.budget.has_trials:
            self.stop_reason = f"budget.trials is {self.budget.settings.trials}"
            return None
        return self.study.ask()

    @property
    def is_finished(self) -> bool:
        """Whether every trial has been asked and has ended. An interrupted trial has not ended."""
        asked_all = self.num_trials is not None and self.study.num_asked >= self.num_trials
        return asked_all and not self.study.interrupted()

    def start(self, number: int) -> None:
        """Record that a trial was handed to a worker."""
        trial = self.study.trial(number)
        self.running[number] = len(trial.reports)
        self.budget.began(number)
        self._began[number] = self._heard[number] = time.monotonic()
        self._seconds_before[number] = self._epoch_seconds(number)
        self.runs.open(trial)
        self.on_event(self)

    def report_facts(self, number: int, facts: Mapping[str, Any]) -> None:
        """Record what a worker knows about its trial before the first epoch."""
        known = self._facts.get(number, {})
        if known == {**known, **facts}:
            return
        self._facts[number] = {**known, **facts}
        if facts.get("restarted") not in (None, known.get("restarted")):
            log.warning("trial %d: %s", number, facts["restarted"])
        self.runs.log_facts(number, facts)

    def report(
        self,
        number: int,
        count: int,
        metrics: Mapping[str, float],
        decide: Callable[[], str],
        fold_epochs: Sequence[Mapping[str, float]] | None = None,
    ) -> str:
        """Record an epoch, or a fold of a cross-validated trial, and return CONTINUE or STOP.

        count: number of epochs, or folds, that are done; a count that is recorded already is ignored
        decide: asks the scheduler; called only for a new report
        fold_epochs: the metrics of each epoch of the fold; `metrics` are then the means over all folds so far
        """
        self.running[number] = max(count, self.running.get(number, 0))
        known = self.study.trial(number).reports
        if known and count <= known[-1][self.unit]:
            return CONTINUE
        for row in [metrics] if fold_epochs is None else fold_epochs:
            self._warn_not_finite(number, row, int(row.get(EPOCH, count)))
        decision = decide()
        if fold_epochs is None:
            self.study.record_epoch(number, count, metrics, decision)
            self.tracker.log_epoch(number, count, metrics)
        else:
            self.study.record_fold(number, count, metrics, fold_epochs, decision)
            self.tracker.log_epoch(number, count, metrics)
            self.runs.log_fold(number, count - 1, fold_epochs)
        self.on_event(self)
        return decision

    def _warn_not_finite(self, number: int, metrics: Mapping[str, float], epoch: int) -> None:
        """Warn of a metric that is not a finite number, once for each metric of the sweep."""
        for key, value in metrics.items():
            name = key.removeprefix("val_")
            if name != key and not math.isfinite(value) and name not in self._not_finite:
                self._not_finite.add(name)
                text = "trial %d: metrics.%s returned %s at epoch %d; a metric should return a finite number"
                log.warning(text, number, name, value, epoch)

    def _has_all(self, trial: TrialRecord) -> bool:
        return bool(trial.reports) and trial.reports[-1][self.unit] >= self.num_reports

    def stopped(self, number: int) -> None:
        """End a trial that the scheduler stopped, or whose last epoch (or fold) is recorded."""
        self._end(number, self._state_after_stop(self.study.trial(number)))

    def _state_after_stop(self, trial: TrialRecord) -> TrialState:
        # ASHA returns STOP at its max_t too: a trial that ran all its epochs, or folds, is complete, not pruned.
        is_whole = self.unit == EPOCH and trial.epochs and has_estimator(trial.config)
        return TrialState.COMPLETE if is_whole or self._has_all(trial) else TrialState.PRUNED

    def check_budget(self) -> None:
        """Stop the sweep if its budget is used up; running trials end after their epoch."""
        if (reason := self.budget.spent()) and not self.is_stopping:
            self.stop_reason, self.is_stopping = reason, True
            log.warning("%s, which is used up: no trial starts, and running ones stop after their epoch", reason)

    def notice(self) -> None:
        """Start no more trials: the user or the cluster asked the sweep to stop."""
        self.is_stopping = True

    def left(self, number: int) -> None:
        """Record that a trial was interrupted because the sweep stops; it stays open in the study, for a resume."""
        self.budget.ended(number)
        if self.is_over(number):
            self.stopped(number)
        else:
            self.running.pop(number, None)

    def is_over(self, number: int) -> bool:
        """Whether a trial has made its last report."""
        trial = self.study.trial(number)
        return bool(trial.decisions) and (trial.decisions[-1] == STOP or self._has_all(trial))

    def ended(self, number: int, state: TrialState, reason: str = "") -> None:
        """End a trial in the state that its worker reported."""
        self._end(number, state, reason)

    def lost(self, number: int, reason: str, out_of_memory: bool = False) -> None:
        """Retry a trial whose worker or node died, from its checkpoint.

        It is given up after more than compute.max_retries losses without a new epoch in between.

        out_of_memory: the worker was killed for its memory use; the trial is then INFEASIBLE in the end, not FAILED
        A trial that had made its last report has lost nothing, and ends normally.
        """
        if self.is_over(number):
            self.stopped(number)
            return
        num_reports = len(self.study.trial(number).reports)
        num_epochs = self._epochs_done.get(number, num_reports)
        epochs_before, num_losses = self._losses.get(number, (num_epochs, 0))
        num_losses = num_losses + 1 if num_epochs == epochs_before else 1
        self._losses[number] = num_epochs, num_losses
        if num_losses <= self.compute.max_retries:
            next_step = f"resumes after {self.unit} {num_reports}" if num_reports else "restarts from the beginning"
            log.warning("trial %d: %s; %s", number, redact(reason).partition(". ")[0].rstrip("."), next_step)
            self.running.pop(number, None)
            self._waiting.appendleft(number)
        elif out_of_memory:
            self._end(number, TrialState.INFEASIBLE, f"out of host memory {num_losses} times: {reason}")
        else:
            self._end(number, TrialState.FAILED, f"worker lost {num_losses} times: {reason}")

    def heard_of(self, number: int, epochs_done: int | None = None) -> None:
        """Record a sign of life of a trial's worker.

        epochs_done: of a cross-validated trial, the epochs done in all folds
        """
        self._heard[number] = time.monotonic()
        if epochs_done is not None:
            self._epochs_done[number] = max(epochs_done, self._epochs_done.get(number, 0))

    def hanging(self) -> list[int]:
        """Return the running trials without a sign of life for compute.trial_timeout."""
        if self.compute.trial_timeout is None:
            return []
        latest = time.monotonic() - self.compute.trial_timeout - TRACE_SECONDS
        return [number for number in self.running if self._heard.get(number, latest) < latest]

    def check_first_failures(self) -> None:
        """Raise FailuresError if the first trials that this driver ran all failed for the same reason."""
        limit, failed = self.compute.stop_after_failures, self._first_failures
        if not limit or not failed or len(failed) < limit or self.is_finished:
            return
        reasons = {re.sub(r"\d+", "", first_line(trial.reason)) for trial in failed}
        if len(reasons) == 1:
            raise FailuresError(
                f"the first {len(failed)} trials all failed: {first_line(failed[0].reason)}; fix the cause, "
                f"then resume with `{self.sweep.resume_command}` "
                "(compute.stop_after_failures=null continues regardless)"
            )

    def _end(self, number: int, state: TrialState, reason: str = "") -> None:
        trial = self.study.finish(number, state, redact(reason), self._seconds(number), self._extra(number))
        self.running.pop(number, None)
        self.budget.ended(number)
        if trial.state != TrialState.FAILED:
            self._first_failures = None
        elif self._first_failures is not None:
            self._first_failures.append(trial)
        if not self.tracker.was_opened(number):  # its workers died before they started it
            self.runs.open(trial)
        self.runs.close(trial)
        self.on_end(trial)
        self.on_event(self)

    def _seconds(self, number: int) -> float:
        """Return how long a trial took: the wall time of its last attempt plus the recorded epochs of earlier ones.

        What an earlier attempt spent otherwise (its start, an epoch that a kill cut off) is not known after a resume.
        """
        began = self._began.get(number)
        last = 0.0 if began is None else time.monotonic() - began
        return self._seconds_before.get(number, 0.0) + last

    def _epoch_seconds(self, number: int) -> float:
        """Return the seconds of a trial's recorded epochs, over all its folds."""
        trial = self.study.trial(number)
        rows = [row for epochs in trial.fold_epochs for row in epochs] or trial.epochs
        return sum(row.get("epoch_seconds", 0.0) for row in rows)

    def _extra(self, number: int) -> dict[str, Any]:
        """Return what else the study stores about a trial: its facts, and the class that its network predicts most."""
        kept = kept_confusion(self.sweep.trial_folder(number), len(self.study.trial(number).folds))
        most = {} if kept is None else {"most_answered": most_answered(kept["confusion"], kept["class_names"])}
        return {**self._facts.get(number, {}), **most}

    def interrupt(self, state: RunState = RunState.STOPPED, reason: str = "") -> None:
        """Close the runs of unfinished trials in MLflow because the sweep ends early; in the study they stay open.

        state: STOPPED (KILLED in MLflow) if the user or the budget ended the sweep, FAILED after an error
        """
        reason = reason or f"{self.stop_reason or 'interrupted by the user'}; can be resumed"
        self.runs.interrupt(self.study.trials(), state, reason)
        self.running.clear()
