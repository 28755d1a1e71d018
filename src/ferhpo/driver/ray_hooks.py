"""Connect Ray Tune to the ledger: a searcher, a scheduler that wraps the configured one, and a callback."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.driver import ray_cluster  # noqa: F401
from ferhpo.driver.ledger import CONTINUE, STOP, Ledger
from ferhpo.driver.messages import KEY, Alive, Crowded, DiskRefused, Ended, Epoch, Fold, Message
from ferhpo.driver.processes.watchdog import trace_of
from ferhpo.errors import StorageError
from ferhpo.seeds import derive_seed
from ferhpo.states import TrialState

# isort: split
# After ray_cluster, which sets what Ray reads at import
import ray
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher


class _Stub:
    """Represent a trial to the wrapped scheduler by its study number, because Tune's trial ids are random."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"{number:06d}"

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stub) and other.trial_id == self.trial_id


class _Unsaved:
    """Pickle as nothing: Tune saves searcher, scheduler and callback for a restore that ferhpo does not use."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class RecordingScheduler(_Unsaved, FIFOScheduler):
    """Wrap a stock scheduler: replay the recorded reports to it on resume, and record each decision."""

    def __init__(self, stock: Any, ledger: Ledger, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stock, self.ledger, self.seed = stock, ledger, seed
        self._complete: set[int] = set()
        self._added: set[int] = set()
        self._replay()

    def _replay(self) -> None:
        rows = [
            (sequence, trial.number, report, decision)
            for trial in self.ledger.study.trials()
            for sequence, report, decision in zip(trial.sequences, trial.reports, trial.decisions, strict=True)
        ]
        for _, number, report, decision in sorted(rows, key=lambda row: row[0]):
            self._decide(number, report)
            if decision == STOP:
                self._finish(number, report)

    def _add(self, number: int) -> None:
        if number in self._added:
            return
        self._added.add(number)
        # Ray samples a trial's bracket from numpy's global state.
        state = np.random.get_state()
        np.random.seed(derive_seed(self.seed, number, "bracket"))
        self.stock.on_trial_add(None, _Stub(number))
        np.random.set_state(state)

    def _decide(self, number: int, metrics: Mapping[str, float]) -> str:
        self._add(number)
        if not math.isfinite(metrics[self.ledger.study.objective.metric]):  # schedulers compare numbers
            return CONTINUE
        decision: str = self.stock.on_trial_result(None, _Stub(number), dict(metrics))
        assert decision in (CONTINUE, STOP), f"{type(self.stock).__name__} returned {decision}"
        if metrics[self.ledger.unit] >= self.ledger.num_reports:
            self._finish(number, metrics)
        return decision

    def _finish(self, number: int, metrics: Mapping[str, float]) -> None:
        if number not in self._complete:
            self._complete.add(number)
            self.stock.on_trial_complete(None, _Stub(number), dict(metrics))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._add(trial.config["number"])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        message: Message = result[KEY]
        self.ledger.heard_of(number, message.num_epochs if isinstance(message, Alive) else None)
        self.ledger.report_facts(number, message.facts)
        if not isinstance(message, Epoch | Fold):
            return CONTINUE
        row = {**message.metrics, self.ledger.unit: message.number}
        fold_epochs = message.epochs if isinstance(message, Fold) else None
        decision = self.ledger.report(
            number, message.number, message.metrics, lambda: self._decide(number, row), fold_epochs
        )
        if decision == STOP:
            self._finish(number, row)
        return STOP if self.ledger.is_stopping else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        pass

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        pass

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        pass


class StudySearcher(_Unsaved, Searcher):
    """Give Tune the ledger's next trial."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def suggest(self, trial_id: str) -> Any:
        is_stopping = self.ledger.is_stopping
        trial = None if is_stopping else self.ledger.next_trial()
        if trial is None:
            # Tune does not ask again after FINISHED, and a running trial may need to be asked for once more.
            is_over = not self.ledger.budget.has_trials and not self.ledger.running
            return Searcher.FINISHED if is_stopping or is_over or self.ledger.is_finished else None
        self.ledger.running[trial.number] = len(trial.reports)
        self.ledger.budget.gave(trial.number)  # Tune asks for the next one before this one starts
        return {
            "number": trial.number,
            "seed": trial.seed,
            "config": trial.config,
            "folder": str(self.ledger.sweep.trial_folder(trial.number)),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")  # Tune requires a file; ferhpo restores from the study

    def restore(self, checkpoint_path: str) -> None:
        pass


class LedgerCallback(_Unsaved, tune.Callback):
    """Report starts and ends of trials to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._ends: dict[int, tuple[TrialState, str]] = {}  # reported by a worker, or determined by the driver
        self._crowded: dict[int, str] = {}  # why a worker gives a trial back
        self.fault: Exception | None = None  # raised by ferhpo in a callback
        self._running: dict[int, Trial] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        self.ledger.start(number)
        self._running[number] = trial

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.ledger.check_first_failures()
        self.ledger.check_budget()
        for number in self.ledger.hanging():
            actor = self._running[number].temporary_state.ray_actor
            if number not in self._ends and actor is not None:
                if not self.ledger.is_over(number):
                    self._ends[number] = TrialState.FAILED, self._timeout_reason(number)
                ray.kill(actor)  # Tune then calls on_trial_error

    def _timeout_reason(self, number: int) -> str:
        seconds = self.ledger.compute.trial_timeout
        trace = trace_of(self.ledger.sweep.trial_folder(number))
        suffix = f"; last stack trace:\n{trace}" if trace else ""
        return f"no epoch finished for {seconds:g} s (compute.trial_timeout){suffix}"

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        message: Message = result[KEY]
        if isinstance(message, DiskRefused):
            raise StorageError(f"trial {number}: {message.reason}; fix the cause, then resume")
        if isinstance(message, Crowded):
            self._crowded[number] = message.reason
        if isinstance(message, Ended):
            self._ends[number] = message.state, message.reason

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        try:
            if number in self._ends:
                self.ledger.ended(number, *self._ends.pop(number))
            elif self.ledger.is_stopping:
                self.ledger.left(number)
            else:
                self.ledger.stopped(number)
        except Exception as error:  # Tune attributes it to the trial, and calls on_trial_error next
            self.fault = error
            raise

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if self.fault is not None:
            raise self.fault
        if number in self._ends:
            self.ledger.ended(number, *self._ends.pop(number))
        elif self.ledger.is_stopping:  # a cluster may send SIGTERM to the workers too
            self.ledger.left(number)
        elif number in self._crowded:
            self.ledger.lost(number, self._crowded.pop(number))
        else:
            self.ledger.lost(number, *why_lost(trial))


def why_lost(trial: Trial) -> tuple[str, bool]:
    """Return why a trial's worker died, in one sentence, and whether it was killed for its memory use.

    Ray's full text is not used: it lists command lines of other processes, with any passwords in them.
    """
    # trial.get_error() reads the copy in storage, which Tune makes later than this.
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    if match := re.search(r"low on memory.* was (.+? limit)", text):
        return f"the node ran low on memory ({match.group(1)})", True
    match = re.search(r"The actor is dead because (.+?)(?: Some common causes|$)", text, re.MULTILINE)
    return (match.group(1) if match else "Ray reported no reason"), False


_LOSSES = (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)


def count_every_loss() -> None:
    """Let Tune treat every loss of a worker as one.

    Ray reports a worker that it kills for its memory now as an actor error, now as OutOfMemoryError, and Tune ends the
    whole run on any other error of a worker than an actor error.
    """
    original = RayActorManager._actor_task_failed
    if original.__module__ != RayActorManager.__module__:  # replaced already
        return

    def as_actor_error(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        lost = isinstance(exception, _LOSSES)
        original(manager, tracked_actor_task, RayActorError(error_msg=str(exception)) if lost else exception)

    RayActorManager._actor_task_failed = as_actor_error  # type: ignore[assignment, method-assign]
