"""Random splits and folds that keep groups of images whole."""

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
    """Draw a stratified split that keeps groups whole; uint8 [N].

    val and test get their fraction of each class, to within one group.
    by_subject: groups hold several classes, as the images of a subject do; fractions are then as close as these allow
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
    """Cut TRAIN and VAL together into `folds` stratified parts of whole groups and make part `fold` VAL; uint8 [N].

    by_subject: see random_split
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
    """Order the groups of each class at random and return the place of each image's group in [0, 1); float64 [N].

    The class of a group is that of its first usable image. The place is the middle of the group, so that a cut at a
    fraction is off by at most half a group. Images that are not usable get 2.
    turn: start each class at a random place, so that rare classes do not all end up in the same fold
    """
    place = np.full(len(labels), 2.0)
    used = np.flatnonzero(usable)
    _, first, group_of, sizes = np.unique(groups[used], return_index=True, return_inverse=True, return_counts=True)
    group_of = group_of.reshape(-1)  # numpy 2.0 returns it in the shape of its input
    group_label = labels[used][first]
    group_place = np.empty(len(sizes))
    for label in np.unique(group_label):
        members = rng.permutation(np.flatnonzero(group_label == label))
        ends = np.cumsum(sizes[members])
        start = rng.random() if turn else 0.0
        group_place[members] = ((ends - sizes[members] / 2) / ends[-1] + start) % 1.0
    place[used] = group_place[group_of]
    return place
