"""Isolation plots: for each hyperparameter, the best value in each part of its range.

A scatter of all trials shows the typical value; what a sweep is for is the best one. A part whose best value is low,
although many trials are in it, can be cut from the space; one with few trials says nothing yet (Godbole et al. 2023,
Deep Learning Tuning Playbook, "Isolation plots").
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferhpo.reports.panel import Panel, safe_name, write_table
from ferhpo.reports.style import COLORS, SMALL_INCHES, figure
from ferhpo.reports.sweep.axes import Axis, shortened, value_of, varied
from ferhpo.reports.sweep.history import set_value_scale
from ferhpo.scoring.objective import Objective
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed
from ferhpo.text import join, plural

FEWEST_TRIALS = 12
MOST_FIGURES, MOST_PARTS = 12, 8
FEW = 3  # trials in a part that say little


@dataclass(frozen=True)
class PartOfRange:
    """A part of a hyperparameter's range, as text and as a position; its number of trials, and the best of them."""

    text: str
    position: float
    count: int
    best: float


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the best value of each part of each hyperparameter's range; None for few trials or if nothing varies."""
    trials = completed(sweep.trials())
    axes_of = varied(sweep, trials)
    if len(trials) < FEWEST_TRIALS or not axes_of:
        return None
    rows, images = [], []
    of_axes = {axis.path: parts_of(axis, trials, sweep.objective) for axis in axes_of}
    for number, axis in enumerate(axes_of):
        parts = of_axes[axis.path]
        rows += [
            {"hyperparameter": axis.path, "part": part.text, "trials": part.count, "best": f"{part.best:.6g}"}
            for part in parts
        ]
        if number < MOST_FIGURES:
            images.append(_draw(axis, parts, sweep.objective, folder / f"isolation_{safe_name(axis.path)}.svg"))
    table = write_table(folder / "isolation.csv", rows)
    return Panel("Isolation", _text(of_axes, sweep.objective), tuple(images), (table,))


def parts_of(axis: Axis, trials: Sequence[TrialRecord], objective: Objective) -> list[PartOfRange]:
    """Return the categories of a hyperparameter, or parts of equal width of its range (of its logarithm)."""
    having = [trial for trial in trials if axis.path in trial.sample]
    values = [trial.sample[axis.path] for trial in having]
    distinct = sorted({axis.position(value) for value in values})
    if axis.categories or len(distinct) <= MOST_PARTS:
        places = [distinct.index(axis.position(value)) for value in values]
        texts = [axis.categories[int(place)] if axis.categories else f"{place:g}" for place in distinct]
        middles = distinct
    else:
        edges = np.linspace(0, 1, MOST_PARTS + 1)
        places = [min(int(axis.fraction(value) * MOST_PARTS), MOST_PARTS - 1) for value in values]
        bounds = [_at(axis, edge) for edge in edges]
        texts = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(bounds)]
        middles = [_at(axis, (low + high) / 2) for low, high in itertools.pairwise(edges)]
    parts = []
    for place, (text, middle) in enumerate(zip(texts, middles, strict=True)):
        inside = [value_of(trial) for trial, own in zip(having, places, strict=True) if own == place]
        if inside:
            parts.append(PartOfRange(text, middle, len(inside), max(inside, key=objective.score)))
    return parts


def _at(axis: Axis, fraction: float) -> float:
    """Return the value at a fraction of an axis of numbers."""
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** fraction)
    return float(axis.low + (axis.high - axis.low) * fraction)


def _draw(axis: Axis, parts: Sequence[PartOfRange], objective: Objective, path: Path) -> Path:
    with figure(path, SMALL_INCHES, 2.7) as drawn:
        axes = drawn.add_subplot()
        x, y = [part.position for part in parts], [part.best for part in parts]
        if not axis.categories:
            axes.plot(x, y, color=COLORS[0], linewidth=1.2, zorder=1)
        for part in parts:
            is_little = part.count < FEW
            face = "white" if is_little else COLORS[0]
            axes.scatter(part.position, part.best, s=34, facecolor=face, edgecolor=COLORS[0], zorder=2)
            axes.annotate(
                str(part.count), (part.position, part.best), xytext=(0, 5), textcoords="offset points", fontsize=8,
                ha="center",
            )  # fmt: skip
        axis.apply_to_x(axes, x)
        axes.set_xlabel(shortened(axis.path, 34))
        axes.set_ylabel(f"best {objective.metric}")
        set_value_scale(axes, y)
        axes.margins(y=0.18)
    return path


def _text(of_axes: dict[str, list[PartOfRange]], objective: Objective) -> str:
    text = (
        "The best value of the complete trials in each part of a hyperparameter's range. The number at a mark is that "
        f"of its trials; a mark with fewer than {FEW} is not filled."
    )
    thin = [path for path, parts in of_axes.items() if sum(part.count < FEW for part in parts) > len(parts) / 2]
    if thin:
        names = join(thin[:4]) + (f" and {plural(len(thin) - 4, 'other')}" if len(thin) > 4 else "")
        text += f" Too few trials to judge most parts of {names}."
    cuts = [
        f"{path} ({worst.text})" for path, parts in of_axes.items() if (worst := _to_cut(parts, objective)) is not None
    ]
    if cuts:
        text += f" Well sampled and clearly worse than the rest: {join(cuts[:4])}."
    return text


def _to_cut(parts: Sequence[PartOfRange], objective: Objective) -> PartOfRange | None:
    """Return the worst part, if it has its share of the trials and its best value is far below those of the others."""
    if len(parts) < 3:
        return None
    scores = [objective.score(part.best) for part in parts]
    worst = int(np.argmin(scores))
    others = [score for place, score in enumerate(scores) if place != worst]
    mean_count = sum(part.count for part in parts) / len(parts)
    is_clear = scores[worst] < min(others) - 2 * float(np.std(others)) and np.std(others) > 0
    return parts[worst] if is_clear and parts[worst].count >= max(FEW, mean_count / 2) else None
