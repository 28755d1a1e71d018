"""A sheet of small pictures and words, laid out by the pixel.

A figure of matplotlib's with some hundred axes takes ten seconds, this a tenth of one. A sheet is WIDTH pixels wide
however many pictures it has, so its words keep their size; on a page of 700 pixels they are at 0.7.
"""

from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ferhpo.reports.style import SEQUENTIAL

WIDTH = 1008
LETTER = 20  # pixels, height of the words
LINE = 26  # pixels from one line of words to the next
BASELINE = 0.74  # of a line's height, from above
MOST_OPAQUE = 0.8
ANCHORS = {"left": "ls", "center": "ms", "right": "rs"}  # at the baseline


class Sheet:
    """Paper of WIDTH x height pixels. Places are pixels from the top left."""

    def __init__(self, height: int, ground: str = "white") -> None:
        self._paper = Image.new("RGB", (WIDTH, height), ground)
        self._pen = ImageDraw.Draw(self._paper)

    def picture(self, picture: NDArray[np.uint8], left: int, top: int, width: int, height: int | None = None) -> None:
        """Put uint8 [h, w, 3] there, enlarged without blurring."""
        size = (width, width if height is None else height)
        self._paper.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, top))

    def words(
        self, text: str, left: float, top: float, *, align: str = "left", colour: str = "black", bold: bool = False
    ) -> None:
        """Write lines, LINE pixels each, the first from top on; left is where `align` (left, center, right) says."""
        for i, line in enumerate(text.splitlines()):
            place = (left, top + (i + BASELINE) * LINE)
            self._pen.text(place, line, fill=colour, font=_font(bold), anchor=ANCHORS[align])

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        self._paper.save(path)


def shortened(text: str, pixels: float, suffix: str = "", bold: bool = False) -> str:
    """Return text and suffix, the text cut such that both fit into so many pixels. Its first letter always stays."""
    font = _font(bold)
    cut, length = text + suffix, len(text)
    while length > 1 and font.getlength(cut) > pixels:
        length -= 1
        cut = f"{text[:length]}…{suffix}"
    return cut


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
    return _colours()[np.rint(share * 255).astype(np.uint8)]


@cache
def _colours() -> NDArray[np.uint8]:
    return np.asarray(mpl.colormaps[SEQUENTIAL](np.arange(256), bytes=True)[:, :3], np.uint8)


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, so that a sheet looks like a figure."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, LETTER)
