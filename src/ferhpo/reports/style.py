"""How every figure looks: colours that the colour-blind can tell apart, labels that can be read on a phone.

Figures are made without pyplot, whose global state would keep every figure of a process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from ferhpo.states import TrialState

# Okabe and Ito, "Color Universal Design", 2008; black last, for lines of reference
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SEQUENTIAL = "cividis"  # for matrices and maps: even in lightness, the same to all eyes
PIXELS_PER_INCH = 144
COLUMN_INCHES = 4.1  # a figure of this width needs no scrolling on a phone, and its letters stay readable
SMALL_INCHES = 3.1  # two or three of these stand side by side on a desk
# How a trial's state is drawn: colour, marker, and the marker's area in points squared
STATE_MARKS = {
    TrialState.COMPLETE: (COLOURS[0], "o", 30),
    TrialState.PRUNED: (COLOURS[1], "v", 26),
    TrialState.RUNNING: (COLOURS[4], "s", 22),
    TrialState.INFEASIBLE: (COLOURS[3], "X", 40),
    TrialState.DIVERGED: (COLOURS[7], "P", 40),
    TrialState.FAILED: (COLOURS[5], "X", 40),
}
MOST_VECTOR_MARKS = 400  # above this a figure is smaller, and quicker to show, as pixels
_SETTINGS: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "image.cmap": SEQUENTIAL,
    "svg.hashsalt": "ferhpo",  # the same figure gives the same file
}


def suffix(num_marks: int) -> str:
    """The kind of file for a figure of so many marks."""
    return ".svg" if num_marks <= MOST_VECTOR_MARKS else ".png"


@contextmanager
def figure(path: Path, width_inches: float = 7.0, height_inches: float = 4.0) -> Iterator[Figure]:
    """Draw a figure and write it, by rename, at the end of the block; the suffix, .svg or .png, is the format."""
    with mpl.rc_context(_SETTINGS):
        drawn = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield drawn
        metadata = {"Date": None} if path.suffix == ".svg" else None
        half = path.with_name(f".{path.name}.half")
        drawn.savefig(half, format=path.suffix.removeprefix("."), dpi=PIXELS_PER_INCH, metadata=metadata)
        half.replace(path)
