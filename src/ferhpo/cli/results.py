"""Format the result of a sweep: as tables and sentences, or as JSON."""

from typing import TYPE_CHECKING, Any

from ferhpo.states import TrialState
from ferhpo.text import plural

if TYPE_CHECKING:
    from ferhpo.tuning.result import SweepResult


def exit_status(result: "SweepResult") -> int:
    """Return the exit status: 130 if the sweep was interrupted, 3 if a trial failed, otherwise 0."""
    if not result.finished:
        return 130
    return 3 if result.counts.get(TrialState.FAILED) else 0


def result_dict(result: "SweepResult") -> dict[str, Any]:
    """Return what --json prints of a sweep."""
    return {
        "name": result.sweep.name,
        "folder": str(result.sweep.folder),
        "counts": result.counts,
        "finished": result.finished,
        "best": None if result.best is None else trial_dict(result.best),
        "registered": result.registered,
        "unshipped": result.unshipped,
        "warnings": result.warnings,
    }


def trial_dict(trial: Any) -> dict[str, Any]:
    """Return what --json prints of a trial."""
    keys = ("number", "state", "value", "best_epoch", "sample", "seed", "seconds", "reason", "epochs", "folds", "extra")
    return {key: getattr(trial, key) for key in keys}


def print_result(result: "SweepResult") -> None:
    """Print the leaderboard, what happened to trials without a result, and what to do next."""
    from ferhpo.cli.tables import leaderboard, make_console
    from ferhpo.reports.sweep import outcomes

    console = make_console()
    sweep = result.sweep
    console.print()
    console.print(leaderboard(sweep.leaderboard(), sweep.objective.metric))
    console.print()
    for sentence in outcomes.sentences(sweep.trials()):
        console.print(sentence, markup=False, soft_wrap=True)
    if not result.finished:
        console.print(stopped_text(sweep.resume_command))
    if result.registered:
        console.print(registered_text(result.registered, sweep.name))
    if result.unshipped:
        console.print(unshipped_text(result.unshipped, sweep.name))
    if result.view:
        view = result.view.format(server="http://127.0.0.1:5000")
        first = "run `ferhpo ui` and " if view != result.view else ""  # an MLflow server of the user's is running
        console.print(f"View results: {first}open {view}", soft_wrap=True)


def stopped_text(resume_command: str) -> str:
    """Return what is printed after an interruption."""
    return f"Stopped. Resume with: {resume_command}"


def registered_text(registered: tuple[str, int], sweep: str) -> str:
    """Return what is printed of a registered model, (name, version)."""
    name, version = registered
    return f"Registered {name} version {version}. Promote it with: ferhpo promote {sweep}"


def unshipped_text(num_records: int, sweep: str) -> str:
    """Return what is printed of records that are not in MLflow yet."""
    verb, them = ("is", "it") if num_records == 1 else ("are", "them")
    return f"{plural(num_records, 'record')} {verb} not in MLflow yet. Upload {them} with: ferhpo sync {sweep}"
