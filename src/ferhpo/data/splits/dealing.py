"""The assignment of groups to parts when a group holds several classes, e.g. the images of one subject.

The algorithm is greedy, largest groups first, as in scikit-learn's StratifiedGroupKFold; but parts may differ in size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(
    labels: NDArray[np.int64], groups: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the part of each image, int64 [N]: part p gets about shares[p] of each class, and no group is divided.

    labels, groups: int64 [N]

    Each group is assigned to the part where it adds least to the sum of (have - want)^2 / want over all parts and
    classes, weighted by the inverse class size. All images together count as one more class with the weight of all the
    others, so that with few groups the sizes of the parts come first.
    """
    num_classes = int(labels.max(initial=0)) + 1
    _, group_of = np.unique(groups, return_inverse=True)
    num_groups = int(group_of.max(initial=-1)) + 1
    by_class = np.bincount(group_of * num_classes + labels, minlength=num_groups * num_classes)
    by_class = by_class.reshape(num_groups, num_classes)
    counts = np.column_stack([by_class, by_class.sum(axis=1)])
    importance = np.array([1] * num_classes + [num_classes])

    totals = np.maximum(counts.sum(axis=0), 1)
    want = np.outer(shares, totals)
    scale = importance / (np.maximum(want, 1e-9) * totals)  # a share may be 0
    have = np.zeros(want.shape)
    part_of = np.empty(num_groups, np.int64)
    shuffled = rng.permutation(num_groups)
    for group in shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]:
        added = (scale * counts[group] * (2 * (have - want) + counts[group])).sum(axis=1)
        part = int(added.argmin())
        have[part] += counts[group]
        part_of[group] = part
    return part_of[group_of]
