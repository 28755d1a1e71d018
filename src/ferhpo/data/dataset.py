"""A data set in memory: the result of every reader, and the input of every trial.

Note: the arrays are read-only, because all trials on a node share one copy.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.errors import printable

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, 3
SPLIT_NAMES = ("train", "val", "test", "unused")
SUM_TOLERANCE = 1e-3  # of a row of soft targets


@dataclass(frozen=True)
class Part:
    """A sequence of consecutive images from one source.

    name: the name of the source, e.g. "main" or "ckplus"
    source: a description of what was read
    dropped: reasons why images of this source were left out, with the number of images for each
    train_only: whether the images were merged into the training images; they are never val or test images
    """

    name: str
    source: str
    num_images: int
    dropped: tuple[tuple[str, int], ...] = ()
    train_only: bool = False


@dataclass(frozen=True)
class FaceData:
    """Labeled face images and the split of each.

    images: uint8 [N, H, W] (gray) or [N, H, W, 3] (color), read-only
    labels: int64 [N], indices into class_names
    targets: float32 [N, len(class_names)], soft targets whose rows sum to 1 (FER+ vote shares), or None
    split: uint8 [N], TRAIN, VAL, TEST or UNUSED (outside a subset or a fold)
    class_names: in the order of the labels
    digest: SHA-256 over all of the above, and over groups if there are any
    source: a description of what was read, e.g. "fer2013.csv (competition CSV)"
    split_name: "published", "folder" or "random", followed by the fold if there is one
    groups: int64 [N]; a random split never divides images with the same number (e.g. images of one subject). None if
        only identical images form a group
    features: float32 [N, F] computed from the images (HOG), or None
    parts: the sources of the images, in their order; may be empty
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32] | None
    split: NDArray[np.uint8]
    class_names: tuple[str, ...]
    digest: str
    source: str
    split_name: str
    groups: NDArray[np.int64] | None = None
    features: NDArray[np.float32] | None = None
    parts: tuple[Part, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 1 if self.images.ndim == 3 else self.images.shape[3]

    @property
    def image_size(self) -> int:
        """The side of an image in pixels; images are square."""
        return int(self.images.shape[1])


def array_digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 over type, shape and values; it is the same on every machine."""
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little_endian.dtype.str} {array.shape}\n".encode())
    digest.update(little_endian.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def faults_of(data: FaceData) -> Iterator[str]:
    """Yield what is wrong with the arrays and the class names of a data set: argument, value, rule, remedy."""
    images, labels, split, targets, names = data.images, data.labels, data.split, data.targets, data.class_names
    shape: tuple[int, ...] = getattr(images, "shape", ())
    is_image = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if not _is_array(images, np.uint8) or not is_image or shape[1] != shape[2]:
        yield (
            f"images is {_kind(images)}; it must be uint8 [N, H, H] (gray) or [N, H, H, 3] (color) with values 0..255; "
            "make the images square, scale them to 0..255 and convert them with astype(np.uint8)"
        )
        return
    if not len(images):
        yield "images is empty; it must contain at least one image; check what the reader finds"
        return
    size = len(images)
    text = [name for name in names if isinstance(name, str) and name] if isinstance(names, tuple | list) else []
    if not text or len(set(text)) != len(names):
        yield f"class_names is {names!r:.200}; it must be a tuple of different names; give each class its own"
        return
    wrong = [
        f"{name} is {_kind(array)}; it must be {np.dtype(dtype).name} [{', '.join(map(str, expected))}], {rule}"
        for name, array, dtype, expected, rule in (
            ("labels", labels, np.int64, (size,), "a label for each image; convert it with astype(np.int64)"),
            ("split", split, np.uint8, (size,), "TRAIN, VAL, TEST or UNUSED for each image; convert it with "
             "astype(np.uint8)"),
            ("targets", targets, np.float32, (size, len(names)), "a row for each image and a column for each class; "
             "leave it out if there are only labels"),
            ("groups", data.groups, np.int64, (size,), "a number for each image; convert it with astype(np.int64)"),
        )
        if array is not None or name in ("labels", "split")
        if array is None or not _is_array(array, dtype) or array.shape != expected
    ]  # fmt: skip
    yield from wrong
    if wrong:
        return
    if labels.min() < 0 or labels.max() >= len(names):
        yield (
            f"labels is {_kind(labels)} with values {labels.min()}..{labels.max()}; it must be in 0..{len(names) - 1}, "
            f"because there are {len(names)} class_names; correct the labels or add names"
        )
    if split.max() > UNUSED:
        yield (
            f"split is {_kind(split)} with the value {split.max()}; it must be TRAIN ({TRAIN}), VAL ({VAL}), "
            f"TEST ({TEST}) or UNUSED ({UNUSED}); use these names from ferhpo.data.dataset"
        )
    if targets is not None and (not (targets >= 0).all() or np.abs(targets.sum(1) - 1).max() > SUM_TOLERANCE):
        yield (
            f"targets is {_kind(targets)} with values {targets.min():g}..{targets.max():g}; each row must be "
            "probabilities that sum to 1; divide each row by its sum"
        )
    if data.parts and sum(part.num_images for part in data.parts) != size:
        counts = [part.num_images for part in data.parts]
        yield f"parts is {counts} images; the sum must be {size}, the number of images; correct num_images"


def _is_array(value: Any, dtype: type) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def face_data(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    split: NDArray[np.uint8],
    class_names: tuple[str, ...],
    source: str,
    split_name: str,
    targets: NDArray[np.float32] | None = None,
    images_digest: str | None = None,
    groups: NDArray[np.int64] | None = None,
    parts: tuple[Part, ...] = (),
) -> FaceData:
    """Build a FaceData: make the arrays read-only and compute the digest. All readers use this function.

    images_digest: array_digest(images), if the caller already has it (the cache does), to save time
    Raises ValueError if an array has another type, shape or range than FaceData describes.
    """
    source = printable(source)  # it has the name of a file, and is shown in terminals and reports
    data = FaceData(images, labels, targets, split, class_names, "", source, split_name, groups, parts=parts)
    if faults := list(faults_of(data)):
        raise ValueError("; ".join(faults))
    images = np.ascontiguousarray(images)
    digests = {
        "images": images_digest or array_digest(images),
        "labels": array_digest(labels),
        "targets": None if targets is None else array_digest(targets),
        "split": array_digest(split),
        "class_names": class_names,
    }
    if groups is not None:  # data sets without groups keep the digests of earlier versions
        digests["groups"] = array_digest(groups)
    for array in (images, labels, targets, split, groups):
        if array is not None:
            array.setflags(write=False)
    digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    return replace(data, images=images, class_names=tuple(class_names), digest=digest)
