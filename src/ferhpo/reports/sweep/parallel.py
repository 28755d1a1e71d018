"""Parallel coordinates, with the axes stacked vertically so that any number of hyperparameters fits on a phone.

Note: the line of a trial skips the axes of hyperparameters that it did not sample; a dashed segment leads to the next
axis.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLORS, COLUMN_INCHES, SEQUENTIAL, figure, suffix
from ferhpo.reports.sweep.axes import Axis, shortened, varied
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord

MOST_LINES = 150
INCHES_AN_AXIS = 0.62


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the samples of the trials that have a value; None for fewer than two, or if nothing varies."""
    board = [trial for trial in sweep.leaderboard() if trial.value is not None and trial.state.is_over]
    axes_of = varied(sweep, board)
    if len(board) < 2 or not axes_of:
        return None
    shown = thinned(board, MOST_LINES)
    values = [trial.value for trial in shown if trial.value is not None]
    objective = Axis(sweep.objective.metric, min(values), max(values))
    path = folder / f"parallel{suffix(len(shown) * len(axes_of))}"
    with figure(path, COLUMN_INCHES, 0.7 + INCHES_AN_AXIS * (len(axes_of) + 1)) as drawn:
        axes = drawn.add_subplot()
        axes.set_axis_off()
        _draw_lines(axes, shown, axes_of, objective, sweep.objective.is_better(1.0, 0.0))
        for row, axis in enumerate([*axes_of, objective]):
            _draw_axis(axes, row, axis, is_objective=axis is objective)
        axes.set_xlim(-0.06, 1.06)
        axes.set_ylim(len(axes_of) + 0.5, -0.55)
    best = shown[0]
    text = (
        f"Each line is a trial, from its hyperparameters down to its {sweep.objective.metric}; the darker a line, "
        f"the better its trial; the thick line is the best trial, {best.number}."
    )
    if len(shown) < len(board):
        text += (
            f" The best {MOST_LINES // 3} are drawn, and a regular sample of the other {len(board) - MOST_LINES // 3}."
        )
    if any(len(trial.sample) < len(axes_of) for trial in shown):
        text += " A dashed segment skips hyperparameters that the trial did not sample."
    return Panel("Parallel coordinates", text, (path,))


def thinned(board: list[TrialRecord], most: int) -> list[TrialRecord]:
    """Return at most `most` trials of a leaderboard: a third of them the best ones, the others evenly spaced below."""
    if len(board) <= most:
        return board
    kept = most // 3
    places = np.linspace(kept, len(board) - 1, most - kept).round().astype(int)
    return [*board[:kept], *(board[place] for place in sorted(set(places.tolist())))]


def _draw_lines(
    axes: Axes, shown: list[TrialRecord], axes_of: list[Axis], objective: Axis, more_is_better: bool
) -> None:
    fractions = np.array([objective.fraction(trial.value) for trial in shown])
    badness = 1 - fractions if more_is_better else fractions
    colors = colormaps[SEQUENTIAL](0.9 * badness)  # dark for the best: the bright end is faint on white
    for index in reversed(range(len(shown))):  # the best on top
        trial = shown[index]
        points = [
            (axis.fraction(trial.sample[axis.path]), row)
            for row, axis in enumerate(axes_of)
            if axis.path in trial.sample
        ]
        points.append((objective.fraction(trial.value), len(axes_of)))
        is_best = index == 0
        color, width = (COLORS[5], 2.6) if is_best else (colors[index], 0.9)
        for (x0, row0), (x1, row1) in pairwise(points):
            line = "-" if row1 == row0 + 1 else (0, (2, 3))
            axes.plot((x0, x1), (row0, row1), linestyle=line, color=color, linewidth=width, alpha=0.85)


def _draw_axis(axes: Axes, row: int, axis: Axis, is_objective: bool) -> None:
    axes.hlines(row, 0, 1, color="#444444", linewidth=1.2, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
    weight = "bold" if is_objective else "normal"
    name = axis.path + (" (log)" if axis.log else "")
    axes.text(-0.05, row - 0.14, name, fontsize=9.5, fontweight=weight, ha="left", va="bottom", bbox=box, zorder=4)
    ticks = axis.ticks()
    most = max(3, int(46 / max(len(text) + 2 for _, text in ticks)))
    step = -(-len(ticks) // most)
    for place, text in ticks[::step]:
        axes.vlines(place, row - 0.05, row + 0.05, color="#444444", linewidth=1.2, zorder=3)
        side = "left" if place < 0.02 else "right" if place > 0.98 else "center"
        shown = shortened(text, max(8, 40 // len(ticks)))
        axes.text(place, row + 0.1, shown, fontsize=8.5, ha=side, va="top", color="#222222", bbox=box, zorder=4)
