"""The Ray Tune run of a sweep: our searcher, our scheduler before the stock one, one callback.

Ray moves work; the truth is in the ledger. What a reader would get wrong: a stopped trial's thread goes on to sit in
its last `report` until the next trial resets the worker; its SystemExit comes only then.
"""

import logging
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.cluster import Slots
from ferhpo.config import ComputeSettings, Objective
from ferhpo.data.dataset import FaceData
from ferhpo.errors import StorageError
from ferhpo.folds import EPOCH, report_unit
from ferhpo.hanging import Watch, trace_of
from ferhpo.ledger import CONTINUE, STOP, Ledger
from ferhpo.stopping import StopNotice
from ferhpo.study import derive_seed
from ferhpo.targets import instantiate

# isort: split
# After ferhpo.cluster, which sets what Ray reads while it is imported
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

DISK_REFUSED = "DISK_REFUSED"  # a worker's word for a StorageError; no outcome of the trial


class _Stub:
    """Stands for a trial before the stock scheduler, named by its study number: Tune's ids are random."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"{number:06d}"

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stub) and other.trial_id == self.trial_id


class _Unsaved:
    """Tune pickles searcher, scheduler and callback for a restore that ferhpo does not use: give it nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class RecordingScheduler(_Unsaved, FIFOScheduler):
    """Stands before a stock scheduler: feeds it the recorded history on resume, and records each decision."""

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
        # Ray draws a trial's bracket from numpy's global state.
        state = np.random.get_state()
        np.random.seed(derive_seed(self.seed, number, "bracket"))
        self.stock.on_trial_add(None, _Stub(number))
        np.random.set_state(state)

    def _decide(self, number: int, metrics: Mapping[str, float]) -> str:
        self._add(number)
        decision: str = self.stock.on_trial_result(None, _Stub(number), dict(metrics))
        assert decision in (CONTINUE, STOP), f"{type(self.stock).__name__} answered {decision}"
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
        self.ledger.heard_of(number, result.get("epochs_done"))
        facts = {key.removeprefix("facts/"): value for key, value in result.items() if key.startswith("facts/")}
        self.ledger.report_facts(number, facts)
        if self.ledger.unit not in result:
            return CONTINUE
        count, fold_epochs = int(result[self.ledger.unit]), result.get("fold_epochs")
        decision = self.ledger.report(number, count, result, lambda: self._decide(number, result), fold_epochs)
        if decision == STOP:
            self._finish(number, result)
        return STOP if self.ledger.is_stopping else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        pass

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        pass

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        pass


class StudySearcher(_Unsaved, Searcher):
    """Gives Tune the ledger's next trial."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def suggest(self, trial_id: str) -> Any:
        is_stopping = self.ledger.is_stopping
        trial = None if is_stopping else self.ledger.next_trial()
        if trial is None:
            return Searcher.FINISHED if is_stopping or self.ledger.is_finished else None
        self.ledger.running[trial.number] = len(trial.reports)
        return {
            "number": trial.number,
            "seed": trial.seed,
            "config": self.ledger.space.apply(trial.sample),
            "folder": str(self.ledger.sweep.trial_folder(trial.number)),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")  # Tune insists on a file; the study is the truth

    def restore(self, checkpoint_path: str) -> None:
        pass


class LedgerCallback(_Unsaved, tune.Callback):
    """Hands the starts and ends of trials to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._outcomes: dict[int, tuple[str, str]] = {}
        self.fault: Exception | None = None  # of ours, in a callback
        self._running: dict[int, Trial] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        self.ledger.start(number)
        self._running[number] = trial

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.ledger.check_first_failures()
        for number in self.ledger.hanging():
            actor = self._running[number].temporary_state.ray_actor
            if number not in self._outcomes and actor is not None:
                if not self.ledger.is_over(number):
                    self._outcomes[number] = "FAILED", self._why_hanging(number)
                ray.kill(actor)  # Tune then calls on_trial_error

    def _why_hanging(self, number: int) -> str:
        seconds = self.ledger.compute.trial_timeout
        where = trace_of(self.ledger.sweep.trial_folder(number))
        return f"no epoch for {seconds:g} s (compute.trial_timeout)" + (f"; it stood at\n{where}" if where else "")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if result.get("outcome") == DISK_REFUSED:
            raise StorageError(f"trial {number}: {result['reason']}; mend that and resume")
        if "outcome" in result:
            self._outcomes[number] = (result["outcome"], result.get("reason", ""))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        try:
            if number in self._outcomes:
                self.ledger.ended(number, *self._outcomes.pop(number))
            elif self.ledger.is_stopping:
                self.ledger.left(number)
            else:
                self.ledger.stopped(number)
        except Exception as error:  # Tune takes it for the trial's, and calls on_trial_error next
            self.fault = error
            raise

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if self.fault is not None:
            raise self.fault
        if number in self._outcomes:
            self.ledger.ended(number, *self._outcomes.pop(number))
        elif self.ledger.is_stopping:  # a cluster may send its notice to the workers too
            self.ledger.left(number)
        else:
            self.ledger.lost(number, *why_lost(trial))


def why_lost(trial: Trial) -> tuple[str, bool]:
    """How a trial's worker died, in a sentence, and whether the machine killed it for its memory.

    Ray's whole text names the command lines of other processes, with whatever passwords stand in them.
    """
    # trial.get_error() reads the copy in storage, which Tune makes later.
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    if found := re.search(r"low on memory.* was (.+? limit)", text):
        return f"the node ran low on memory ({found.group(1)})", True
    found = re.search(r"The actor is dead because (.+?)(?: Some common causes|$)", text, re.MULTILINE)
    return (found.group(1) if found else "no reason was given"), False


def worker_trial(
    config: dict[str, Any], data: FaceData, num_threads: int | None, timeout_seconds: float | None
) -> None:
    """What a worker runs: one trial after the other in a warm process."""
    facts: dict[str, Any] = {}
    unit = report_unit(config["config"])
    watch = Watch(Path(config["folder"]), timeout_seconds)
    watch.start()

    from ferhpo.cross_validation import runner_of
    from ferhpo.trial import failure, release_memory

    def tell(result: dict[str, Any]) -> None:
        watch.stop()  # it may wait long for the driver
        tune.report({**result, "facts": facts})
        watch.start()

    def report(count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None) -> None:
        tell({**metrics, unit: count, "fold_epochs": fold_epochs})

    of_folds = {} if unit == EPOCH else {"on_epoch": lambda count: tell({"epochs_done": count})}
    try:
        outcome = runner_of(config["config"])(
            config["config"],
            data,
            Path(config["folder"]),
            config["seed"],
            report,
            on_start=facts.update,
            num_threads=num_threads,
            **of_folds,
        )
    except StorageError as error:
        # Not the trial's fault: the driver ends the sweep, and a resume goes on with the trial.
        tell({"outcome": DISK_REFUSED, "reason": str(error)})
        raise
    except Exception as error:
        # The trial's boundary: tell the driver, then let the exception end this worker, whose state nobody knows now.
        tell({"outcome": "FAILED", "reason": failure(error)})
        raise
    finally:
        watch.close()
        release_memory()
    tune.report({"outcome": outcome.state, "reason": outcome.reason, "facts": facts})


def run(ledger: Ledger, data: FaceData, compute: ComputeSettings, objective: Objective, slots: Slots) -> bool:
    """Run the sweep to its end in the Ray that `start_ray` started. Returns False if a person stopped it.

    Raises StorageError where a disk refuses; what was recorded until then stays, and a resume goes on.
    """
    config = ledger.sweep.config
    section = dict(config["scheduler"])
    extra: dict[str, Any] = {}
    if not section["_target_"].endswith("FIFOScheduler"):
        extra = {"metric": objective.metric, "mode": objective.mode}
    stock = instantiate(section, allowed=config["allowed_targets"], **extra)
    searcher, callback = StudySearcher(ledger), LedgerCallback(ledger)
    scratch = ledger.sweep.folder / "ray"
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    num_threads = max(int(slots.cpus), 1)
    trainable = tune.with_resources(
        tune.with_parameters(worker_trial, data=data, num_threads=num_threads, timeout_seconds=compute.trial_timeout),
        {"CPU": slots.cpus, "GPU": slots.gpus},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RecordingScheduler(stock, ledger, int(config["seed"])),
            num_samples=-1,
            max_concurrent_trials=slots.num_slots,
            reuse_actors=not compute.isolate_trials,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    with StopNotice(compute.stop_grace_seconds, ledger.notice, _stop_tune):
        try:
            tuner.fit()
        except tune.TuneError as error:
            raise callback.fault or _storage_error(error) or error from None
    shutil.rmtree(scratch, ignore_errors=True)
    return ledger.is_finished


def _storage_error(error: BaseException | None) -> StorageError | None:
    """The StorageError of ours that Tune wrapped, if that is what happened."""
    while error is not None and not isinstance(error, StorageError):
        error = error.__cause__ or error.__context__
    return error


def _trial_name(trial: Trial) -> str:
    return f"{trial.config['number']:04d}"


def _stop_tune() -> None:
    """Let `fit` return now: while it runs, Tune takes SIGUSR1 as a wish to end."""
    if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, signal.SIG_IGN):  # it does not run yet
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGUSR1)
