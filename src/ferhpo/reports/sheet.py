"""A sheet of small pictures and words, laid out by the pixel.

Matplotlib draws a grid of some hundred axes in ten seconds, and one picture made of them in no time. A sheet is
WIDTH pixels wide, so its words keep their size however many pictures it has; on a page of 700 pixels they are at 0.7.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from ferhpo.reports.style import PIXELS_PER_INCH, SEQUENTIAL, figure

WIDTH = 1008
WORD_POINTS = 10.0
MOST_OPAQUE = 0.8
LINE = 26  # pixels from one line of words to the next
BASELINE = 0.72  # of a line's height, from above
_PIXELS_PER_LETTER = 0.58 * WORD_POINTS * PIXELS_PER_INCH / 72


class Sheet:
    """White paper of WIDTH x height pixels. Places are pixels from the top left."""

    def __init__(self, height: int) -> None:
        self._paper = np.full((height, WIDTH, 3), 255, np.uint8)
        self._words: list[tuple[str, float, float, dict[str, Any]]] = []

    def picture(self, picture: NDArray[np.uint8], left: int, top: int, width: int, height: int | None = None) -> None:
        """Put uint8 [h, w, 3] there, enlarged without blurring."""
        height = height or width
        rows = np.arange(height) * picture.shape[0] // height
        columns = np.arange(width) * picture.shape[1] // width
        self._paper[top : top + height, left : left + width] = picture[rows][:, columns]

    def words(
        self, text: str, left: float, top: float, *, align: str = "left", colour: str = "black", bold: bool = False
    ) -> None:
        """Write lines, LINE pixels each, the first from top on; left is where `align` (left, center, right) says."""
        style: dict[str, Any] = {"ha": align, "color": colour, "weight": "bold" if bold else "normal"}
        for i, line in enumerate(text.splitlines()):
            self._words.append((line, left, top + (i + BASELINE) * LINE, style))

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        height = len(self._paper)
        with figure(path, WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH) as drawn:
            drawn.set_layout_engine("none")
            drawn.figimage(self._paper, resize=False)  # pixel by pixel; axes would resample it
            for text, left, baseline, style in self._words:
                drawn.text(left / WIDTH, 1 - baseline / height, text, va="baseline", size=WORD_POINTS, **style)


def shortened(text: str, pixels: int) -> str:
    """Return text cut such that it fits into so many pixels, about."""
    letters = max(int(pixels / _PIXELS_PER_LETTER), 2)
    return text if len(text) <= letters else text[: letters - 1] + "…"


def photograph(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] of pixels [C, H, W] in 0..255, grey or colour."""
    picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture.transpose(1, 2, 0), (*picture.shape[1:], 3)))


def marked(photo: NDArray[np.uint8], shares: NDArray[np.float32], colour: str) -> NDArray[np.uint8]:
    """Return a photograph [H, W, 3] over which a colour lies as densely as shares [H, W], 0..1, say."""
    opacity = MOST_OPAQUE * shares[..., None]
    blended: NDArray[np.float64] = (1 - opacity) * photo + opacity * 255 * np.array(mpl.colors.to_rgb(colour))
    return blended.astype(np.uint8)


def heat(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] of values [H, W] in the colours of maps, from dark at low to light at high."""
    share = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    return np.asarray(mpl.colormaps[SEQUENTIAL](share, bytes=True)[..., :3], np.uint8)
