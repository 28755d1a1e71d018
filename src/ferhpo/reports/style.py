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

# Okabe and Ito, "Color Universal Design", 2008; black last, for lines of reference
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SEQUENTIAL = "cividis"  # for matrices and maps: even in lightness, the same to all eyes
PIXELS_PER_INCH = 144
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


@contextmanager
def figure(path: Path, width_inches: float = 7.0, height_inches: float = 4.0) -> Iterator[Figure]:
    """Draw a figure and write it at the end of the block; the suffix, .svg or .png, is the format."""
    with mpl.rc_context(_SETTINGS):
        drawn = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield drawn
        metadata = {"Date": None} if path.suffix == ".svg" else None
        drawn.savefig(path, dpi=PIXELS_PER_INCH, metadata=metadata)
