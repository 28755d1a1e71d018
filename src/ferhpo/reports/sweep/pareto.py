"""Accuracy versus cost: the objective against parameters and multiply-accumulates, with the Pareto front."""

from collections.abc import Sequence
from pathlib import Path

from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, COLUMN_INCHES, STATE_MARKS, figure, suffix
from ferhpo.reports.sweep.axes import log_ticks, value_of
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed
from ferhpo.text import plural, short

NAME_SHARE = 0.08  # of the axis: the width of a trial's number
COSTS = {"num_parameters": "trainable parameters", "macs": "multiply-accumulates per image"}


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the complete trials and their Pareto fronts; None if their costs do not differ."""
    board = completed(sweep.leaderboard())
    costs = [cost for cost in COSTS if len({t.extra[cost] for t in board if t.extra.get(cost)}) > 1]
    if not costs:
        return None
    images, fronts = [], {}
    for cost in costs:
        priced = [trial for trial in board if trial.extra.get(cost)]
        fronts[cost] = front(priced, cost)
        images.append(_draw(sweep, priced, fronts[cost], cost, folder))
    members = {trial.number: trial for trials in fronts.values() for trial in trials}
    rows = [
        {
            "trial": trial.number,
            sweep.objective.metric: trial.value,
            "parameters": trial.extra.get("num_parameters"),
            "macs": trial.extra.get("macs"),
        }
        for trial in board
        if trial.number in members
    ]
    table = write_table(folder / "pareto.csv", rows)
    return Panel("Accuracy versus cost", _text(sweep, fronts), tuple(images), (table,))


def front(board: Sequence[TrialRecord], cost: str) -> list[TrialRecord]:
    """Return the Pareto front of a leaderboard, cheapest first: trials that no other one equals or beats for no more.

    board: trials best first, as `storage.sweep.ranked` returns them
    """
    kept: list[TrialRecord] = []
    for trial in board:  # a trial is on the front if it is cheaper than all better ones
        if not kept or trial.extra[cost] < kept[-1].extra[cost]:
            if kept and kept[-1].value == trial.value:
                kept.pop()
            kept.append(trial)
    return kept[::-1]


def _draw(sweep: Sweep, board: list[TrialRecord], best: list[TrialRecord], cost: str, folder: Path) -> Path:
    path = folder / f"pareto_{cost}{suffix(len(board))}"
    with figure(path, COLUMN_INCHES, 3.4) as drawn:
        axes = drawn.add_subplot()
        color, marker, area = STATE_MARKS[TrialState.COMPLETE]
        others = [trial for trial in board if trial not in best]
        axes.scatter(
            [t.extra[cost] for t in others], [value_of(t) for t in others], s=area, c=color, marker=marker, alpha=0.6,
            label="complete trial", linewidth=0,
        )  # fmt: skip
        x, y = [t.extra[cost] for t in best], [value_of(t) for t in best]
        axes.step(x, y, where="post", color=COLORS[5], linewidth=1.3, zorder=1)
        axes.scatter(x, y, s=62, c=COLORS[5], marker="D", label="Pareto front", zorder=3, linewidth=0)
        low, high = min(t.extra[cost] for t in board), max(t.extra[cost] for t in board)
        for trial in _named(best, cost, high / low):
            axes.annotate(
                f"{trial.number}", (trial.extra[cost], value_of(trial)), xytext=(0, 7), textcoords="offset points",
                ha="center", fontsize=9,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.margins(y=0.14)
        axes.set_xticks(log_ticks(low, high))
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.set_xlabel(f"{COSTS[cost]} (log)")
        axes.set_ylabel(sweep.objective.metric)
        drawn.legend(loc="outside lower center", ncols=2, fontsize=9, handletextpad=0.2)
    return path


def _named(best: Sequence[TrialRecord], cost: str, span: float) -> list[TrialRecord]:
    """Return the members of a front, most expensive first, whose numbers do not overlap in the figure."""
    apart = span**NAME_SHARE
    named: list[TrialRecord] = []
    for trial in reversed(best):
        if not named or trial.extra[cost] * apart < named[-1].extra[cost]:
            named.append(trial)
    return named


def _text(sweep: Sweep, fronts: dict[str, list[TrialRecord]]) -> str:
    parts = []
    for cost, best in fronts.items():
        top, cheapest = best[-1], best[0]
        metric = sweep.objective.metric
        name = COSTS[cost]
        if len(best) == 1:
            parts.append(f"Trial {top.number} is both the best trial and the one with the fewest {name}.")
            continue
        parts.append(
            f"By {name}, the Pareto front has {plural(len(best), 'trial')}, from trial {cheapest.number} "
            f"({short(cheapest.extra[cost])}, {metric} {cheapest.value:.4f}) to trial {top.number} "
            f"({short(top.extra[cost])}, {top.value:.4f})."
        )
    return " ".join(parts) + " Diamonds are labeled with the number of the trial."
