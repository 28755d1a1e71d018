"""The leaderboard of a sweep: as CSV, as a panel, and summarized in sentences."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ferhpo.errors import first_line
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.trial.collapse import collapse_warnings
from ferhpo.scoring.collapse import collapse
from ferhpo.states import TrialState
from ferhpo.storage.frames import leaderboard_rows
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import number, plural, sampled_columns


def leaderboard_csv(trials: Sequence[TrialRecord], metric: str) -> str:
    """Return the leaderboard as CSV, with the columns of `leaderboard_rows`."""
    out = io.StringIO()
    columns, rows = leaderboard_rows(trials, metric)
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


def findings(sweep: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int]) -> list[str]:
    """Return the result of a sweep in sentences: the number of trials by state, the best one, and a caveat.

    board: the leaderboard; counts: trials by state
    """
    config, metric = sweep.config, sweep.objective.metric
    states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
    states = f" ({states})" if states else ""
    sampler = config["sampler"]["_target_"].rpartition(".")[2]
    sentences = [f"{plural(sum(counts.values()), 'trial')}{states}, sampled by {sampler}, seed {config['seed']}."]
    complete = [trial for trial in board if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not complete:
        return sentences
    best, *others = complete
    if best.folds:
        at = f", the mean of {len(best.folds)} folds (standard deviation {best.std(metric):.4f})"
    else:
        at = f" at epoch {best.best_epoch}"
    sentences.append(f"Best: trial {best.number} with {metric} {best.value:.4f}{at}.")
    if others:
        sentences.append(
            f"The next complete trial has {others[0].value:.4f}. The best value was selected on validation among "
            f"{len(complete)} complete trials, so expect slightly less on new data."
        )
    return sentences


def sweep_note(sweep: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int]) -> str:
    """Return the result of a sweep in Markdown, the note of its MLflow run."""
    first, *rest = findings(sweep, board, counts)
    lines = [f"**{sweep.name}**: {first}", *rest]
    best = board[0] if board and board[0].state == TrialState.COMPLETE else None
    lines += [f"Warning: {warning}." for warning in collapse_warnings(board, best)]
    if best is not None:
        lines += ["", "| hyperparameter | best |", "|---|---|"]
        lines += [f"| {path} | {value} |" for path, value in best.sample.items()]
    failed = [trial for trial in board if trial.state.is_failure]
    if failed:
        lines += ["", "Without a result:"]
        lines += [f"- trial {t.number} {t.state.lower()}: {first_line(t.reason)}" for t in failed[:10]]
    return "\n".join(lines)


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Return the leaderboard as a table, repeated hyperparameters in one column; None without trials."""
    board = sweep.leaderboard()
    if not board:
        return None
    columns = sampled_columns([trial.sample for trial in board])
    rows = []
    for trial in board:
        row: dict[str, object] = {
            "trial": trial.number,
            "state": trial.state.lower(),
            sweep.objective.metric: trial.value,
            "standard deviation": trial.std(sweep.objective.metric),
            "val_acc (dedup)": trial.dedup_acc if trial.dedup_acc != trial.value else None,
            "folds": len(trial.folds) or None,
            "best epoch": f"{trial.best_epoch}/{len(trial.epochs)}" if trial.best_epoch and not trial.folds else "",
            "parameters": trial.extra.get("num_parameters"),
            "MACs": trial.extra.get("macs"),
            "seconds": None if trial.seconds is None else round(trial.seconds, 1),
        }
        for heading, paths in columns:
            row[heading] = " ".join(number(trial.sample[path]) for path in paths if path in trial.sample)
        row["collapsed"] = collapse(trial.extra.get("most_answered"))
        rows.append(row)
    kept = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    table = write_table(folder / "leaderboard.csv", [{key: row[key] for key in kept} for row in rows])
    text = "Complete trials, best first, then other trials with a value, then trials without one."
    return Panel("Leaderboard", text, tables=(table,))
