"""A sweep's results as text: the leaderboard as CSV, and what was found, in words."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ferhpo.errors import first_line
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.trial.collapse import collapse_warnings
from ferhpo.scoring.collapse import collapse
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import number, plural, sampled_columns


def leaderboard_csv(trials: Sequence[TrialRecord], metric: str) -> str:
    """The leaderboard as CSV, one column for each sampled hyperparameter.

    Of cross-validated trials `value` is the mean over `folds` folds, `std` their deviation.
    """
    is_folded = any(trial.folds for trial in trials)
    counted = ["std", "folds"] if is_folded else ["best_epoch", "epochs"]
    names = list(dict.fromkeys(path for trial in trials for path in trial.sample))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    facts = ["trial", "state", "value", "val_acc_dedup", *counted, "num_parameters", "seconds"]
    writer.writerow([*facts, *names, "reason"])
    for trial in trials:
        writer.writerow(
            [
                trial.number,
                trial.state,
                trial.value,
                trial.clean_acc,
                *([trial.std(metric), len(trial.folds)] if is_folded else [trial.best_epoch, len(trial.epochs)]),
                trial.extra.get("num_parameters"),
                None if trial.seconds is None else round(trial.seconds, 1),
                *(trial.sample.get(name) for name in names),
                first_line(trial.reason) if trial.reason else "",
            ]
        )
    return out.getvalue()


def findings(record: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int]) -> list[str]:
    """What the sweep found, in sentences: how many trials ended how, the best, and how far it can be believed."""
    config, metric = record.config, record.objective.metric
    shares = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
    sampler = config["sampler"]["_target_"].rpartition(".")[2]
    told = f" ({shares})" if shares else ""
    lines = [f"{plural(sum(counts.values()), 'trial')}{told}, sampled by {sampler}, seed {config['seed']}."]
    best = board[0] if board and board[0].state == TrialState.COMPLETE else None
    if best is not None and best.value is not None:
        others = [t.value for t in board[1:] if t.state == TrialState.COMPLETE and t.value is not None]
        at = f"at epoch {best.best_epoch}"
        if best.folds:
            at = f"the mean of {len(best.folds)} folds (deviation {best.std(metric):.4f})"
        lines.append(f"Best: trial {best.number} with {metric} {best.value:.4f}{',' * bool(best.folds)} {at}.")
        if others:
            lines.append(
                f"The next complete trial has {others[0]:.4f}. The value was chosen on validation among "
                f"{len(others) + 1} complete trials, so expect a little less of it on new data."
            )
    return lines


def sweep_note(record: Sweep, board: Sequence[TrialRecord], counts: Mapping[TrialState, int]) -> str:
    """What the sweep found, in words (markdown)."""
    first, *rest = findings(record, board, counts)
    lines = [f"**{record.name}**: {first}", *rest]
    best = board[0] if board and board[0].state == TrialState.COMPLETE else None
    lines += [f"Warning: {warning}." for warning in collapse_warnings(board, best)]
    if best is not None:
        lines += ["", "| hyperparameter | best |", "|---|---|"]
        lines += [f"| {path} | {value} |" for path, value in best.sample.items()]
    failed = [t for t in board if t.state.is_failure]
    if failed:
        lines += ["", "Without a result:"]
        lines += [f"- trial {t.number} {t.state.lower()}: {first_line(t.reason)}" for t in failed[:10]]
    return "\n".join(lines)


def panel(record: Sweep, folder: Path) -> Panel | None:
    """The leaderboard as a table, the entries of a repeated hyperparameter in one column; None without trials."""
    board = record.leaderboard()
    if not board:
        return None
    columns = sampled_columns([trial.sample for trial in board])
    rows = []
    for trial in board:
        row: dict[str, object] = {
            "trial": trial.number,
            "state": trial.state.lower(),
            record.objective.metric: trial.value,
            "deviation": trial.std(record.objective.metric),
            "clean": trial.clean_acc if trial.clean_acc != trial.value else None,
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
    text = "Complete trials best first, then those that were stopped early, then those without a value."
    return Panel("Leaderboard", text, tables=(table,))
