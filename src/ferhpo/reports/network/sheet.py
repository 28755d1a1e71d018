"""A sheet of small pictures and text, positioned in pixels.

A matplotlib figure with a hundred axes takes ten seconds, a sheet a tenth of a second. A sheet is WIDTH pixels wide
however many pictures it has, so that text has the same size on all sheets; a page scales it by about 0.7.
"""

from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ferhpo.reports.style import SEQUENTIAL

WIDTH = 1008
FONT_SIZE = 20  # pixels
LINE = 26  # pixels from one line of text to the next
BASELINE = 0.74  # as a fraction of the line height, from the top
MOST_OPAQUE = 0.8
ANCHORS = {"left": "ls", "center": "ms", "right": "rs"}  # at the baseline


class Sheet:
    """A canvas of WIDTH x height pixels. Positions are in pixels from the top left."""

    def __init__(self, height: int, background: str = "white") -> None:
        self._image = Image.new("RGB", (WIDTH, height), background)
        self._pen = ImageDraw.Draw(self._image)

    def picture(self, picture: NDArray[np.uint8], left: int, top: int, width: int, height: int | None = None) -> None:
        """Draw a picture uint8 [h, w, 3], enlarged without interpolation."""
        size = (width, width if height is None else height)
        self._image.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, top))

    def words(
        self, text: str, left: float, top: float, *, align: str = "left", color: str = "black", bold: bool = False
    ) -> None:
        """Draw lines of text, LINE pixels each; `left` is their left end, center or right end, as `align` says."""
        for i, line in enumerate(text.splitlines()):
            position = (left, top + (i + BASELINE) * LINE)
            self._pen.text(position, line, fill=color, font=_font(bold), anchor=ANCHORS[align])

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        self._image.save(path)


def shortened(text: str, pixels: float, suffix: str = "", bold: bool = False) -> str:
    """Return text and suffix, with the text cut so that both fit; at least its first letter is kept."""
    font = _font(bold)
    cut, length = text + suffix, len(text)
    while length > 1 and font.getlength(cut) > pixels:
        length -= 1
        cut = f"{text[:length]}…{suffix}"
    return cut


def photograph(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels [C, H, W] in 0..255, gray or color, as uint8 [H, W, 3]."""
    picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture.transpose(1, 2, 0), (*picture.shape[1:], 3)))


def marked(photo: NDArray[np.uint8], shares: NDArray[np.float32], color: str) -> NDArray[np.uint8]:
    """Return a photograph [H, W, 3] overlaid with a color whose opacity is proportional to shares [H, W], 0..1."""
    opacity = MOST_OPAQUE * shares[..., None]
    blended: NDArray[np.float64] = (1 - opacity) * photo + opacity * 255 * np.array(mpl.colors.to_rgb(color))
    return blended.astype(np.uint8)


def heat(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Return values [H, W] as colors uint8 [H, W, 3], from dark at low to light at high."""
    share = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    return _colors()[np.rint(share * 255).astype(np.uint8)]


@cache
def _colors() -> NDArray[np.uint8]:
    return np.asarray(mpl.colormaps[SEQUENTIAL](np.arange(256), bytes=True)[:, :3], np.uint8)


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """Load the font of matplotlib, so that a sheet matches the figures."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, FONT_SIZE)
