"""Sweeps and trials for Python and notebooks: as pandas frames, as one line, as HTML.

Note: pandas is imported when a frame is asked for; MLflow brings it.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ferhpo.errors import first_line
from ferhpo.states import TrialState
from ferhpo.text import number

if TYPE_CHECKING:
    import pandas as pd

HTML_ROWS = 10
Trial = Any  # a TrialRecord; its module imports this one
Sweep = Any  # a Sweep, likewise


def leaderboard_frame(trials: Sequence[Trial], metric: str) -> "pd.DataFrame":
    """Return a leaderboard as a pandas frame: a row for each trial, with its number as the index."""
    import pandas as pd

    columns, rows = leaderboard_rows(trials, metric)
    return pd.DataFrame(rows, columns=columns).set_index("trial")


def curves_frame(trials: Sequence[Trial]) -> "pd.DataFrame":
    """Return the recorded epochs of trials as a pandas frame with the index (trial, epoch) or (trial, fold, epoch)."""
    import pandas as pd

    rows = [row for trial in trials for row in curve_rows(trial)]
    index = ["trial", *(["fold"] if any("fold" in row for row in rows) else []), "epoch"]
    metrics = list(dict.fromkeys(key for row in rows for key in row if key not in index))
    return pd.DataFrame(rows, columns=[*index, *metrics]).set_index(index)


def leaderboard_rows(trials: Sequence[Trial], metric: str) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of a leaderboard: one column for each metric of the validation split and each
    hyperparameter.

    The metrics are those of the best epoch; `value` is that of the objective, `metric`.
    For cross-validated trials, `value` is the mean over `folds` folds and `std` their standard deviation.
    """
    is_folded = any(trial.folds for trial in trials)
    counts = ["std", "folds"] if is_folded else ["best_epoch", "epochs"]
    names = list(dict.fromkeys(path for trial in trials for path in trial.sample))
    metrics = sorted({name for trial in trials for name in trial.metrics if name.startswith("val_")} - {metric})
    rows = [
        [
            trial.number,
            str(trial.state),
            trial.value,
            *(trial.metrics.get(name) for name in metrics),
            *([trial.std(metric), len(trial.folds)] if is_folded else [trial.best_epoch, len(trial.epochs)]),
            trial.extra.get("num_parameters"),
            None if trial.seconds is None else round(trial.seconds, 1),
            *(trial.sample.get(name) for name in names),
            first_line(trial.reason) if trial.reason else "",
        ]
        for trial in trials
    ]
    return ["trial", "state", "value", *metrics, *counts, "num_parameters", "seconds", *names, "reason"], rows


def curve_rows(trial: Trial) -> list[dict[str, float]]:
    """Return the recorded epochs of a trial, each with its trial and, with cross-validation, its fold."""
    if trial.fold_epochs:
        folds = enumerate(trial.fold_epochs)
        return [{"trial": trial.number, "fold": fold, **row} for fold, rows in folds for row in rows]
    return [{"trial": trial.number, **row} for row in trial.epochs]


def sentence(sweep: Sweep) -> str:
    """Return a sweep in a few words: name, number of trials, best value."""
    board = sweep.leaderboard()
    best = board[0] if board and board[0].state == TrialState.COMPLETE and board[0].value is not None else None
    found = "" if best is None else f", best: trial {best.number} with {sweep.objective.metric} {best.value:.4f}"
    return f"{sweep.name}: {len(board)} trial{'s' * (len(board) != 1)}{found}"


def trial_sentence(trial: Trial) -> str:
    """Return a trial in a few words: number, state, value, number of epochs."""
    value = "" if trial.value is None else f", value {trial.value:.4f}"
    at = f" at epoch {trial.best_epoch} of {len(trial.epochs)}" if trial.best_epoch and not trial.folds else ""
    return f"{trial.number}: {trial.state.lower()}{value}{at}"


def sweep_html(sweep: Sweep) -> str:
    """Return a sweep for a notebook: its sentence and the first rows of its leaderboard."""
    columns, rows = leaderboard_rows(sweep.leaderboard(), sweep.objective.metric)
    left = "" if len(rows) <= HTML_ROWS else f"<p>and {len(rows) - HTML_ROWS} more; all: <code>.frame()</code></p>"
    return f"<p>{escape(sentence(sweep))}</p>{_table(columns, rows[:HTML_ROWS])}{left}"


def trial_html(trial: Trial) -> str:
    """Return a trial for a notebook: its sentence, what was sampled, and the metrics at its best epoch."""
    rows = [*trial.sample.items(), *((name, value) for name, value in trial.metrics.items() if name.startswith("val_"))]
    reason = f"<p>{escape(first_line(trial.reason))}</p>" if trial.reason else ""
    return f"<p>Trial {escape(trial_sentence(trial))}</p>{reason}{_table(['', ''], [list(row) for row in rows])}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(_shown(cell))}</{kind}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(dict(value))
    return "" if value is None else number(value)
