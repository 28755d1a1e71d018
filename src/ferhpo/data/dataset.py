"""A data set in memory: what every reader returns and every trial shares.

The arrays are read-only, because all trials of a node share one copy: never write into them.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, 3
SPLIT_NAMES = ("train", "val", "test", "unused")


@dataclass(frozen=True)
class FaceData:
    """Labelled face images with the split of each.

    images: uint8 [N, H, W] grey or [N, H, W, 3] colour, read-only
    labels: int64 [N], indices into class_names
    targets: float32 [N, len(class_names)] soft targets whose rows sum to 1 (FER+ vote shares), or None
    split: uint8 [N], TRAIN, VAL, TEST or UNUSED (outside a subset or a fold)
    class_names: in the order of the labels
    digest: sha256 over all of the above, and over groups where there are any
    source: what was read, in words, as "fer2013.csv (competition CSV)"
    split_name: "published", "folder" or "random", with the fold where there are folds
    groups: int64 [N], images of one number are never divided by a drawn split (identical images, one subject's);
        None where only identical images are a group
    features: float32 [N, F] computed from the images (HOG), or None
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

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 1 if self.images.ndim == 3 else self.images.shape[3]

    @property
    def image_size(self) -> int:
        """Height of an image in pixels; images are square."""
        return int(self.images.shape[1])


def array_digest(array: NDArray[Any]) -> str:
    """Sha256 over type, shape and values; the same on every machine."""
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
) -> FaceData:
    """Make the arrays read-only and compute the digest; the one way in which readers build a FaceData.

    images_digest: array_digest(images) where the caller knows it already (the cache does), to save its time.
    """
    assert len(images) == len(labels) == len(split)
    assert groups is None or (groups.dtype == np.int64 and len(groups) == len(images))
    assert labels.dtype == np.int64
    assert split.dtype == np.uint8
    images = np.ascontiguousarray(images)
    parts = {
        "images": images_digest or array_digest(images),
        "labels": array_digest(labels),
        "targets": None if targets is None else array_digest(targets),
        "split": array_digest(split),
        "class_names": class_names,
    }
    if groups is not None:  # only then: the digests of data sets without groups stay what they were
        parts["groups"] = array_digest(groups)
    for array in (images, labels, targets, split, groups):
        if array is not None:
            array.setflags(write=False)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return FaceData(images, labels, targets, split, class_names, digest, source, split_name, groups)
