"""Find groups of images that no split may divide: identical images, images of one subject."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData


def identical_groups(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the images so that identical ones have one number; int64 [N], counted from 0 by first appearance."""
    numbers: dict[bytes, int] = {}
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    keys = (hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def image_groups(images: NDArray[np.uint8], subjects: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the images so that identical ones, and those of one subject, have one number; int64 [N].

    Two subjects who share an identical image become one group.
    """
    return joined_groups(identical_groups(images), subjects)


def joined_groups(identical: NDArray[np.int64], subjects: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the images so that those with one number in either have one number; int64 [N]."""
    if subjects is None:
        return identical
    _, subject = np.unique(subjects, return_inverse=True)
    joined = identical
    while True:  # each turn hands the lowest number on to whoever shares pixels or a subject with its bearer
        lowest = _lowest_of_each(_lowest_of_each(joined, subject), identical)
        if (lowest == joined).all():
            return joined
        joined = lowest


def _lowest_of_each(numbers: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    lowest = np.full(int(groups.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups, numbers)
    return lowest[groups]


def overlap_mask(data: FaceData) -> NDArray[np.bool_]:
    """True for images of val and test whose pixels also stand in train; bool [N]."""
    groups = identical_groups(data.images)
    return also_in(data.split, groups, VAL, TRAIN) | also_in(data.split, groups, TEST, TRAIN)


def also_in(split: NDArray[np.uint8], groups: NDArray[np.int64], code: int, other: int) -> NDArray[np.bool_]:
    """True for images of split `code` whose group also has an image in split `other`; bool [N]."""
    in_other = np.zeros(int(groups.max()) + 1, np.bool_)
    in_other[groups[split == other]] = True
    also: NDArray[np.bool_] = (split == code) & in_other[groups]
    return also
