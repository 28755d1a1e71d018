"""Folders and zips as lists of files that can be opened by name, and the decoding of their images.

Note: nothing is extracted to disk; members of a zip are read into memory one by one. A zip with a path outside its own
folder is still refused, because the user may unpack it with another tool.
"""

import io
import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ferhpo.data.io.faults import Faults, raise_faults
from ferhpo.errors import DataError

MAX_DEPTH = 5  # folders below the root
MAX_NAMES = 2_000_000  # files and folders below the root; AffectNet has 1,000,000
MAX_FILE_BYTES = 64 * 2**20  # one image, compressed
MAX_PIXELS = 40_000_000  # one image, decoded
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
_LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Tree:
    """The files and folders in a folder or zip; names are relative, sorted, and separated by "/"."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    open_file: Callable[[str], IO[bytes]]


def tree_names(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of all files and all folders below a folder, without files that operating systems add.

    Raises DataError for a link to a folder above itself, and for more files than a data set has.
    """
    names: list[str] = []
    folders: list[str] = []

    def walk(folder: str, above: tuple[tuple[int, int], ...]) -> None:
        with _readable(root / folder), os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if _is_left_by_system(entry.name):
                    continue
                if _is_there(entry.is_file):  # not a dead link, nor a pipe or device that would block when opened
                    names.append(name)
                elif _is_there(entry.is_dir) and len(above) <= MAX_DEPTH:
                    folders.append(name)
                    own = _identity(root / name)
                    if own in above:
                        rule = f"{name} leads back to a folder that it is in, by a link; remove the link"
                        raise DataError(f"data.path is {root}", [rule])
                    walk(name, (*above, own))
                if len(names) + len(folders) > MAX_NAMES:
                    rule = f"it has more than {MAX_NAMES:,} files and folders; set a folder that has only the images"
                    raise DataError(f"data.path is {root}", [rule])

    with _readable(root):
        top = _identity(root)
    walk("", (top,))
    return sorted(names), sorted(folders)


def _identity(folder: Path) -> tuple[int, int]:
    """Return what links to a folder and the folder itself have in common."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_there(test: Callable[[], bool]) -> bool:
    """Return the result of the test, and False for a link that leads to itself."""
    try:
        return test()
    except OSError:
        return False


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        rule = f"the folder cannot be read ({error.strerror}); ask for the permission"
        raise DataError(str(folder), [rule]) from None


@contextmanager
def open_tree(where: str, path: Path) -> Iterator[Tree]:
    """Open a folder or a zip. Raises DataError for a zip that is unreadable or has a path outside its own folder."""
    if path.is_dir():
        names, folders = tree_names(path)
        yield Tree(tuple(names), tuple(folders), lambda name: (path / name).open("rb"))
        return
    try:
        archive = zipfile.ZipFile(path)
    except UNPACKING_ERRORS as error:
        raise DataError(where, [f"it is not a readable zip ({error}); download the file again"]) from error
    with archive:
        members = [info.filename for info in archive.infolist()]
        if len(members) > MAX_NAMES:
            raise DataError(where, [f"the zip has more than {MAX_NAMES:,} files; pack only the images"])
        climbing = Faults("path")
        for name in members:
            if _climbs(name):
                climbing.add("climbs", f"the zip has {name}, a path outside its own folder; nothing was read", name)
        raise_faults(where, climbing)
        kept = [name for name in members if not any(map(_is_left_by_system, PurePosixPath(name).parts))]
        files = tuple(sorted(name for name in kept if not name.endswith("/")))
        parents = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        folders_in_zip = tuple(sorted(parents | {name.rstrip("/") for name in kept if name.endswith("/")}))
        yield Tree(files, folders_in_zip, archive.open)


def _climbs(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or parts[0].endswith(":")


def _is_left_by_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


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
    shape = () if channels == 1 else (3,)
    out: NDArray[np.uint8] | None = None
    for index, name in enumerate(names):
        try:
            image = _decode(tree, name, channels)
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
    """Return zeros. Raises DataError if they would not fit in the memory of the machine."""
    rule = f"{shape[0]:,} images of {shape[2]}x{shape[1]} do not fit in memory"
    if math.prod(shape) > psutil.virtual_memory().total:  # numpy would only fail when the zeros are overwritten
        raise DataError(where, [f"{rule}; set a smaller data.image_size"])
    try:
        return np.zeros(shape, np.uint8)
    except MemoryError:
        raise DataError(where, [f"{rule}; set a smaller data.image_size"]) from None


def resize_images(images: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize images uint8 [N, H, W] or [N, H, W, 3] to squares, as decode_images does."""
    side = (image_size, image_size)
    return np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in images])


class _Unreadable(Exception):  # noqa: N818 - describes a file
    """The reason why a file cannot be decoded to an image."""


def _decode(tree: Tree, name: str, channels: int) -> Image.Image:
    try:
        with tree.open_file(name) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except PermissionError:
        raise _Unreadable("is not readable (permission denied); change its permissions or copy it") from None
    except UNPACKING_ERRORS as error:
        raise _Unreadable(f"cannot be unpacked ({error}); download the zip again") from error
    if not data:
        raise _Unreadable("is empty; remove it or download it again")
    if len(data) > MAX_FILE_BYTES:
        raise _Unreadable(f"is larger than {MAX_FILE_BYTES // 2**20} MB; remove it or make it smaller")
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
            image.load()
            return _opaque(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise _Unreadable("is not an image; remove it") from error
    except Image.DecompressionBombError:
        raise _Unreadable(f"is too large; {too_large}") from None
    except MemoryError:
        raise _Unreadable("does not fit in memory; remove it or make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _Unreadable(f"cannot be decoded ({error}); remove it or download it again") from error


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white where it is transparent, as browsers show it; any color may be below transparency."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
