"""Carries a sweep, or a single training, from its configuration to the registry.

What a reader would get wrong: nothing is made on disk before everything that can be checked was checked; and a sweep is
finished in tracking by `finish` only, so the parent run closes last.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ferhpo import checking, publishing
from ferhpo.config import Composed, ComputeSettings, as_function, compose, nearest_key, not_set
from ferhpo.cross_validation import fold_data, runner_of
from ferhpo.data.dataset import FaceData
from ferhpo.data.features import with_hog
from ferhpo.drawing import Drawing
from ferhpo.errors import ConfigError, FerhpoError, StorageError, SweepError
from ferhpo.folds import num_folds
from ferhpo.ledger import CONTINUE, Ledger
from ferhpo.model_section import shared_hog
from ferhpo.record import (
    CHANGEABLE,
    META,
    Sweep,
    check_disk,
    create_sweep,
    exists_error,
    free_name,
    load_sweep,
    save_config,
)
from ferhpo.reports.collapse import collapse_warnings
from ferhpo.reports.leaderboard import leaderboard_csv, sweep_note
from ferhpo.space import Space, leaves, set_path
from ferhpo.study import FolderLock, SweepStudy, TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, check_store

SHIP_SECONDS = 60.0  # how long an ended sweep waits for its records to reach MLflow
ERROR_SHIP_SECONDS = 15.0  # and one that an error ended; `ferhpo sync` ships the rest
Listener = Callable[[Ledger], None]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep ended with.

    counts: trials by state
    finished: false if a person stopped it before its last trial
    registered: (model name, version) of the best trial, or None
    unshipped: records that wait for `ferhpo sync`
    view: address of the sweep's view on a server; {server} stands for its address
    """

    sweep: Sweep
    counts: dict[str, int]
    finished: bool
    best: TrialRecord | None
    registered: tuple[str, int] | None = None
    unshipped: int = 0
    view: str = ""
    warnings: list[str] = field(default_factory=list)


Finisher = Callable[[Sweep, Tracker, TrackingSettings, FaceData, bool, list[str]], SweepResult]


def load_data(composed: Composed) -> FaceData:
    """Read (or take from the cache) the data set of a configuration, with the features that its models take.

    Raises DataError, and ConfigError where the models' features cannot be computed.
    """
    section = composed.config["data"]
    missing = [path for path, value in leaves(section, "data") if value == "???"]
    if missing:
        raise ConfigError(composed.name, [not_set(path) for path in missing])
    data = as_function(section, composed.config.get("allowed_targets") or ())()
    assert isinstance(data, FaceData)
    for fold in range(num_folds(composed.config) or 0):
        fold_data(data, section, fold)  # so that what cannot be cut is said here, and not by every trial
    try:
        hog = shared_hog(composed)
        return data if hog is None else with_hog(data, hog, section.get("cache_dir"))
    except ValueError as error:
        raise ConfigError(composed.name, [f"model.{error}"]) from None


def sweep(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep to its end and register its best trial.

    resume: `name` is a sweep that exists; overrides may change num_trials, compute and tracking
    new: where the name is taken, use the next free one (demo-2)
    listener: called in the driver with its ledger after every event
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any trial starts.
    """

    existing = resumed(name, overrides, "sweep") if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if new and existing is None:
        _use_free_name(composed.config)
    warnings = checking.check(composed)
    config = composed.config
    _make_paths_absolute(config)
    if existing is None:
        _refuse_existing(config)
    checking.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += _check_store(settings)
    compute = ComputeSettings(**config["compute"])
    with _RayStart(compute) as ray_start:
        data = load_data(composed)
        record = existing or create_sweep(composed)
        return _run(record, data, settings, ray_start, compute, warnings, listener)


def run_listed(
    composed: Composed,
    kind: str,
    listed: Sequence[Mapping[str, Any]],
    finisher: Finisher,
    *,
    existing: Sweep | None = None,
    warnings: Sequence[str] = (),
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep whose trials are listed, each with its `sample` and `seed`, or go on with the `existing` one.

    The configuration is checked by whoever calls. finisher: closes the sweep in the place of `finish`
    """
    config = composed.config
    _make_paths_absolute(config)
    if existing is None:
        _refuse_existing(config)
    settings = tracking_settings(config)
    told = [*warnings, *_check_store(settings)]
    compute = ComputeSettings(**config["compute"])
    with _RayStart(compute) as ray_start:
        data = load_data(composed)
        record = existing or create_sweep(composed, kind, listed)
        return _run(record, data, settings, ray_start, compute, told, listener, finisher)


def _run(
    record: Sweep,
    data: FaceData,
    settings: TrackingSettings,
    ray_start: "_RayStart",
    compute: ComputeSettings,
    warnings: list[str],
    listener: Listener,
    finisher: Finisher | None = None,
) -> SweepResult:
    composed, config = record.composed, record.config
    space, seed = composed.space(), int(config["seed"])
    study = SweepStudy(record.folder, space, config["sampler"], seed, record.objective, record.listed)
    with _recording(record, study, settings, data, config["num_trials"], listener) as (ledger, drawing):
        from ferhpo import driver

        try:
            ray_start.result()
            slots = driver.find_slots(compute)
            finished = ledger.is_finished or driver.run(ledger, data, compute, record.objective, slots)
        except KeyboardInterrupt:
            finished = False
        if not finished:
            ledger.interrupt()
        if finisher is not None:
            warnings = [*warnings, *drawing.wait()]
            return finisher(record, ledger.tracker, settings, data, finished, warnings)
        return finish(record, ledger.tracker, drawing, settings, data.digest, finished, warnings)


@contextmanager
def _recording(
    record: Sweep,
    study: SweepStudy,
    settings: TrackingSettings,
    data: FaceData,
    num_trials: int | None,
    listener: Listener,
) -> Iterator[tuple[Ledger, Drawing]]:
    """Open a sweep in tracking; let go of tracking and study at the end. An error of ours ends it as FAILED there."""
    tracker = drawing = None
    try:
        record.meta.setdefault("data", {"digest": data.digest, "split_name": data.split_name})
        save_config(record)  # a resume may have changed it
        tracker = Tracker(record.folder, settings)
        publishing.open_sweep(record, tracker, data)
        tracker.start()
        drawing = Drawing(record, tracker, data, settings.report and not settings.off)
        opener = _opener(record, tracker, data)
        ledger = Ledger(record, study, tracker, num_trials, listener, opener, drawing.trial_ended)
        try:
            yield ledger, drawing
        except FerhpoError as error:
            with suppress(StorageError):
                ledger.interrupt("FAILED", str(error))
                tracker.close_sweep("FAILED", f"**{record.name}** ended before its trials: {error}")
                tracker.flush(ERROR_SHIP_SECONDS)
            raise
    finally:
        if drawing is not None:
            drawing.close()
        if tracker is not None:
            tracker.close(1.0)
        study.close()


def train(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Train one network with the configuration as it stands, without Ray; recorded as a sweep of one trial."""
    existing = resumed(name, overrides, "train") if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    config = composed.config
    config.update(space={}, num_trials=1)
    composed.options.clear()
    if new and existing is None:
        _use_free_name(config)
    warnings = checking.check(composed, for_sweep=False)
    _make_paths_absolute(config)
    if existing is None:
        _refuse_existing(config)
    checking.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += _check_store(settings)
    data = load_data(composed)
    record = existing or create_sweep(composed, kind="train")
    sampler = {"_target_": "optuna.samplers.RandomSampler"}
    study = SweepStudy(record.folder, Space((), config), sampler, int(config["seed"]), record.objective)
    with _recording(record, study, settings, data, 1, listener) as (ledger, drawing):
        finished = True
        trial = ledger.next_trial()
        if trial is not None:
            number = trial.number
            ledger.start(number)

            def report(
                count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None
            ) -> None:
                ledger.report(number, count, metrics, lambda: CONTINUE, fold_epochs)

            try:
                outcome = runner_of(config)(
                    config,
                    data,
                    record.trial_folder(number),
                    trial.seed,
                    report,
                    on_start=lambda facts: ledger.report_facts(number, facts),
                )
                ledger.ended(number, outcome.state, outcome.reason)
            except KeyboardInterrupt:
                finished = False
                ledger.interrupt()
        return finish(record, ledger.tracker, drawing, settings, data.digest, finished, warnings)


def _opener(record: Sweep, tracker: Tracker, data: FaceData) -> Callable[[TrialRecord, dict[str, Any]], None]:
    return lambda trial, config: publishing.open_trial(record, tracker, trial, config, data)


def finish(
    record: Sweep,
    tracker: Tracker,
    drawing: Drawing,
    settings: TrackingSettings,
    data_digest: str,
    finished: bool,
    warnings: list[str],
) -> SweepResult:
    """Close a sweep in tracking: leaderboard, note, models, registry, page."""
    trials, best = record.trials(), record.best()
    counts = dict(Counter(trial.state for trial in trials))
    board = record.leaderboard()
    tracker.log_text(None, leaderboard_csv(board, record.objective.metric), "leaderboard.csv")
    tracker.log_artifact(None, record.folder / "study.jsonl", "study")
    chosen = {"all": [t for t in board if t.state == "COMPLETE"], "best": [best] if best else [], "none": []}
    for trial in chosen[settings.models] if finished else []:
        publishing.export(record, trial, tracker, data_digest)
    if best is not None and best.value is not None:
        metrics = {f"best_{record.objective.metric}": best.value, "best_trial": float(best.number)}
        tracker.log_metrics(None, {**metrics, "num_trials": float(len(trials))})
    note = sweep_note(record, board, counts)
    tracker.close_sweep("COMPLETE" if finished else "STOPPED", note)
    drawing.sweep_ended()  # while the models are shipped
    unshipped = tracker.flush(SHIP_SECONDS)
    registered = publishing.register(record, best, tracker, settings) if finished and not unshipped else None
    view = publishing.view_address(tracker, settings)
    warnings = [*warnings, *collapse_warnings(trials, best), *drawing.wait()]
    unshipped = tracker.flush(SHIP_SECONDS)
    tracker.close(1.0)
    return SweepResult(record, counts, finished, best, registered, unshipped, view, warnings)


class _RayStart:
    """Starts Ray in a thread while the driver reads data; `result` waits for it and raises what it raised.

    The thread stays: Linux ends Ray's processes with the thread that started them (PR_SET_PDEATHSIG). The end of the
    block stops Ray, unless it ran before: the next sweep of this process may want other resources.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.is_ours = False
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        from ferhpo import driver

        try:
            self.is_ours = driver.start_ray(compute)
        except FerhpoError as error:
            self.error = error
        finally:
            self.done.set()
        threading.Event().wait()

    def __enter__(self) -> "_RayStart":
        return self

    def __exit__(self, *error: object) -> None:
        self.done.wait()
        if self.is_ours:
            from ferhpo import driver

            driver.stop_ray()

    def result(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error


def tracking_settings(config: Mapping[str, Any]) -> TrackingSettings:

    return TrackingSettings.from_config(config["tracking"], Path(config["output_dir"]))


def resumed(name: str, overrides: Sequence[str], kind: str) -> Sweep:
    """The sweep to resume, with overrides of what a resume may change; nothing is written yet."""
    output_dir = next((t.partition("=")[2] for t in overrides if t.startswith("output_dir=")), "mlruns")
    record = load_sweep(name, output_dir)
    if record.meta["kind"] != kind:
        raise SweepError(f"{name} is a {record.meta['kind']}; ferhpo {record.meta['kind']} --resume {name} goes on")
    check_disk(record.folder)
    FolderLock(record.folder).release()  # refuses a second driver before Ray starts
    config = record.config
    known = ["num_trials", *(f"{section}.{key}" for section in ("compute", "tracking") for key in config[section])]
    faults = []
    for text in overrides:
        key, _, value = text.partition("=")
        section = key.split(".")[0]
        if key == "output_dir":
            continue
        if section not in CHANGEABLE:
            faults.append(
                f"{key} cannot change in a resumed sweep, whose trials must be alike; {', '.join(CHANGEABLE)} can"
            )
        elif key in known:
            try:
                set_path(config, key, yaml.safe_load(value))
            except yaml.YAMLError:
                faults.append(f"{key} is {value}, which is not understood")
        elif key == section:
            faults.append(f"{key} is a group, and stays; set its keys, as {key}.{next(iter(config[key]))}={value}")
        else:
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
    if faults:
        raise ConfigError(f"--resume {name}", faults)
    return record


def _check_store(settings: TrackingSettings) -> list[str]:
    """Warnings about a store that is away and not required; TrackingError where it is required."""
    reason = check_store(settings)
    if reason is None:
        return []
    return [f"tracking.uri is {settings.shown_uri}: {reason}; records wait in the sweep's folder"]


def _refuse_existing(config: Mapping[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if (folder / META).exists():
        raise exists_error(folder)
    check_disk(folder)


def _use_free_name(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if folder.exists():
        config["name"] = free_name(folder)


def _make_paths_absolute(config: dict[str, Any]) -> None:
    """A sweep may be resumed from another folder."""
    config["output_dir"] = str(Path(config["output_dir"]).resolve())
    for path, value in list(leaves(config["data"])):
        key = path.rpartition(".")[2]
        is_path = key in ("path", "ferplus_path", "cache_dir") or (key == "clean" and Path(str(value)).exists())
        if is_path and isinstance(value, str) and value != "???":
            set_path(config["data"], path, str(Path(value).resolve()))
    weights = config["model"].get("weights")
    if isinstance(weights, str) and Path(weights).is_file():
        config["model"]["weights"] = str(Path(weights).resolve())
