"""Groups of images that no split may divide: identical images, and images of one subject."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData


def identical_groups(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the images so that identical images share a number; int64 [N], counted from 0 by first appearance."""
    numbers: dict[bytes, int] = {}
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    keys = (hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def image_groups(images: NDArray[np.uint8], subjects: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the images so that identical images and images of one subject share a number; int64 [N].

    Two subjects that share an identical image form one group.
    """
    return joined_groups(identical_groups(images), subjects)


def joined_groups(identical: NDArray[np.int64], subjects: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the images so that images that share a number in either array share one in the result; int64 [N]."""
    if subjects is None:
        return identical
    _, subject = np.unique(subjects, return_inverse=True)
    joined = identical
    while True:  # each pass gives the lowest number to all images that share pixels or a subject with its owner
        lowest = _lowest_of_each(_lowest_of_each(joined, subject), identical)
        if (lowest == joined).all():
            return joined
        joined = lowest


def _lowest_of_each(numbers: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    lowest = np.full(int(groups.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups, numbers)
    return lowest[groups]


def overlap_mask(data: FaceData) -> NDArray[np.bool_]:
    """Return a mask of the val and test images that have an identical image in train; bool [N]."""
    groups = identical_groups(data.images)
    return also_in(data.split, groups, VAL, TRAIN) | also_in(data.split, groups, TEST, TRAIN)


def also_in(split: NDArray[np.uint8], groups: NDArray[np.int64], code: int, other: int) -> NDArray[np.bool_]:
    """Return a mask of the images of split `code` whose group also has an image in split `other`; bool [N]."""
    in_other = np.zeros(int(groups.max()) + 1, np.bool_)
    in_other[groups[split == other]] = True
    also: NDArray[np.bool_] = (split == code) & in_other[groups]
    return also
