"""The leaderboard of a sweep: as CSV, as a panel, and summarized in sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.errors import first_line
from ferhpo.evaluation import chosen
from ferhpo.evaluation.chosen import Corrected
from ferhpo.publish.sweep_run import stored_addresses
from ferhpo.reports.page import MLFLOW
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.trial.collapse import collapse_warnings
from ferhpo.scoring.collapse import collapse
from ferhpo.states import TrialState, shown_state
from ferhpo.storage.frames import leaderboard_rows
from ferhpo.storage.listing import is_running
from ferhpo.storage.provenance import changes_text
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed
from ferhpo.text import csv_text, markdown, number, plural, sampled_columns

LOCAL_SERVER = "http://127.0.0.1:5000"  # of `ferhpo ui`


def leaderboard_csv(trials: Sequence[TrialRecord], metric: str) -> str:
    """Return the leaderboard as CSV, with the columns of `leaderboard_rows`."""
    columns, rows = leaderboard_rows(trials, metric)
    return csv_text([columns, *rows])


def findings(
    sweep: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int], corrected: Corrected | None = None
) -> list[str]:
    """Return the result of a sweep in sentences: the number of trials by state, the best one, and a caveat.

    board: the leaderboard; counts: trials by state
    corrected: the best value corrected for the choice among the trials, if it is known
    """
    config, metric = sweep.config, sweep.objective.metric
    running = bool(counts.get(TrialState.RUNNING)) and is_running(sweep)
    states = ", ".join(f"{count} {shown_state(state, running)}" for state, count in sorted(counts.items()))
    states = f" ({states})" if states else ""
    sampler = config["sampler"]["_target_"].rpartition(".")[2]
    sentences = [f"{plural(sum(counts.values()), 'trial')}{states}, sampled by {sampler}, seed {config['seed']}."]
    sentences += [changes] if (changes := changes_text(sweep.meta)) else []
    complete = completed(board)
    if not complete:
        return sentences
    best, *others = complete
    if best.folds:
        at = f", the mean of {len(best.folds)} folds (standard deviation {best.std(metric):.4f})"
    else:
        at = f" at epoch {best.best_epoch}"
    sentences.append(f"Best: trial {best.number} with {metric} {best.value:.4f}{at}.")
    if others:
        sentences.append(f"The next complete trial has {others[0].value:.4f}.")
    if corrected is not None:
        sentences += chosen.sentences(corrected, metric)
    elif others:
        sentences.append(
            f"The best value was selected on validation among {len(complete)} complete trials, so expect slightly less "
            "on new data."
        )
    return sentences


def sweep_note(
    sweep: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int], corrected: Corrected | None = None
) -> str:
    """Return the result of a sweep in Markdown, the note of its MLflow run."""
    first, *rest = findings(sweep, board, counts, corrected)
    lines = [f"**{markdown(sweep.name)}**: {markdown(first)}", *map(markdown, rest)]
    best = board[0] if board and board[0].state == TrialState.COMPLETE else None
    lines += [f"Warning: {markdown(warning)}." for warning in collapse_warnings(board, best)]
    if best is not None:
        lines += ["", "| hyperparameter | best |", "|---|---|"]
        lines += [f"| {markdown(path)} | {markdown(value)} |" for path, value in best.sample.items()]
    failed = [trial for trial in board if trial.state.is_failure]
    if failed:
        lines += ["", "Without a result:"]
        lines += [f"- trial {t.number} {t.state.lower()}: {markdown(first_line(t.reason))}" for t in failed[:10]]
    return "\n".join(lines)


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Return the leaderboard as a table, repeated hyperparameters in one column; None without trials."""
    board = sweep.leaderboard()
    if not board:
        return None
    columns = sampled_columns([trial.sample for trial in board])
    _, runs = stored_addresses(sweep)
    running = is_running(sweep)
    rows = []
    for trial in board:
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": shown_state(trial.state, running),
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
        row[MLFLOW] = runs.get(trial.number, "").replace("{server}", LOCAL_SERVER)
        rows.append(row)
    kept = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    table = write_table(folder / "leaderboard.csv", [{key: row[key] for key in kept} for row in rows])
    text = "Complete trials, best first, then other trials with a value, then trials without one."
    links = {str(trial.number): f"trial-{trial.number}/index.html" for trial in board}
    links = {number: page for number, page in links.items() if (folder.parent / page).exists()}
    best = sweep.best()
    if best is not None:
        links.setdefault(str(best.number), "#part-1")  # the second part of the page shows it
        text += " The numbers of trials with a page lead to it; `ferhpo report --trial` makes one."
    if runs:
        hint = " (`ferhpo ui`)" if any(LOCAL_SERVER in row[MLFLOW] for row in rows) else ""
        text += f" The links to MLflow work while it runs{hint}."
    return Panel("Leaderboard", text, tables=(table,), links=links)
