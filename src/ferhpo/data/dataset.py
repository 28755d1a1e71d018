"""A data set in memory: the result of every reader, and the input of every trial.

Note: the arrays are read-only, because all trials on a node share one copy.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.errors import printable

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, 3
SPLIT_NAMES = ("train", "val", "test", "unused")


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
    """
    assert len(images) == len(labels) == len(split)
    assert not parts or sum(part.num_images for part in parts) == len(images)
    assert groups is None or (groups.dtype == np.int64 and len(groups) == len(images))
    assert labels.dtype == np.int64
    assert split.dtype == np.uint8
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
    source = printable(source)  # it has the name of a file, and is shown in terminals and reports
    return FaceData(images, labels, targets, split, class_names, digest, source, split_name, groups, parts=parts)
