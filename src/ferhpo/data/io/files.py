"""The decoding of images that come in files.

Note: everything has a limit, because a small file can describe an image that no memory holds.
"""

import io
import lzma
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ferhpo.data.io.faults import Faults, check_room, raise_faults
from ferhpo.data.io.tree import Tree
from ferhpo.errors import DataError, first_line

MAX_FILE_BYTES = 64 * 2**20  # one image, compressed
MAX_PIXELS = 40_000_000  # one image, decoded
# All images together may have BLANK_PIXELS, plus PIXELS_PER_BYTE per byte of their files. Photographs have up to 80.
BLANK_PIXELS, PIXELS_PER_BYTE = 2_000_000_000, 200
# zipfile raises RuntimeError if a password is needed and NotImplementedError for an unknown compression; OSError also
# comes from a file in a folder without read permission.
UNPACKING_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, OSError,
    ValueError, OverflowError, MemoryError,
)  # fmt: skip
MAX_SIDE = 4096  # pixels; of the squares that images are resized to
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# Takes the name of a file and the width and height of its image; returns left, top, right and bottom of the crop.
Crop = Callable[[str, int, int], tuple[int, int, int, int]]


def is_image(name: str) -> bool:
    """Return whether the name of a file has the suffix of an image."""
    return name.lower().endswith(SUFFIXES)


def decode_images(
    where: str,
    earlier: Faults,
    tree: Tree,
    names: Sequence[str],
    channels: int,
    image_size: int | None,
    only_size: int | None = None,
    crop: Crop | None = None,
) -> NDArray[np.uint8]:
    """Decode files into uint8 [N, S, S] (channels=1) or [N, S, S, 3].

    earlier: faults of the source found so far; they are raised together with those found here
    image_size: the side of the square that each image is resized to, its proportions not kept; None keeps images as
        they are, and all must be squares of one size
    only_size: refuse images that are not squares of this side, before any resizing
    crop: returns the part of each image to keep, before all else
    Raises DataError with every file that is not an image, is truncated or has a wrong size.
    """
    faults = Faults("file")
    budget = _Budget(where)
    shape = () if channels == 1 else (3,)
    out: NDArray[np.uint8] | None = None
    for index, name in enumerate(names):
        try:
            image = _decode(tree, name, channels, budget)
        except _Unreadable as error:
            faults.add(str(error), f"{name} {error}", name)
            continue
        if crop is not None:
            image = image.crop(crop(name, image.width, image.height))
        wanted = only_size or (None if image_size or out is None else out.shape[1])
        if (wanted and image.size != (wanted, wanted)) or (not image_size and image.width != image.height):
            rule = f"it must be {wanted}x{wanted}" if wanted else "it must be a square"
            remedy = "resize with data=image_folder and data.image_size" if only_size else "set data.image_size"
            faults.add("size", f"{name} is {image.width}x{image.height}; {rule}; {remedy}", name)
            continue
        if image_size and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
        if out is None:
            out = _zeros(where, (len(names), image.height, image.width, *shape))
        out[index] = np.asarray(image)
    raise_faults(where, earlier, faults)
    assert out is not None, "a source without files is an earlier fault"
    return out


def _zeros(where: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return zeros. Raises DataError if they do not fit in free memory; numpy fails only when zeros are overwritten."""
    size = f"{shape[0]:,} images of {shape[2]}x{shape[1]} need"
    check_room(where, math.prod(shape), "set a smaller data.image_size", size)
    try:
        return np.zeros(shape, np.uint8)
    except MemoryError:
        raise DataError(where, [f"{size} more memory than is free; set a smaller data.image_size"]) from None


def resize_images(where: str, images: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize images uint8 [N, H, W] or [N, H, W, 3] to squares, as decode_images does."""
    out = _zeros(where, (len(images), image_size, image_size, *images.shape[3:]))
    for index, image in enumerate(images):
        resized = Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BILINEAR)
        out[index] = np.asarray(resized)
    return out


def fault_of_size(num_bytes: int) -> str:
    """Return why a file is too large for an image, after its name; "" if it is not."""
    if num_bytes <= MAX_FILE_BYTES:
        return ""
    return f"is larger than {MAX_FILE_BYTES // 2**20} MB; remove it or make it smaller"


class _Budget:
    """The pixels that images may still have; it grows with the bytes of their files."""

    def __init__(self, where: str) -> None:
        self.where, self.num_bytes, self.pixels = where, 0, 0

    def spend(self, num_bytes: int, pixels: int) -> None:
        """Count an image that is about to be decoded. Raises DataError if the images are far emptier than faces are."""
        self.num_bytes += num_bytes
        self.pixels += pixels
        if self.pixels > BLANK_PIXELS + PIXELS_PER_BYTE * self.num_bytes:
            rule = f"its images have at least {self.pixels:,} pixels in files of {self.num_bytes:,} bytes"
            raise DataError(self.where, [f"{rule}; remove the images that show nothing, or make them smaller"])


class _Unreadable(Exception):  # noqa: N818 - describes a file
    """The reason why a file cannot be decoded to an image."""


def _decode(tree: Tree, name: str, channels: int, budget: _Budget) -> Image.Image:
    try:
        with tree.open_file(name) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except PermissionError:
        raise _Unreadable("is not readable (permission denied); change its permissions or copy it") from None
    except Exception as error:  # see faults.parsed
        raise _Unreadable(f"cannot be unpacked ({first_line(error)}); download the zip again") from error
    if not data:
        raise _Unreadable("is empty; remove it or download it again")
    if fault := fault_of_size(len(data)):
        raise _Unreadable(fault)
    too_large = f"it must have at most {MAX_PIXELS:,} pixels; remove it or make it smaller"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise _Unreadable(f"is {image.width}x{image.height}; {too_large}")
            if image.mode[0] in "IF":
                raise _Unreadable("has pixels of more than 8 bits; convert it to 8 bits")
            budget.spend(len(data), image.width * image.height)
            image.load()
            return _opaque(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except (_Unreadable, DataError):
        raise
    except UnidentifiedImageError as error:
        raise _Unreadable("is not an image; remove it") from error
    except Image.DecompressionBombError:
        raise _Unreadable(f"is too large; {too_large}") from None
    except MemoryError:
        raise _Unreadable("does not fit in memory; remove it or make it smaller") from None
    except Exception as error:  # see faults.parsed
        raise _Unreadable(f"cannot be decoded ({first_line(error)}); remove it or download it again") from error


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white where it is transparent, as browsers show it; any color may be below transparency."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
