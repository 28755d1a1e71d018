"""Complete a sweep in tracking: leaderboard, note, models, registry, report.

Note: only `finish` closes the parent run, after everything else has been uploaded to it.
"""

import logging
from collections import Counter

from ferhpo.driver.retention import Keeper
from ferhpo.errors import TrackingError, first_line
from ferhpo.evaluation.chosen import as_metrics, corrected_best
from ferhpo.optional import optional
from ferhpo.publish import sweep_run
from ferhpo.publish.models import export, register
from ferhpo.reports.live import Drawing
from ferhpo.reports.sweep.leaderboard import leaderboard_csv, sweep_note
from ferhpo.reports.trial.collapse import collapse_warnings
from ferhpo.states import RunState, TrialState
from ferhpo.storage.checkpoints import has_checkpoint
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import STEPS, markdown
from ferhpo.tracking import Tracker, TrackingSettings, rejected_text
from ferhpo.tracking.view import rounded
from ferhpo.tuning.result import SweepResult

log = logging.getLogger(STEPS)
SHIP_SECONDS = 60.0  # how long an ended sweep waits for the upload of its records to MLflow


def is_exported(trial: TrialRecord, settings: TrackingSettings) -> bool:
    """Return whether a trial is exported as a loadable model at the end of the sweep even if it is not the best."""
    return settings.models == "all" and trial.state == TrialState.COMPLETE


def finish(
    sweep: Sweep,
    tracker: Tracker,
    drawing: Drawing,
    keeper: Keeper,
    settings: TrackingSettings,
    data_digest: str,
    finished: bool,
    warnings: list[str],
) -> SweepResult:
    """Complete a sweep in tracking and return its result.

    finished: whether all trials have ended; models are exported and registered only then
    """
    log.info("exporting the best model, drawing the report, uploading to MLflow" if finished else "uploading to MLflow")
    trials, best = sweep.trials(), sweep.best()
    counts = dict(Counter(trial.state for trial in trials))
    board, warnings = sweep.leaderboard(), list(warnings)
    with optional("the leaderboard is not in MLflow", warnings):
        tracker.log_text(None, leaderboard_csv(board, sweep.objective.metric), "leaderboard.csv")
    with optional("the study is not in MLflow", warnings):
        tracker.log_artifact(None, sweep.folder / "study.jsonl", "study")
    # If an extended sweep has no checkpoint of a trial any more, it exported that trial when it finished before.
    selected = [t for t in board if t == best or (is_exported(t, settings) and has_checkpoint(sweep, t))]
    for trial in selected if finished and settings.models != "none" else []:
        again = f"fix the cause, then export it with: {sweep.resume_command}"
        with optional(f"the network of trial {trial.number} is not exported ({again})", warnings):
            warnings += export(sweep, trial, tracker, data_digest)
    corrected = None
    with optional("the best value is not corrected for the choice among the trials", warnings):
        corrected = corrected_best(sweep, board)[0]
    if best is not None and best.value is not None:
        metrics = {f"best_{sweep.objective.metric}": best.value, "best_trial": float(best.number)}
        metrics |= as_metrics(corrected, sweep.objective.metric) if corrected is not None else {}
        tracker.log_metrics(
            None, {key: rounded(value) for key, value in metrics.items()} | {"num_trials": float(len(trials))}
        )
    note = f"**{markdown(sweep.name)}** ended."
    with optional("the run's note in MLflow is short", warnings):
        note = sweep_note(sweep, board, counts, corrected)
    tracker.close_sweep(RunState.COMPLETE if finished else RunState.STOPPED, note)
    with optional("figures are missing", warnings):
        drawing.sweep_ended(board)  # runs while the models are uploaded
    tracker.flush(SHIP_SECONDS)
    registered, failures = _register(sweep, best if finished else None, tracker, settings)
    view = sweep_run.view_address(tracker, settings)
    with optional("collapsed networks were not looked for", warnings):
        warnings += collapse_warnings(trials, best)
    warnings += drawing.wait()
    unshipped = tracker.flush(SHIP_SECONDS)
    if registered is None and finished:  # the store was slow or unreachable, and has the model by now
        registered, failures = _register(sweep, best, tracker, settings)
    warnings += failures
    with optional("checkpoints were not removed", warnings):
        keeper.tidy(trials, lambda trial: not finished and is_exported(trial, settings))
    tracker.close(1.0)
    if not settings.off and (rejected := rejected_text(sweep.folder, sweep.command("sync"))):
        warnings.append(rejected)
    return SweepResult(sweep, counts, finished, best, registered, unshipped, view, warnings, corrected=corrected)


def _register(
    sweep: Sweep, best: TrialRecord | None, tracker: Tracker, settings: TrackingSettings
) -> tuple[tuple[str, int] | None, list[str]]:
    """Return the registered version of the best trial, None if the store does not have its model; and warnings."""
    try:
        return register(sweep, best, tracker, settings), []
    except TrackingError as error:  # the store has just become unreachable, which does not make the sweep a failure
        return None, [f"{error}; register it later with: {sweep.command('sync')}"]
    except Exception as error:
        later = f"register it later with: {sweep.command('sync')}"
        return None, [f"the model is not registered: {first_line(error)}; {later}"]
