"""The best value so far over the seconds that the trials trained, which is what a sweep pays with."""

from collections.abc import Sequence
from pathlib import Path

from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.reports.sweep.axes import value_of
from ferhpo.scoring.objective import Objective
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed
from ferhpo.text import duration

UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the best value so far; None without two complete trials whose time is known."""
    trials = sweep.trials()
    steps, total = best_over_seconds(trials, sweep.objective)
    if len(completed(trials)) < 2 or not steps or total <= 0:
        return None
    unit, name = next((size, name) for size, name in UNITS if total >= 2 * size or size == 1.0)
    path = folder / "over_time.svg"
    with figure(path, COLUMN_INCHES, 3.1) as drawn:
        axes = drawn.add_subplot()
        x = [seconds / unit for seconds, _ in steps] + [total / unit]
        y = [value for _, value in steps] + [steps[-1][1]]
        axes.step(x, y, where="post", color=COLORS[0])
        axes.scatter(x[:-1], y[:-1], s=18, color=COLORS[0], zorder=2)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"training time of all trials, {name}")
        axes.set_ylabel(f"best {sweep.objective.metric} so far")
    last = steps[-1][0]
    stopped = sum(t.seconds or 0.0 for t in trials if t.state.is_over and t.state != TrialState.COMPLETE)
    text = (
        f"The trials trained {duration(total)} in all, {duration(stopped)} of them in trials that were stopped or "
        f"failed. The best value was there after {duration(last)} ({last / total:.0%})."
    )
    return Panel("Best value over training time", text, (path,))


def best_over_seconds(trials: Sequence[TrialRecord], objective: Objective) -> tuple[list[tuple[float, float]], float]:
    """Return (seconds trained by all trials up to and including it, value) of each new best trial, and all seconds.

    Trials count in the order of their numbers, which is nearly that of their ends.
    """
    steps: list[tuple[float, float]] = []
    total = 0.0
    for trial in trials:
        total += trial.seconds or 0.0
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            value = value_of(trial)
            if objective.is_better(value, steps[-1][1] if steps else None):
                steps.append((total, value))
    return steps, total
