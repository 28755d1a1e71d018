"""The style of all figures: colors that color-blind readers can distinguish, labels that are legible on a phone.

Note: figures are made without pyplot, whose global state would keep every figure of a process in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from ferhpo.states import TrialState
from ferhpo.text import number

# Okabe and Ito, "Color Universal Design", 2008; black last, for reference lines
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SEQUENTIAL = "cividis"  # for matrices and maps: uniform in lightness, also for color-blind readers
PIXELS_PER_INCH = 144
COLUMN_INCHES = 4.1  # fits on a phone without scrolling, at a legible font size
SMALL_INCHES = 3.1  # two or three of these fit side by side on a desktop
# Color, marker and marker area in points squared for each state of a trial
STATE_MARKS = {
    TrialState.COMPLETE: (COLORS[0], "o", 30),
    TrialState.PRUNED: (COLORS[1], "v", 26),
    TrialState.RUNNING: (COLORS[4], "s", 22),
    TrialState.INFEASIBLE: (COLORS[3], "X", 40),
    TrialState.DIVERGED: (COLORS[7], "P", 40),
    TrialState.FAILED: (COLORS[5], "X", 40),
}
MOST_VECTOR_MARKS = 400  # with more marks, a PNG file is smaller and renders faster
# Those of matplotlib itself first, so that neither a matplotlibrc of the user nor pyplot changes a figure of ferhpo.
_SETTINGS: Any = {
    **{key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")},
    "text.usetex": False,  # texts come from data sets and sweeps of others: they run no LaTeX
    "text.parse_math": False,  # and a class named $x$ is not a formula
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "image.cmap": SEQUENTIAL,
    "svg.hashsalt": "ferhpo",  # the same figure results in the same file
}


def suffix(num_marks: int) -> str:
    """Return the file suffix for a figure with that many marks."""
    return ".svg" if num_marks <= MOST_VECTOR_MARKS else ".png"


class _PlainNumbers(LogFormatter):
    """The tick labels of a log axis. Those of matplotlib are formulas, which no figure here parses."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return short_number(x) if super().__call__(x, pos) else ""


def short_number(value: float) -> str:
    """Return a number in few characters, e.g. 1e-4 for 0.0001."""
    text = number(float(value))
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.2e}".partition("e")
        text = f"{float(mantissa):g}e{int(power)}"
    return text


def _use_plain_numbers(drawn: Figure) -> None:
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(_PlainNumbers())
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(_PlainNumbers())


@contextmanager
def figure(path: Path, width_inches: float = 7.0, height_inches: float = 4.0) -> Iterator[Figure]:
    """Yield a figure to draw into; write it at the end of the block, atomically, as .svg or .png by its suffix."""
    with mpl.rc_context(_SETTINGS):
        drawn = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield drawn
        _use_plain_numbers(drawn)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        half = path.with_name(f".{path.name}.half")
        drawn.savefig(half, format=path.suffix.removeprefix("."), dpi=PIXELS_PER_INCH, metadata=metadata)
        half.replace(path)
