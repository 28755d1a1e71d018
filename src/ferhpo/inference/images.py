"""Images as users have them, to pixels as a network was trained on: arrays, files as bytes, or files as base64 text.

Note: gray levels, transparency, rotation and resizing are those of ferhpo.data.io.files, which reads the training
images; another way of resizing alone changes predictions.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS_READ = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 40_000_000  # of one image
MIN_SIDE = 8  # of the images in one array: [H, W, 3] is one color image, not H gray images that are 3 pixels wide
ACCEPTED = (
    "an array uint8 [N, height, width] (gray) or [N, height, width, 3] (color), or a list or a table column of images: "
    "arrays uint8, bytes of PNG or JPEG files, or their base64 text"
)
Images = Sequence[Any] | NDArray[Any]


def images_in(given: Any) -> Images:
    """Return the images in the input of a model: an array [N, ...], a list, or a table with one column of images.

    Raises ValueError for anything else.
    """
    if isinstance(given, str | bytes | bytearray | Image.Image):
        return [given]
    columns = getattr(given, "columns", given) if not isinstance(given, np.ndarray) else ()
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        names = list(columns)
        if len(names) != 1 and "image" not in names:
            raise ValueError(f"the input has the columns {', '.join(map(str, names))}; one must be named image")
        return images_in(given["image" if "image" in names else names[0]])
    if hasattr(given, "to_numpy"):  # a column of a table
        given = list(given)
    if isinstance(given, np.ndarray) and given.dtype.kind in "OSU":
        given = given.reshape(-1).tolist() if given.ndim < 2 else _numbers(given)
    if isinstance(given, np.ndarray):
        if given.ndim not in (3, 4) or (given.ndim == 3 and len(given) and min(given.shape[1:]) < MIN_SIDE):
            one = "; put a single image in a list" if given.ndim in (2, 3) else ""
            raise ValueError(f"the input is an array of shape {list(given.shape)}; it must be {ACCEPTED}{one}")
        return given
    if isinstance(given, list | tuple):
        return given
    raise ValueError(f"the input is {type(given).__name__}; it must be {ACCEPTED}")


def pixels_of(images: Images, channels: int, image_size: int, first: int = 0) -> NDArray[np.uint8]:
    """Return images as uint8 [N, S, S] (one channel) or [N, S, S, 3], S being `image_size`.

    first: the number of the first one, for messages. Raises ValueError with the number of an image that cannot be read.
    """
    shape = (image_size, image_size) if channels == 1 else (image_size, image_size, 3)
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == shape:
        return images
    out = np.zeros((len(images), *shape), np.uint8)
    for number, image in enumerate(images):
        try:
            picture = _without_transparency(_opened(image)).convert("L" if channels == 1 else "RGB")
        except _NotAnImage as error:
            raise ValueError(f"image {first + number} {error}") from None
        if picture.size != (image_size, image_size):
            picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        out[number] = np.asarray(picture)
    return out


class _NotAnImage(Exception):  # noqa: N818 - describes an image
    """What is wrong with an image, after its name."""


def _opened(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image)
    if isinstance(image, str):
        image = _decoded(image)
    if isinstance(image, bytes | bytearray):
        return _read(bytes(image))
    if isinstance(image, list):
        image = _numbers(image)
    if not isinstance(image, np.ndarray):
        raise _NotAnImage(f"is {type(image).__name__}; it must be an array uint8, bytes, or base64 text")
    pixels = _checked(image)
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _numbers(nested: Any) -> NDArray[Any]:
    """Return nested lists as an array, as JSON has them."""
    try:
        return np.array(nested.tolist() if isinstance(nested, np.ndarray) else nested)
    except ValueError:
        return np.array(None)


def _checked(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    shape = list(pixels.shape)
    if pixels.ndim not in (2, 3) or 0 in shape or (pixels.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise _NotAnImage(f"has the shape {shape}; it must be [height, width] (gray) or [height, width, 3] (color)")
    if pixels.dtype == np.uint8:
        return pixels
    whole = pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255
    if not whole:
        raise _NotAnImage(f"has pixels of type {pixels.dtype}; they must be uint8, whole numbers from 0 to 255")
    return pixels.astype(np.uint8)


def _decoded(text: str) -> bytes:
    start, _, rest = text.partition(",")
    try:
        return base64.b64decode("".join((rest if start.startswith("data:") else text).split()), validate=True)
    except (binascii.Error, ValueError):
        shown = f"{text[:40]}..." if len(text) > 40 else text
        raise _NotAnImage(
            f"is the text {shown!r}; text must be the base64 of an image file; for a file, give its bytes"
        ) from None


def _read(content: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS_READ) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _NotAnImage(f"is {image.width}x{image.height}; it must have at most {MOST_PIXELS:,} pixels")
            if image.mode[0] in "IF":
                raise _NotAnImage("has pixels of more than 8 bits; convert it to 8 bits")
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "" if not content or "cannot identify" in str(error) else f" ({error})"
        kind = "is empty" if not content else f"is not a readable PNG or JPEG file{reason}"
        raise _NotAnImage(f"{kind}; give the whole content of an image file") from None


def _without_transparency(image: Image.Image) -> Image.Image:
    """Return the image on white."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
