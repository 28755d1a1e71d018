"""Slice plots: the value of every trial against each hyperparameter, one small figure per hyperparameter."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ferhpo.reports.panel import Panel, safe_name
from ferhpo.reports.style import COLORS, SMALL_INCHES, STATE_MARKS, figure, suffix
from ferhpo.reports.sweep.axes import Axis, value_of, varied
from ferhpo.reports.sweep.history import set_value_scale
from ferhpo.reports.sweep.parallel import thinned
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import join, plural

# Complete trials are drawn over pruned ones, failures over both
DRAWING_ORDER = (
    TrialState.PRUNED, TrialState.COMPLETE, TrialState.DIVERGED, TrialState.INFEASIBLE, TrialState.FAILED,
)  # fmt: skip
MOST_FIGURES = 16
MOST_POINTS = 400
JITTER = 0.12  # in units of the distance between two categories


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw a slice for each hyperparameter that varies; None for fewer than two trials with a value."""
    board = [trial for trial in sweep.leaderboard() if trial.value is not None and trial.state.is_over]
    axes_of = varied(sweep, board)
    if len(board) < 2 or not axes_of:
        return None
    shown = thinned(board, MOST_POINTS)
    paths = tuple(_draw(sweep, shown, axis, folder) for axis in axes_of[:MOST_FIGURES])
    return Panel("Slices", _text(sweep, board, shown, axes_of), paths)


def _draw(sweep: Sweep, board: list[TrialRecord], axis: Axis, folder: Path) -> Path:
    random = np.random.default_rng(0)
    path = folder / f"slice_{safe_name(axis.path)}{suffix(len(board))}"
    with figure(path, SMALL_INCHES, 2.7) as drawn:
        axes = drawn.add_subplot()
        for state in DRAWING_ORDER:
            chosen = [trial for trial in board if trial.state == state and axis.path in trial.sample]
            if chosen:
                color, marker, area = STATE_MARKS[state]
                x = np.array([axis.position(trial.sample[axis.path]) for trial in chosen])
                x += random.uniform(-JITTER, JITTER, len(x)) if axis.categories else 0
                y = [value_of(trial) for trial in chosen]
                axes.scatter(
                    x, y, s=area * 0.8, c=color, marker=marker, label=state.lower(), linewidth=0, alpha=0.85
                )  # fmt: skip
        if board[0].state == TrialState.COMPLETE and axis.path in board[0].sample:
            place = axis.position(board[0].sample[axis.path])
            axes.scatter(
                place, value_of(board[0]), s=130, facecolor="none", edgecolor=COLORS[5], linewidth=2, label="best"
            )
        axis.apply_to_x(axes, [trial.sample[axis.path] for trial in board if axis.path in trial.sample])
        axes.set_ylabel(sweep.objective.metric)
        values = [value_of(trial) for trial in board]
        set_value_scale(axes, values)
        _share_limits(axes, values)
        drawn.legend(
            loc="outside upper left", ncols=3, fontsize=8.5, handletextpad=0.2, columnspacing=0.8, borderpad=0
        )  # fmt: skip
    return path


def _share_limits(axes: Axes, values: list[float]) -> None:
    """Set the same y axis in every slice, also for hyperparameters that only some trials sampled."""
    low, high = min(values), max(values)
    if axes.get_yscale() == "log":
        axes.set_ylim(low / 1.2, high * 1.2)
    else:
        margin = 0.07 * (high - low) or 0.01
        axes.set_ylim(low - margin, high + margin)


def _text(sweep: Sweep, board: list[TrialRecord], shown: list[TrialRecord], axes_of: list[Axis]) -> str:
    text = (
        f"{sweep.objective.metric} of each trial at its best epoch against one hyperparameter; a ring marks the best."
    )
    if len(shown) < len(board):
        text += (
            f" {len(shown)} of {plural(len(board), 'trial')} are drawn: the best, and a regular sample of the others."
        )
    if len(axes_of) > MOST_FIGURES:
        text += f" {len(axes_of) - MOST_FIGURES} more hyperparameters are not drawn; they are in leaderboard.csv."
    best = board[0]
    edges = [
        f"{axis.path} ({axis.edge(best.sample[axis.path])} value)"
        for axis in axes_of
        if best.state == TrialState.COMPLETE and axis.path in best.sample and axis.edge(best.sample[axis.path])
    ]
    if edges:
        text += f" The best trial is at an edge of the space in {join(edges)}; a wider space may contain better values."
    return text
