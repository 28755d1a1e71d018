"""Which image trains, which validates and which tests.

Identical images are one group, and so are the images of one subject where a data set knows its subjects; a group is
never divided by a split drawn here. Published splits are taken as they are, and there identical images do cross:
`describe.overlap_mask` finds those.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData, face_data
from ferhpo.data.dealing import deal
from ferhpo.data.faults import is_number, is_whole, nearest, one_of
from ferhpo.errors import ConfigError, DataError

MAX_FOLDS = 1000


@dataclass(frozen=True)
class SplitOptions:
    """The keys about splits that all real data sets share.

    split: "published", "folder" (whatever is not for training validates; nothing tests) or "random"
    val_fraction, test_fraction: shares of the images, for "random"
    folds, fold: train and val together are cut into this many parts, and part `fold` (from 0) is val; test stays.
        Without `fold` a reader leaves them whole, also of train_subset: every trial cuts its folds (with_fold) itself
    split_seed: decides every draw made here
    train_subset: keep this many training images, stratified; the others become UNUSED. A smaller subset is part of a
        larger one.
    """

    split: str
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    folds: int | None = None
    fold: int | None = None
    split_seed: int = 0
    train_subset: int | None = None

    def faults(self, choices: Sequence[str]) -> list[str]:
        """One sentence for each key that cannot be."""
        faults = []
        if self.split not in choices:
            like = nearest(str(self.split), choices)
            hint = f"; did you mean {like}?" if like else ""
            faults.append(f"data.split is {self.split}, and it is {one_of(choices)}{hint}")
        for key, value, low in (("val", self.val_fraction, "above 0"), ("test", self.test_fraction, "from 0")):
            if not is_number(value) or value < 0 or value >= 1 or (key == "val" and value == 0):
                faults.append(f"data.{key}_fraction is {value}, and it is a share {low} and below 1; 0.1 is usual")
        if not faults and self.val_fraction + self.test_fraction >= 1:
            shares = f"data.val_fraction is {self.val_fraction} and data.test_fraction is {self.test_fraction}"
            faults.append(f"{shares}, which leaves nothing to train on; their sum must be below 1")
        faults += fold_faults(self.folds, self.fold)
        if not is_whole(self.split_seed):
            faults.append(f"data.split_seed is {self.split_seed}, and it is a whole number of 0 or more")
        if self.train_subset is not None and not is_whole(self.train_subset, 1):
            faults.append(f"data.train_subset is {self.train_subset}, and it is 1 or more; set null for all images")
        return faults


def fold_faults(folds: int | None, fold: int | None) -> list[str]:
    """One sentence for what cannot be of data.folds and data.fold."""
    if folds is not None and not is_whole(folds, 2):
        return [f"data.folds is {folds}, and folds are 2 or more; set null for none"]
    if folds is not None and folds > MAX_FOLDS:
        return [f"data.folds is {folds}, and {MAX_FOLDS:,} trainings for a trial are too many; 5 is usual"]
    if fold is not None and not is_whole(fold):
        return [f"data.fold is {fold}, and it is a whole number from 0; set null for all folds"]
    if folds is not None and fold is not None and not 0 <= fold < folds:
        return [f"data.fold is {fold}, and data.folds={folds} counts from 0 to {folds - 1}"]
    return []


def assign_splits(
    where: str,
    config_where: str,
    options: SplitOptions,
    published: NDArray[np.uint8] | None,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    usable: NDArray[np.bool_] | None = None,
    subjects: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.uint8], str]:
    """Return the split uint8 [N] and its name.

    where, config_where: starts of a DataError ("data.path is x") and a ConfigError ("data=fer2013")
    published: the split that the source gives, if any; needed unless options.split is "random"
    usable: False for images that belong to no split (no label)
    subjects: images of one number stay together, besides identical ones
    Raises DataError if nothing is left to train or validate on, ConfigError if train_subset is too large.
    """
    everyone = np.ones(len(labels), np.bool_) if usable is None else usable
    groups = image_groups(images, subjects) if options.split == "random" or options.folds else None
    if options.split == "random":
        assert groups is not None
        fractions = options.val_fraction, options.test_fraction
        split = random_split(labels, groups, *fractions, options.split_seed, everyone, subjects is not None)
    else:
        assert published is not None
        split = published.copy()
        if options.split == "folder":
            split[split != TRAIN] = VAL
        split[~everyone] = UNUSED
    if options.folds and options.fold is None:
        return split, options.split
    name = options.split
    if options.folds:
        assert groups is not None
        assert options.fold is not None
        split = k_fold(labels, groups, split, options.folds, options.fold, options.split_seed, subjects is not None)
        name = f"{name}, fold {options.fold} of {options.folds}"
    for code, words in ((TRAIN, "train on"), (VAL, "validate on")):
        if not (split == code).any():
            remedy = "" if options.split == "random" else "; set data.split=random"
            raise DataError(where, [f"data.split={options.split} leaves no image to {words}{remedy}"])
    if options.train_subset is not None:
        num_train = int((split == TRAIN).sum())
        if options.train_subset > num_train:
            rule = f"the train split has {num_train:,} images; set at most {num_train}, or null for all"
            raise ConfigError(config_where, [f"data.train_subset is {options.train_subset}, and {rule}"])
        split = keep_subset(labels, split, options.train_subset, options.split_seed)
    return split, name


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


def with_fold(data: FaceData, folds: int, fold: int, seed: int) -> FaceData:
    """Return the data with its TRAIN and VAL images cut into `folds` parts, of which part `fold` (from 0) validates.

    Images, labels and all else are shared with `data`; split, split_name and digest are new. TEST and UNUSED images
    stay. Parts are by groups, each class by its share, the same for the same seed; each image validates in one part,
    but for images that were merged into training: they always train, unless they are identical to one that validates.
    Raises ConfigError where a part would be empty, or all there is.
    """
    assert 0 <= fold < folds
    train_only = np.zeros(len(data.labels), np.bool_)
    if data.parts:
        train_only = np.repeat([part.train_only for part in data.parts], [part.num_images for part in data.parts])
    own = ~train_only
    identical = identical_groups(data.images)
    subjects = None if data.groups is None else data.groups[own]
    groups = joined_groups(identical[own], subjects)
    # Where no two images are of one subject, the parts are those of the same data set without subjects.
    by_subject = subjects is not None and len(np.unique(subjects)) < len(subjects)
    split = data.split.copy()
    split[own] = k_fold(data.labels[own], groups, split[own], folds, fold, seed, by_subject)
    validates = np.zeros(int(identical.max()) + 1, np.bool_)
    validates[identical[split == VAL]] = True
    split[train_only & (split == TRAIN) & validates[identical]] = UNUSED
    pool = (split[own] == TRAIN) | (split[own] == VAL)
    if len(np.unique(split[own][pool])) < 2:
        num_groups = len(np.unique(groups[pool]))
        rule = f"the {num_groups:,} groups of images to train and validate on do not fill so many; set fewer"
        raise ConfigError("data", [f"data.folds is {folds}, and {rule}"])
    name = f"{data.split_name}, fold {fold} of {folds}"
    folded = face_data(
        data.images, data.labels, split, data.class_names, data.source, name, data.targets, groups=data.groups
    )
    return replace(data, split=folded.split, split_name=name, digest=folded.digest)


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


def keep_subset(labels: NDArray[np.int64], split: NDArray[np.uint8], number: int, seed: int) -> NDArray[np.uint8]:
    """Keep `number` TRAIN images, each class by its share, and make the other TRAIN images UNUSED; uint8 [N].

    With one seed, a smaller subset is contained in every larger one.
    """
    train = np.flatnonzero(split == TRAIN)
    rng = np.random.default_rng([seed, 2])
    train = rng.permutation(train)
    # Space the images of each class evenly over [0, 1) and take the lowest: any prefix is stratified.
    order = np.empty(len(train))
    for label in np.unique(labels[train]):
        members = np.flatnonzero(labels[train] == label)
        order[members] = (np.arange(len(members)) + rng.random()) / len(members)
    out = split.copy()
    out[train[np.argsort(order, kind="stable")[number:]]] = UNUSED
    return out


def with_train_subset(data: FaceData, number: int, seed: int) -> FaceData:
    """Return the data with `number` TRAIN images kept, as keep_subset does, and the others UNUSED; all else is shared.

    Raises ConfigError where there are not so many.
    """
    num_train = int((data.split == TRAIN).sum())
    if number > num_train:
        rule = f"the train split of {data.split_name} has {num_train:,} images; set at most {num_train}, or null"
        raise ConfigError("data", [f"data.train_subset is {number}, and {rule}"])
    split = keep_subset(data.labels, data.split, number, seed)
    args = data.images, data.labels, split, data.class_names, data.source, data.split_name, data.targets
    return replace(data, split=split, digest=face_data(*args, groups=data.groups).digest)


def balanced_class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Weights N / (C * count) of the classes, float32 [C]; pass the labels of the training images.

    An image then weighs 1 on average. A class without images gets 0. Source: scikit-learn's class_weight="balanced".
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0).astype(np.float32)


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
