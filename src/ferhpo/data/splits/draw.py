"""Draw random splits and folds that keep groups whole."""

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL
from ferhpo.data.splits.dealing import deal


def random_split(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    usable: NDArray[np.bool_] | None = None,
    by_subject: bool = False,
) -> NDArray[np.uint8]:
    """Draw a split by groups, class by class; uint8 [N].

    Each class gives its share to val and test, off by at most one group at each border.
    by_subject: groups hold several classes, as those of subjects do, and shares are as near as such groups allow
    """
    usable = np.ones(len(labels), np.bool_) if usable is None else usable
    rng = np.random.default_rng([seed, 0])
    split = np.full(len(labels), TRAIN, np.uint8)
    if by_subject:
        shares = test_fraction, val_fraction, 1 - val_fraction - test_fraction
        split[usable] = np.array([TEST, VAL, TRAIN], np.uint8)[deal(labels[usable], groups[usable], shares, rng)]
        split[~usable] = UNUSED
        return split
    place = _place_in_class(labels, groups, usable, rng)
    split[place < val_fraction + test_fraction] = VAL
    split[place < test_fraction] = TEST
    split[~usable] = UNUSED
    return split


def k_fold(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    split: NDArray[np.uint8],
    folds: int,
    fold: int,
    seed: int,
    by_subject: bool = False,
) -> NDArray[np.uint8]:
    """Pool TRAIN and VAL, cut the pool by groups into `folds` stratified parts, and make part `fold` VAL; uint8 [N].

    by_subject: as for random_split
    """
    pool = (split == TRAIN) | (split == VAL)
    rng = np.random.default_rng([seed, 1])
    out = split.copy()
    if by_subject:
        part = deal(labels[pool], groups[pool], [1 / folds] * folds, rng)
        out[pool] = np.where(part == fold, VAL, TRAIN)
        return out
    place = _place_in_class(labels, groups, pool, rng, turn=True)
    out[pool] = np.where((place[pool] * folds).astype(np.int64) == fold, VAL, TRAIN)
    return out


def _place_in_class(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    usable: NDArray[np.bool_],
    rng: np.random.Generator,
    turn: bool = False,
) -> NDArray[np.float64]:
    """Put groups in a random order within their class and say where each image's group stands, in [0, 1); float64 [N].

    A group's class is that of its first usable image. Places are middles of groups, so cutting at a share errs by at
    most half a group. Images that are not usable get 2.
    turn: start each class at a point of its own, so that rare classes do not all land in the same fold
    """
    place = np.full(len(labels), 2.0)
    used = np.flatnonzero(usable)
    _, first, group_of, sizes = np.unique(groups[used], return_index=True, return_inverse=True, return_counts=True)
    group_of = group_of.reshape(-1)  # numpy 2.0 gave it the shape of its input
    group_label = labels[used][first]
    group_place = np.empty(len(sizes))
    for label in np.unique(group_label):
        members = rng.permutation(np.flatnonzero(group_label == label))
        ends = np.cumsum(sizes[members])
        start = rng.random() if turn else 0.0
        group_place[members] = ((ends - sizes[members] / 2) / ends[-1] + start) % 1.0
    place[used] = group_place[group_of]
    return place
