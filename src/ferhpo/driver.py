"""The Ray Tune run of a sweep: our searcher, our scheduler before the stock one, one callback. All of Ray is here.

Ray moves work; the truth is in the ledger. What a reader would get wrong: a stopped trial's thread goes on to sit in
its last `report` until the next trial resets the worker; its SystemExit comes only then.
"""

import logging
import os
import re
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.config import ComputeSettings, Objective
from ferhpo.data.dataset import FaceData
from ferhpo.errors import ConfigError, FerhpoError, StorageError, first_line
from ferhpo.folds import EPOCH, report_unit
from ferhpo.hanging import Watch, trace_of
from ferhpo.ledger import CONTINUE, STOP, Ledger
from ferhpo.stopping import StopNotice
from ferhpo.study import derive_seed
from ferhpo.targets import instantiate

# Set before Ray is imported: it reads them at import.
_ENVIRONMENT = {
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # time for a stopped trial to leave `report`; the default of 2 s hangs fit
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours hears it (stopping.py)
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",  # what Ray says of a dead worker is coloured even in a file
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # the processes that Ray starts ahead of work never get a trial of Tune's
}
os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

DISK_REFUSED = "DISK_REFUSED"  # a worker's word for a StorageError; no outcome of the trial
NUM_START_ATTEMPTS = 3  # ray.init waits 30 s for its node, and on a loaded machine that has been too little


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and what each one gets."""

    num_slots: int
    cpus: float
    gpus: float


def start_ray(compute: ComputeSettings) -> bool:
    """Join the cluster that `compute.address` names, or start Ray on this machine. False where Ray ran already.

    Raises FerhpoError where the cluster cannot be reached or Ray does not start.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": worker_environment()},
    }
    if compute.address is not None:
        _knock(compute.address)
        options["address"] = compute.address
    else:
        # "local": without an address Ray would join a cluster that `ray start` left on this machine.
        options.update(address="local", num_cpus=compute.num_cpus, num_gpus=compute.num_gpus, include_dashboard=False)
    for attempt in range(1, NUM_START_ATTEMPTS + 1):
        try:
            ray.init(**options)
            return True
        except ConnectionError as error:
            raise _no_cluster(compute.address, first_line(error).partition(". ")[0]) from None
        except Exception as error:  # Ray raises bare Exception for a node that is slow to start
            ray.shutdown()
            if attempt == NUM_START_ATTEMPTS:
                raise FerhpoError(f"Ray did not start in {attempt} attempts: {error}") from error
    raise AssertionError  # the last attempt returns or raises


def _knock(address: str) -> None:
    """FerhpoError where nobody listens at HOST:PORT: Ray would try for eight minutes before it says so."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str | None, reason: str) -> FerhpoError:
    # With an explicit address Ray shows no token by itself, and a cluster asks for one by default.
    token = "" if os.environ.get("RAY_AUTH_MODE") else ", set RAY_AUTH_MODE=token where it asks for one"
    return FerhpoError(
        f"compute.address is {address}: no Ray cluster lets us in there ({reason}); "
        f"start one with `ray start --head`{token}, or set compute.address=null"
    )


def stop_ray() -> None:
    """End, or leave, what `start_ray` started or joined."""
    ray.shutdown()


def worker_environment() -> dict[str, str]:
    """What the workers' processes need in their environment, also on other nodes."""
    names = [*_ENVIRONMENT, "PYTHONPYCACHEPREFIX", "FERHPO_CACHE_DIR"]
    return {name: os.environ[name] for name in names if name in os.environ}


def find_slots(compute: ComputeSettings) -> Slots:
    """Share the cluster's CPUs and GPUs out to trials. Raises ConfigError where not one trial fits."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_cpus, num_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = compute.gpus_per_trial if compute.gpus_per_trial is not None else float(num_gpus >= 1)
    limits = [compute.max_concurrent] if compute.max_concurrent is not None else []
    limits += [int(num_gpus / gpus + 1e-9)] if gpus else []
    limits += [int(num_cpus / compute.cpus_per_trial + 1e-9)] if compute.cpus_per_trial else []
    num_slots = max(min([*limits, int(num_cpus)]), 0)
    if num_slots < 1:
        raise ConfigError(
            "compute",
            [
                f"no trial fits: a trial wants {compute.cpus_per_trial or 1:g} CPUs and {gpus:g} GPUs, and there are "
                f"{num_cpus:g} CPUs and {num_gpus:g} GPUs; lower compute.cpus_per_trial or compute.gpus_per_trial"
            ],
        )
    cpus = compute.cpus_per_trial if compute.cpus_per_trial is not None else float(max(num_cpus // num_slots, 1))
    return Slots(num_slots, cpus, gpus)


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
        self.ledger.heard_of(number)
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
        self._fault: StorageError | None = None
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
            raise StorageError(f"trial {number}: {result['reason']}; free some space and resume")
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
        except StorageError as error:  # Tune takes it for the trial's, and calls on_trial_error next
            self._fault = error
            raise

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if self._fault is not None:
            raise self._fault
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
    import traceback

    facts: dict[str, Any] = {}
    unit = report_unit(config["config"])
    watch = Watch(Path(config["folder"]), timeout_seconds)
    watch.start()

    from ferhpo.cross_validation import runner_of
    from ferhpo.trial import release_memory

    def tell(result: dict[str, Any]) -> None:
        watch.stop()  # it may wait long for the driver
        tune.report({**result, "facts": facts})
        watch.start()

    def report(count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None) -> None:
        tell({**metrics, unit: count, "fold_epochs": fold_epochs})

    of_folds = {} if unit == EPOCH else {"on_epoch": lambda: tell({})}
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
        notes = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))  # of a fold
        reason = f"{notes}{type(error).__name__}: {error}\n{traceback.format_exc()}"
        tell({"outcome": "FAILED", "reason": reason})
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
    searcher = StudySearcher(ledger)
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
            callbacks=[LedgerCallback(ledger)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    with StopNotice(compute.stop_grace_seconds, ledger.notice, _stop_tune):
        try:
            tuner.fit()
        except tune.TuneError as error:
            raise _storage_error(error) or error from None
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
