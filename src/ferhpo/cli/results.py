"""What a finished sweep prints: as tables and sentences, or as JSON."""

from typing import TYPE_CHECKING, Any

from ferhpo.states import TrialState

if TYPE_CHECKING:
    from ferhpo.tuning.result import SweepResult


def exit_status(result: "SweepResult") -> int:
    if not result.finished:
        return 130
    return 3 if result.counts.get(TrialState.FAILED) else 0


def result_dict(result: "SweepResult") -> dict[str, Any]:
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
    keys = ("number", "state", "value", "best_epoch", "sample", "seed", "seconds", "reason", "epochs", "folds", "extra")
    return {key: getattr(trial, key) for key in keys}


def print_result(result: "SweepResult") -> None:
    from ferhpo.cli.tables import leaderboard, make_console
    from ferhpo.reports.sweep import outcomes

    console = make_console()
    record = result.sweep
    console.print()
    console.print(leaderboard(record.leaderboard(), record.objective.metric))
    console.print()
    for sentence in outcomes.sentences(record.trials()):
        console.print(sentence, markup=False, soft_wrap=True)
    if not result.finished:
        console.print(f"Stopped. {record.resume_command} goes on.")
    if result.registered:
        console.print(registered_text(result.registered, record.name))
    if result.unshipped:
        console.print(waiting_text(result.unshipped, record.name))
    if result.view:
        view = result.view.format(server="http://127.0.0.1:5000")
        console.print(f"Look at it: ferhpo ui, then {view}", soft_wrap=True)


def registered_text(registered: tuple[str, int], sweep: str) -> str:
    name, version = registered
    return f"Registered {name} version {version}; ferhpo promote {sweep} makes it the champion."


def waiting_text(num_records: int, sweep: str) -> str:
    return f"{num_records} records wait for MLflow; ferhpo sync {sweep} ships them."
