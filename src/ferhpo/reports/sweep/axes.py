"""The hyperparameters of a sweep as axes of figures, with bounds, log scale and categories from the space.

Note: only some trials have a position on the axis of a conditional draw or of an entry of a repeated draw, e.g.
`model.block_channels.3`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ferhpo.reports.style import short_number
from ferhpo.space import Draw
from ferhpo.space.draw import choice_key
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import number

NEAR_EDGE = 0.02  # as a fraction of the axis
MOST_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """One hyperparameter.

    low, high: bounds of the space; with categories, their first and last index
    categories: the tick labels of a draw with choices, in the order of the space
    """

    path: str
    low: float
    high: float
    log: bool = False
    is_int: bool = False
    categories: tuple[str, ...] = ()

    def position(self, value: Any) -> float:
        """Return the position of a value in the axis's own unit."""
        return float(self.categories.index(tick_text(value))) if self.categories else float(value)

    def fraction(self, value: Any) -> float:
        """Return the position of a value as a fraction, 0 at low and 1 at high; on a log axis, of the logarithms."""
        if self.high == self.low:
            return 0.5
        low, high, position = self.low, self.high, self.position(value)
        if self.log:
            low, high, position = math.log(low), math.log(high), math.log(position)
        return (position - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (fraction, label) of a few ticks."""
        if self.categories:
            return [(self.fraction_of_index(index), text) for index, text in enumerate(self.categories)]
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            values = [10.0**power for power in powers]
            values = [value for value in values if 0.12 < self.fraction(value) < 0.88]
            return [(self.fraction(value), short_number(value)) for value in [self.low, *values, self.high]]
        middle = (self.low + self.high) / 2
        middle = round(middle) if self.is_int else middle
        values = [self.low, middle, self.high] if self.low < middle < self.high else [self.low, self.high]
        return [(self.fraction(value), short_number(value)) for value in values]

    def fraction_of_index(self, index: int) -> float:
        return index / (len(self.categories) - 1) if len(self.categories) > 1 else 0.5

    def edge(self, value: Any) -> str:
        """Return "lowest" or "highest" for a number at an edge of the space, else an empty string."""
        if self.categories or self.high == self.low:
            return ""
        fraction = self.fraction(value)
        return "lowest" if fraction < NEAR_EDGE else "highest" if fraction > 1 - NEAR_EDGE else ""

    def apply_to_x(self, axes: Axes, values: Sequence[Any]) -> None:
        """Set bounds and label of the x axis, and ticks at `values` if there are few different ones."""
        axes.set_xlabel(self.path)
        if self.categories:
            axes.set_xticks(range(len(self.categories)), [shortened(text, 14) for text in self.categories])
            if sum(len(shortened(text, 14)) for text in self.categories) > 26:
                axes.tick_params("x", labelrotation=25)
            axes.set_xlim(-0.5, len(self.categories) - 0.5)
        elif self.log:
            axes.set_xscale("log")
            axes.set_xlim(self.low / 1.15, self.high * 1.15)
        else:
            margin = 0.06 * (self.high - self.low) or 0.5
            axes.set_xlim(self.low - margin, self.high + margin)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=self.is_int))
            distinct = sorted({float(value) for value in values})
            if len(distinct) <= MOST_TICKS:
                axes.set_xticks(distinct, [short_number(value) for value in distinct])


def varied(sweep: Sweep, trials: Sequence[TrialRecord]) -> list[Axis]:
    """Return an axis for each sampled hyperparameter that has more than one value among `trials`."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for path, value in trial.sample.items():
            values.setdefault(path, []).append(value)
    draws = sweep.space().draws
    axes = []
    for path, taken in values.items():
        if len({tick_text(value) for value in taken}) > 1:
            axes.append(_axis(path, taken, [draw for draw in draws if is_of(draw, path)]))
    return axes


def is_of(draw: Draw, path: str) -> bool:
    """Return whether a sampled path belongs to a draw, for a repeated draw also as one of its entries."""
    parent, _, last = path.rpartition(".")
    return draw.path == path or (draw.repeat is not None and draw.path == parent and last.isdecimal())


def _axis(path: str, taken: Sequence[Any], draws: Sequence[Draw]) -> Axis:
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in taken)
    if not are_numbers or any(draw.choices for draw in draws):
        offered = [tick_text(value) for draw in draws for value in draw.choices]
        texts = [text for text in dict.fromkeys(offered) if text in {tick_text(value) for value in taken}]
        texts += sorted({tick_text(value) for value in taken} - set(texts))
        return Axis(path, 0, len(texts) - 1, categories=tuple(texts))
    low = min([*taken, *(draw.low for draw in draws if draw.low is not None)])
    high = max([*taken, *(draw.high for draw in draws if draw.high is not None)])
    log = any(draw.log for draw in draws) and low > 0
    return Axis(path, low, high, log, all(isinstance(value, int) for value in taken))


def value_of(trial: TrialRecord) -> float:
    """Return the value of a trial that has one."""
    assert trial.value is not None
    return trial.value


def tick_text(value: Any) -> str:
    """Return the tick label of a category."""
    return number(choice_key(value)) if value is not None else "null"


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` round numbers between two positive ones, the ticks of a log axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 4, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= most:
            return ticks or [low]
    return ticks[:: -(-len(ticks) // most)]


def shortened(text: str, length: int) -> str:
    """Return a text cut to a length, with an ellipsis if something is cut off."""
    return text if len(text) <= length else text[: length - 1] + "…"
