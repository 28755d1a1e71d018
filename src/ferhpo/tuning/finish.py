"""Finish a sweep in tracking: leaderboard, note, models, registry, report.

Note: only `finish` closes the parent run, so it closes last.
"""

from collections import Counter

from ferhpo.driver.retention import Keeper
from ferhpo.errors import TrackingError
from ferhpo.publish import sweep_run
from ferhpo.publish.models import export, register
from ferhpo.reports.live import Drawing
from ferhpo.reports.sweep.leaderboard import leaderboard_csv, sweep_note
from ferhpo.reports.trial.collapse import collapse_warnings
from ferhpo.states import RunState, TrialState
from ferhpo.storage.checkpoints import has_checkpoint
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, num_rejected
from ferhpo.tuning.result import SweepResult

SHIP_SECONDS = 60.0  # how long an ended sweep waits for its records to reach MLflow


def is_exported(trial: TrialRecord, settings: TrackingSettings) -> bool:
    """Whether the end of the sweep will make a loadable model of a trial, be it the best or not."""
    return settings.models == "all" and trial.state == TrialState.COMPLETE


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
    chosen = [t for t in board if t == best or (is_exported(t, settings) and has_checkpoint(record, t))]
    for trial in chosen if finished and settings.models != "none" else []:
        export(record, trial, tracker, data_digest)
    if best is not None and best.value is not None:
        metrics = {f"best_{record.objective.metric}": best.value, "best_trial": float(best.number)}
        tracker.log_metrics(None, {**metrics, "num_trials": float(len(trials))})
    note = sweep_note(record, board, counts)
    tracker.close_sweep(RunState.COMPLETE if finished else RunState.STOPPED, note)
    drawing.sweep_ended()  # while the models are shipped
    tracker.flush(SHIP_SECONDS)
    registered, failed = _register(record, best if finished else None, tracker, settings)
    view = sweep_run.view_address(tracker, settings)
    warnings = [*warnings, *collapse_warnings(trials, best), *drawing.wait()]
    unshipped = tracker.flush(SHIP_SECONDS)
    if registered is None and finished:  # the store was slow, or away, and has the model now
        registered, failed = _register(record, best, tracker, settings)
    warnings += failed
    keeper.tidy(trials, lambda trial: not finished and is_exported(trial, settings))
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
        return register(record, best, tracker, settings), []
    except TrackingError as error:  # the store went away just now: no reason to call the sweep failed
        return None, [f"{error}; ferhpo sync {record.name} registers it later"]
