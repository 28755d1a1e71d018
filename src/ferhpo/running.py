"""Carries a sweep, or a single training, from its configuration to the registry.

What a reader would get wrong: nothing is made on disk before everything that can be checked was checked; and a sweep is
finished in tracking by `finish` only, so the parent run closes last.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo import checking, publishing
from ferhpo.composing import compose
from ferhpo.config import Composed, ComputeSettings
from ferhpo.cross_validation import runner_of
from ferhpo.data.dataset import FaceData
from ferhpo.drawing import Drawing
from ferhpo.errors import FerhpoError, StorageError, TrackingError, first_line
from ferhpo.keeping import Keeper, has_checkpoint
from ferhpo.ledger import CONTINUE, Ledger
from ferhpo.record import (
    Sweep,
    create_sweep,
    save_config,
)
from ferhpo.reports.collapse import collapse_warnings
from ferhpo.reports.leaderboard import leaderboard_csv, sweep_note
from ferhpo.space import Space
from ferhpo.starting import (
    RayStart,
    load_data,
    make_paths_absolute,
    refuse_existing,
    resumed,
    store_warnings,
    tracking_settings,
    use_free_name,
)
from ferhpo.stopping import StopNotice
from ferhpo.study import SweepStudy, TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, num_rejected
from ferhpo.trial import failure
from ferhpo.trial_runs import TrialRuns

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

    resume: `name` is a sweep that exists; overrides may change num_trials, keep_checkpoints, compute and
        tracking
    new: where the name is taken, use the next free one (demo-2)
    listener: called in the driver with its ledger after every event
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any trial starts.
    """

    existing = resumed(name, overrides, "sweep") if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if new and existing is None:
        use_free_name(composed.config)
    warnings = checking.check(composed)
    config = composed.config
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    checking.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += store_warnings(settings)
    compute = ComputeSettings(**config["compute"])
    with RayStart(compute) as ray_start:
        data = load_data(composed)
        ray_start.wait_if_joined()
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
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    settings = tracking_settings(config)
    told = [*warnings, *store_warnings(settings)]
    compute = ComputeSettings(**config["compute"])
    with RayStart(compute) as ray_start:
        data = load_data(composed)
        ray_start.wait_if_joined()
        record = existing or create_sweep(composed, kind, listed)
        return _run(record, data, settings, ray_start, compute, told, listener, finisher)


def _run(
    record: Sweep,
    data: FaceData,
    settings: TrackingSettings,
    ray_start: "RayStart",
    compute: ComputeSettings,
    warnings: list[str],
    listener: Listener,
    finisher: Finisher | None = None,
) -> SweepResult:
    composed, config = record.composed, record.config
    space, seed = composed.space(), int(config["seed"])
    study = SweepStudy(record.folder, space, config["sampler"], seed, record.objective, record.listed)
    with _recording(record, study, settings, data, config["num_trials"], listener) as (ledger, drawing, keeper):
        from ferhpo import cluster, driver

        try:
            ray_start.result()
            slots = cluster.find_slots(compute)
            finished = ledger.is_finished or driver.run(ledger, data, compute, record.objective, slots)
        except KeyboardInterrupt:
            finished = False
        if not finished:
            ledger.interrupt()
        if finisher is not None:
            warnings = [*warnings, *drawing.wait()]
            return finisher(record, ledger.tracker, settings, data, finished, warnings)
        return finish(record, ledger.tracker, drawing, keeper, settings, data.digest, finished, warnings)


@contextmanager
def _recording(
    record: Sweep,
    study: SweepStudy,
    settings: TrackingSettings,
    data: FaceData,
    num_trials: int | None,
    listener: Listener,
) -> Iterator[tuple[Ledger, Drawing, Keeper]]:
    """Open a sweep in tracking; let go of tracking and study at the end. An error ends it there too, as FAILED."""
    tracker = drawing = ledger = None
    try:
        record.meta.setdefault("data", {"digest": data.digest, "split_name": data.split_name})
        save_config(record)  # a resume may have changed it
        tracker = Tracker(record.folder, settings)
        publishing.open_sweep(record, tracker, data)
        tracker.start()
        drawing = Drawing(record, tracker, data, settings.report and not settings.off)
        keeper = Keeper(record, lambda trial: drawing.is_drawn(trial) and tracker.is_shipped(trial.number))

        def trial_ended(trial: TrialRecord) -> None:
            drawing.trial_ended(trial)
            keeper.measure(trial.number)
            keeper.tidy(study.trials(), lambda other: _is_exported(other, settings))
            if ledger is not None and not ledger.is_finished:
                keeper.check_space(num_slots=len(ledger.running) + 1)

        ledger = Ledger(record, study, tracker, num_trials, listener, _opener(record, tracker, data), trial_ended)
        for trial in study.trials():
            keeper.measure(trial.number)
        if not ledger.is_finished:
            keeper.check_space(num_slots=1)
        yield ledger, drawing, keeper
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"{record.resume_command} goes on")
        if tracker is not None and tracker.is_open:
            with suppress(StorageError):
                _end_early(record, tracker, ledger, error)
        raise
    finally:
        if drawing is not None:
            drawing.close()
        if tracker is not None:
            tracker.close(1.0)
        study.close()


def _end_early(record: Sweep, tracker: Tracker, ledger: Ledger | None, error: BaseException) -> None:
    """End the runs in tracking that are open, because of an error or of a person."""
    is_error = isinstance(error, Exception)
    state, why = ("FAILED", first_line(error)) if is_error else ("STOPPED", "stopped by a person; resume goes on")
    runs = TrialRuns(record, record.space(), tracker) if ledger is None else ledger.runs
    runs.interrupt(record.trials(), state, str(error) if is_error else why)
    tracker.close_sweep(state, f"**{record.name}** ended before its trials: {why}")
    tracker.flush(ERROR_SHIP_SECONDS)


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
        use_free_name(config)
    warnings = checking.check(composed, for_sweep=False)
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    checking.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += store_warnings(settings)
    data = load_data(composed)
    record = existing or create_sweep(composed, kind="train")
    sampler = {"_target_": "optuna.samplers.RandomSampler"}
    study = SweepStudy(record.folder, Space((), config), sampler, int(config["seed"]), record.objective)
    with _recording(record, study, settings, data, 1, listener) as (ledger, drawing, keeper):
        finished = True
        trial = ledger.next_trial()
        if trial is not None:
            number = trial.number
            ledger.start(number)

            def report(
                count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None
            ) -> None:
                ledger.report(number, count, metrics, lambda: CONTINUE, fold_epochs)
                if notice.is_given and count < ledger.num_reports:
                    raise KeyboardInterrupt

            try:
                with StopNotice(ComputeSettings(**config["compute"]).stop_grace_seconds) as notice:
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
            except FerhpoError:  # of disk or checkpoint: once it is mended, a resume goes on
                raise
            except Exception as error:
                ledger.ended(number, "FAILED", failure(error))
        return finish(record, ledger.tracker, drawing, keeper, settings, data.digest, finished, warnings)


def _is_exported(trial: TrialRecord, settings: TrackingSettings) -> bool:
    """Whether the end of the sweep will make a loadable model of a trial, be it the best or not."""
    return settings.models == "all" and trial.state == "COMPLETE"


def _opener(record: Sweep, tracker: Tracker, data: FaceData) -> Callable[[TrialRecord, dict[str, Any]], None]:
    return lambda trial, config: publishing.open_trial(record, tracker, trial, config, data)


def finish(
    record: Sweep,
    tracker: Tracker,
    drawing: Drawing,
    keeper: Keeper,
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
    # What a sweep that was finished before has removed since then was exported at that time.
    chosen = [t for t in board if t == best or (_is_exported(t, settings) and has_checkpoint(record, t))]
    for trial in chosen if finished and settings.models != "none" else []:
        publishing.export(record, trial, tracker, data_digest)
    if best is not None and best.value is not None:
        metrics = {f"best_{record.objective.metric}": best.value, "best_trial": float(best.number)}
        tracker.log_metrics(None, {**metrics, "num_trials": float(len(trials))})
    note = sweep_note(record, board, counts)
    tracker.close_sweep("COMPLETE" if finished else "STOPPED", note)
    drawing.sweep_ended()  # while the models are shipped
    tracker.flush(SHIP_SECONDS)
    registered, failed = _register(record, best if finished else None, tracker, settings)
    view = publishing.view_address(tracker, settings)
    warnings = [*warnings, *collapse_warnings(trials, best), *drawing.wait()]
    unshipped = tracker.flush(SHIP_SECONDS)
    if registered is None and finished:  # the store was slow, or away, and has the model now
        registered, failed = _register(record, best, tracker, settings)
    warnings += failed
    keeper.tidy(trials, lambda trial: not finished and _is_exported(trial, settings))
    tracker.close(1.0)
    if rejected := num_rejected(record.folder):
        path = record.folder / "rejected.jsonl"
        warnings.append(f"MLflow refused {rejected} values or files; they are kept in {path}")
    return SweepResult(record, counts, finished, best, registered, unshipped, view, warnings)


def _register(
    record: Sweep, best: TrialRecord | None, tracker: Tracker, settings: TrackingSettings
) -> tuple[tuple[str, int] | None, list[str]]:
    """The version that the best trial's model has now, None where the store does not have the model; and warnings."""
    try:
        return publishing.register(record, best, tracker, settings), []
    except TrackingError as error:  # the store went away just now: no reason to call the sweep failed
        return None, [f"{error}; ferhpo sync {record.name} registers it later"]
