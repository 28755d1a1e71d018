"""How a sweep came to its best: the value of every trial in the order of their numbers, and the best so far."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLOURS, COLUMN_INCHES, STATE_MARKS, figure, suffix
from ferhpo.reports.sweep.axes import value_of
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import plural

WIDE_RANGE = 20.0  # a loss whose largest value is so many times its smallest is drawn on a logarithmic axis


def panel(record: Sweep, folder: Path) -> Panel | None:
    """Draw the optimisation history; None before the first value."""
    trials = record.trials()
    with_value = [trial for trial in trials if trial.value is not None]
    if not with_value:
        return None
    steps = best_so_far(record, trials)
    path = folder / f"history{suffix(len(trials))}"
    with figure(path, COLUMN_INCHES, 3.4) as drawn:
        axes = drawn.add_subplot()
        if steps:
            numbers = [number for number, _ in steps] + [trials[-1].number]
            values = [value for _, value in steps] + [steps[-1][1]]
            axes.step(numbers, values, where="post", color=COLOURS[7], linewidth=1.4, label="best so far", zorder=1)
        draw_states(axes, trials)
        axes.set_xlabel("trial")
        axes.set_ylabel(record.objective.metric)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        set_value_scale(axes, [value_of(trial) for trial in with_value])
        drawn.legend(loc="outside lower center", ncols=3, fontsize=9, handletextpad=0.3, columnspacing=1.0)
    return Panel("Optimisation history", _text(record, trials, steps), (path,))


def best_so_far(record: Sweep, trials: list[TrialRecord]) -> list[tuple[int, float]]:
    """(number, value) of each complete trial that was better than all complete ones before it."""
    steps: list[tuple[int, float]] = []
    for trial in trials:
        if trial.state != TrialState.COMPLETE or trial.value is None:
            continue
        if record.objective.is_better(trial.value, steps[-1][1] if steps else None):
            steps.append((trial.number, trial.value))
    return steps


def draw_states(axes: Axes, trials: list[TrialRecord]) -> None:
    """Mark each trial by its state; one without a value stands on the lower edge."""
    for state, (colour, marker, area) in STATE_MARKS.items():
        chosen = [trial for trial in trials if trial.state == state]
        if not chosen:
            continue
        placed = [trial for trial in chosen if trial.value is not None]
        label = state.lower()
        if placed:
            numbers, values = [trial.number for trial in placed], [value_of(trial) for trial in placed]
            axes.scatter(numbers, values, s=area, c=colour, marker=marker, label=label, zorder=2, linewidth=0)
            label = "_" + label
        lost = [trial.number for trial in chosen if trial.value is None and state != TrialState.RUNNING]
        if lost:
            on_edge = axes.get_xaxis_transform()
            axes.scatter(
                lost, [0.0] * len(lost), s=area, c=colour, marker=marker, label=label, transform=on_edge,
                clip_on=False, zorder=3, linewidth=0,
            )  # fmt: skip


def set_value_scale(axes: Axes, values: list[float]) -> None:
    """A logarithmic y axis where the values, as losses do, run over more than a decade."""
    if min(values) > 0 and max(values) / min(values) > WIDE_RANGE:
        axes.set_yscale("log")


def _text(record: Sweep, trials: list[TrialRecord], steps: list[tuple[int, float]]) -> str:
    if not steps:
        return f"None of {plural(len(trials), 'trial')} is complete yet; a marker is a trial at its best epoch."
    after = sum(trial.number > steps[-1][0] for trial in trials)
    text = (
        f"The best complete trial is number {steps[-1][0]} with {record.objective.metric} {steps[-1][1]:.4f}; "
        f"the best so far changed {plural(len(steps) - 1, 'time')} after the first, and "
        f"{plural(after, 'trial')} came after the last change."
    )
    if any(trial.value is None and trial.state.is_over for trial in trials):
        text += " Marks on the lower edge are trials without a value."
    return text
