"""The assignment of every image to train, val or test.

Note: published splits are used as they are, and identical images do occur in two of them; `overlap_mask` finds these.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, UNUSED, VAL, FaceData, face_data
from ferhpo.data.splits.draw import k_fold, random_split
from ferhpo.data.splits.groups import identical_groups, image_groups, joined_groups
from ferhpo.data.splits.options import SplitOptions
from ferhpo.data.splits.remedies import remedy_for_empty
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
    """Return the split of every image, uint8 [N], and the name of the split.

    where, config_where: the first words of a DataError ("data.path is x") and of a ConfigError ("data=fer2013")
    published: the split that the source defines, if any; required unless options.split is "random"
    usable: False for images without a usable label; they become UNUSED
    subjects: int64 [N]; images with the same number are kept together, as identical images are
    Raises DataError if no image is left to train or validate on, ConfigError if train_subset is too large.
    """
    if usable is None:
        usable = np.ones(len(labels), np.bool_)
    groups = image_groups(images, subjects) if options.split == "random" or options.folds else None
    if options.split == "random":
        assert groups is not None
        fractions = options.val_fraction, options.test_fraction
        split = random_split(labels, groups, *fractions, options.split_seed, usable, subjects is not None)
    else:
        assert published is not None
        split = published.copy()
        if options.split == "folder":
            split[split != TRAIN] = VAL
        split[~usable] = UNUSED
    if options.folds and options.fold is None:
        return split, options.split
    name = options.split
    if options.folds:
        assert groups is not None
        assert options.fold is not None
        split = k_fold(labels, groups, split, options.folds, options.fold, options.split_seed, subjects is not None)
        name = f"{name}, fold {options.fold} of {options.folds}"
    for code, purpose in ((TRAIN, "train on"), (VAL, "validate on")):
        if not (split == code).any():
            groups = image_groups(images, subjects) if groups is None else groups
            remedy = remedy_for_empty(options, labels, groups, usable, subjects is not None)
            raise DataError(where, [f"data.split={options.split} leaves no image to {purpose}; {remedy}"])
    if options.train_subset is not None:
        num_train = int((split == TRAIN).sum())
        if options.train_subset > num_train:
            rule = f"it must be at most {num_train}, the number of training images, or null for all"
            raise ConfigError(config_where, [f"data.train_subset is {options.train_subset}; {rule}"])
        split = keep_subset(labels, split, options.train_subset, options.split_seed)
    return split, name


def with_fold(data: FaceData, folds: int, fold: int, seed: int) -> FaceData:
    """Cut the TRAIN and VAL images into `folds` parts and make part `fold`, counted from 0, the new VAL.

    The result shares all arrays with `data` except `split`; split_name and digest are new. TEST and UNUSED images do
    not change. Parts keep groups of images whole, are stratified by class and depend on the seed alone. Every image is
    in VAL in exactly one fold, except images that were merged into training: these are always in TRAIN, or UNUSED in
    the fold whose VAL has an identical image.
    Raises ConfigError if a part would be empty, or would hold every image.
    """
    assert 0 <= fold < folds
    train_only = np.zeros(len(data.labels), np.bool_)
    if data.parts:
        train_only = np.repeat([part.train_only for part in data.parts], [part.num_images for part in data.parts])
    own = ~train_only
    identical = identical_groups(data.images)
    subjects = None if data.groups is None else data.groups[own]
    groups = joined_groups(identical[own], subjects)
    # If no two images show the same subject, the parts equal those of the same data set without subjects.
    by_subject = subjects is not None and len(np.unique(subjects)) < len(subjects)
    split = data.split.copy()
    split[own] = k_fold(data.labels[own], groups, split[own], folds, fold, seed, by_subject)
    validates = np.zeros(int(identical.max()) + 1, np.bool_)
    validates[identical[split == VAL]] = True
    split[train_only & (split == TRAIN) & validates[identical]] = UNUSED
    pool = (split[own] == TRAIN) | (split[own] == VAL)
    if len(np.unique(split[own][pool])) < 2:
        num_groups = len(np.unique(groups[pool]))
        rule = f"the train and val images form {num_groups:,} groups, too few for so many folds; set fewer"
        raise ConfigError("data", [f"data.folds is {folds}; {rule}"])
    name = f"{data.split_name}, fold {fold} of {folds}"
    folded = face_data(
        data.images, data.labels, split, data.class_names, data.source, name, data.targets, groups=data.groups
    )
    return replace(data, split=folded.split, split_name=name, digest=folded.digest)


def keep_subset(labels: NDArray[np.int64], split: NDArray[np.uint8], number: int, seed: int) -> NDArray[np.uint8]:
    """Keep `number` TRAIN images, stratified by class, and make the other TRAIN images UNUSED; uint8 [N].

    For the same seed, a smaller subset is contained in every larger one.
    """
    train = np.flatnonzero(split == TRAIN)
    rng = np.random.default_rng([seed, 2])
    train = rng.permutation(train)
    # The images of each class are spaced evenly over [0, 1) and the lowest are taken, so that any prefix is stratified.
    order = np.empty(len(train))
    for label in np.unique(labels[train]):
        members = np.flatnonzero(labels[train] == label)
        order[members] = (np.arange(len(members)) + rng.random()) / len(members)
    out = split.copy()
    out[train[np.argsort(order, kind="stable")[number:]]] = UNUSED
    return out


def with_train_subset(data: FaceData, number: int, seed: int) -> FaceData:
    """Keep `number` TRAIN images as keep_subset does; the result shares all arrays with `data` except `split`.

    Raises ConfigError if there are fewer TRAIN images.
    """
    num_train = int((data.split == TRAIN).sum())
    if number > num_train:
        rule = f"it must be at most {num_train}, the number of training images of {data.split_name}, or null"
        raise ConfigError("data", [f"data.train_subset is {number}; {rule}"])
    split = keep_subset(data.labels, data.split, number, seed)
    args = data.images, data.labels, split, data.class_names, data.source, data.split_name, data.targets
    return replace(data, split=split, digest=face_data(*args, groups=data.groups).digest)


def balanced_class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Return the class weights N / (C * count), float32 [C], for the labels of the training images.

    The mean weight of an image is 1; a class without images gets 0. Source: scikit-learn's class_weight="balanced".
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0).astype(np.float32)
