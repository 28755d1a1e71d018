"""Optimization history: the value of each trial in the order of their numbers, and the best value so far."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLORS, COLUMN_INCHES, STATE_MARKS, figure, suffix
from ferhpo.reports.sweep.axes import value_of
from ferhpo.states import TrialState, shown_state
from ferhpo.storage.listing import is_running
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import plural

WIDE_RANGE = 20.0  # the value axis is logarithmic if the largest value is more than this times the smallest


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the optimization history; None if no trial has a value."""
    trials = sweep.trials()
    with_value = [trial for trial in trials if trial.value is not None]
    if not with_value:
        return None
    steps = best_so_far(sweep, trials)
    path = folder / f"history{suffix(len(trials))}"
    with figure(path, COLUMN_INCHES, 3.4) as drawn:
        axes = drawn.add_subplot()
        if steps:
            numbers = [number for number, _ in steps] + [trials[-1].number]
            values = [value for _, value in steps] + [steps[-1][1]]
            axes.step(numbers, values, where="post", color=COLORS[7], linewidth=1.4, label="best so far", zorder=1)
        draw_states(axes, trials, is_running(sweep))
        axes.set_xlabel("trial")
        axes.set_ylabel(sweep.objective.metric)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        set_value_scale(axes, [value_of(trial) for trial in with_value])
        drawn.legend(loc="outside lower center", ncols=3, fontsize=9, handletextpad=0.3, columnspacing=1.0)
    return Panel("Optimization history", _text(sweep, trials, steps), (path,))


def best_so_far(sweep: Sweep, trials: list[TrialRecord]) -> list[tuple[int, float]]:
    """Return (number, value) of each complete trial that is better than all complete trials before it."""
    steps: list[tuple[int, float]] = []
    for trial in trials:
        if trial.state != TrialState.COMPLETE or trial.value is None:
            continue
        if sweep.objective.is_better(trial.value, steps[-1][1] if steps else None):
            steps.append((trial.number, trial.value))
    return steps


def draw_states(axes: Axes, trials: list[TrialRecord], running: bool = False) -> None:
    """Mark each trial by its state; trials without a value are on the lower edge.

    running: whether a driver runs the sweep
    """
    for state, (color, marker, area) in STATE_MARKS.items():
        chosen = [trial for trial in trials if trial.state == state]
        if not chosen:
            continue
        placed = [trial for trial in chosen if trial.value is not None]
        label = shown_state(state, running)
        if placed:
            numbers, values = [trial.number for trial in placed], [value_of(trial) for trial in placed]
            axes.scatter(numbers, values, s=area, c=color, marker=marker, label=label, zorder=2, linewidth=0)
            label = "_" + label
        without_value = [trial.number for trial in chosen if trial.value is None and state != TrialState.RUNNING]
        if without_value:
            on_edge = axes.get_xaxis_transform()
            axes.scatter(
                without_value, [0.0] * len(without_value), s=area, c=color, marker=marker, label=label,
                transform=on_edge, clip_on=False, zorder=3, linewidth=0,
            )  # fmt: skip


def set_value_scale(axes: Axes, values: list[float]) -> None:
    """Make the y axis logarithmic if the values, e.g. losses, span more than WIDE_RANGE."""
    if min(values) > 0 and max(values) / min(values) > WIDE_RANGE:
        axes.set_yscale("log")


def _text(sweep: Sweep, trials: list[TrialRecord], steps: list[tuple[int, float]]) -> str:
    if not steps:
        return f"None of {plural(len(trials), 'trial')} is complete yet; each marker is a trial at its best epoch."
    after = sum(trial.number > steps[-1][0] for trial in trials)
    text = (
        f"The best complete trial is number {steps[-1][0]} with {sweep.objective.metric} {steps[-1][1]:.4f}. "
        f"The best value improved {plural(len(steps) - 1, 'time')} after the first; {plural(after, 'trial')} followed "
        "the last improvement."
    )
    if any(trial.value is None and trial.state.is_over for trial in trials):
        text += " Markers on the lower edge are trials without a value."
    return text
