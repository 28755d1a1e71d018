"""Format the result of a sweep: as tables and sentences, or as JSON."""

from typing import TYPE_CHECKING, Any

from ferhpo.cli.screen.console import typed
from ferhpo.states import TrialState
from ferhpo.text import plural

if TYPE_CHECKING:
    from ferhpo.storage.sweep import Sweep
    from ferhpo.tuning.result import SweepResult


def exit_status(result: "SweepResult") -> int:
    """Return the exit status: 130 if the user interrupted the sweep, 3 if a trial failed, otherwise 0."""
    if not result.finished and not result.stop_reason:
        return 130
    return 3 if result.counts.get(TrialState.FAILED) else 0


def result_dict(result: "SweepResult") -> dict[str, Any]:
    """Return what --json prints of a sweep."""
    from ferhpo.evaluation.chosen import as_dict

    return {
        "name": result.sweep.name,
        "folder": str(result.sweep.folder),
        "counts": result.counts,
        "finished": result.finished,
        "stop_reason": result.stop_reason,
        "corrected": None if result.corrected is None else as_dict(result.corrected),
        "best": None if result.best is None else trial_dict(result.best),
        "registered": result.registered,
        "unshipped": result.unshipped,
        "forecast": result.forecast,
        "warnings": result.warnings,
    }


def trial_dict(trial: Any) -> dict[str, Any]:
    """Return what --json prints of a trial."""
    keys = ("number", "state", "value", "best_epoch", "sample", "seed", "seconds", "reason", "epochs", "folds", "extra")
    return {key: getattr(trial, key) for key in keys}


def print_result(result: "SweepResult") -> None:
    """Print the leaderboard, what happened to trials without a result, and what to do next."""
    from rich.text import Text

    from ferhpo.cli.screen.console import make_console, view_text
    from ferhpo.cli.screen.leaderboard import leaderboard
    from ferhpo.evaluation.chosen import sentences
    from ferhpo.reports.sweep import outcomes
    from ferhpo.storage.provenance import changes_text

    console = make_console()
    sweep = result.sweep
    console.print()
    note = changes_text(sweep.meta)
    console.print(leaderboard(sweep.leaderboard(), sweep.objective.metric, is_running=False, note=note))
    console.print()
    lines: list[str] = list(outcomes.sentences(sweep.trials()))
    if result.corrected is not None:
        lines += sentences(result.corrected, sweep.objective.metric)
    if not result.finished:
        lines.append(stopped_text(sweep, result.stop_reason))
    if result.registered:
        lines.append(registered_text(result.registered, sweep))
    if result.unshipped:
        lines.append(unshipped_text(result.unshipped, sweep))
    if result.forecast:
        lines.append(result.forecast)
    for line in lines:
        console.print(line, soft_wrap=True)
    if result.view:
        console.print(Text.assemble("View results: ", view_text(result.view, sweep.tracking)), soft_wrap=True)


def stopped_text(sweep: "Sweep", reason: str = "") -> str:
    """Return what is printed after an interruption, or with the reason when the budget is used up."""
    why = f": {reason}, which is used up" if reason else ""
    return typed(f"Stopped{why}. Resume with: {sweep.resume_command}")


def registered_text(registered: tuple[str, int], sweep: "Sweep") -> str:
    """Return what is printed of a registered model, (name, version)."""
    name, version = registered
    return f"Registered {name} version {version}. Promote it with: {typed(sweep.command('promote'))}"


def unshipped_text(num_records: int, sweep: "Sweep") -> str:
    """Return what is printed of records that are not in MLflow yet."""
    verb, them = ("is", "it") if num_records == 1 else ("are", "them")
    command = typed(sweep.command("sync"))
    return f"{plural(num_records, 'record')} {verb} not in MLflow yet. Upload {them} with: {command}"
