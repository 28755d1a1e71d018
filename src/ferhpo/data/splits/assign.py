"""Assign every image to train, val or test.

Published splits are used as they are. In those, identical images do occur in two splits: `overlap_mask` finds them.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, UNUSED, VAL, FaceData, face_data
from ferhpo.data.splits.draw import k_fold, random_split
from ferhpo.data.splits.groups import identical_groups, image_groups, joined_groups
from ferhpo.data.splits.options import SplitOptions
from ferhpo.errors import ConfigError, DataError


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
