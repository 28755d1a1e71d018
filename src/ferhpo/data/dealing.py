"""Deals groups of images out to parts where a group holds several classes, as the images of one subject do.

Greedy, the largest groups first, each to the part that lacks its classes most; so scikit-learn's StratifiedGroupKFold
goes about it too, for parts of one size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(
    labels: NDArray[np.int64], groups: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the part of each image, int64 [N]: part p gets about shares[p] of each class, and a group is in one part.

    labels, groups: int64 [N]
    """
    num_classes = int(labels.max(initial=0)) + 1
    _, group_of = np.unique(groups, return_inverse=True)
    num_groups = int(group_of.max(initial=-1)) + 1
    counts = np.bincount(group_of * num_classes + labels, minlength=num_groups * num_classes)
    counts = counts.reshape(num_groups, num_classes)
    # A missing image of a rare class weighs as much as the same share of a frequent one.
    weights = counts / np.maximum(counts.sum(axis=0), 1) ** 2
    lacks = np.outer(shares, counts.sum(axis=0))
    part_of = np.empty(num_groups, np.int64)
    shuffled = rng.permutation(num_groups)
    for group in shuffled[np.argsort(-counts[shuffled].max(axis=1), kind="stable")]:
        part = int((lacks @ weights[group]).argmax())
        lacks[part] -= counts[group]
        part_of[group] = part
    return part_of[group_of]
