"""What to set if a split leaves a part, or a class in val, without images; a remedy is tried before it is proposed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, VAL
from ferhpo.data.splits.draw import random_split
from ferhpo.data.splits.options import SplitOptions

FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)

_Split = NDArray[np.uint8]


def remedy_for_empty(
    options: SplitOptions,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    usable: NDArray[np.bool_],
    subjects: bool,
) -> str:
    """Return what gives images both to train and to val, for a split that leaves one of them empty."""

    def is_whole(split: _Split) -> bool:
        return bool((split == TRAIN).any() and (split == VAL).any())

    def draw(fraction: float, test_fraction: float) -> _Split:
        return random_split(labels, groups, fraction, test_fraction, options.split_seed, usable, subjects)

    if options.folds:
        return "set a smaller data.folds, or add images"
    if options.split != "random" and is_whole(draw(options.val_fraction, options.test_fraction)):
        return "set data.split=random"
    random = "" if options.split == "random" else "data.split=random and "
    for test_fraction in (options.test_fraction, 0.0):
        zero = "" if test_fraction == options.test_fraction else " and data.test_fraction=0"
        for fraction in _fractions(replace(options, test_fraction=test_fraction)):
            if is_whole(draw(fraction, test_fraction)):
                return f"set {random}data.val_fraction={fraction}{zero}"
    what = "subjects" if subjects else "different images"
    return f"add images; there are {len(np.unique(groups[usable])):,} {what}, too few to split"


def warning_of_rare_classes(
    labels: NDArray[np.int64],
    split: _Split,
    class_names: Sequence[str],
    options: SplitOptions,
    draw: Callable[[float], _Split],
) -> str | None:
    """Return one sentence if a class has images in train but none in val, or the opposite, else None.

    draw: returns the split for another val_fraction
    """
    rare = _rare(labels, split, len(class_names))
    if not rare:
        return None
    counts = np.bincount(labels[(split == TRAIN) | (split == VAL)], minlength=len(class_names))
    named = ", ".join(f"{class_names[label]} ({counts[label]} of them outside test)" for label in rare[:5])
    named += f" and {len(rare) - 5} more classes" if len(rare) > 5 else ""
    rule = f"train or val has no image of {named}"
    for fraction in _fractions(options):
        if not _rare(labels, draw(fraction), len(class_names)):
            return f"{rule}; set data.val_fraction={fraction}, or add images"
    return f"{rule}; add images, or leave such classes out by data.labels={{NAME: drop}}"


def _fractions(options: SplitOptions) -> list[float]:
    return [value for value in FRACTIONS if value > options.val_fraction and value + options.test_fraction < 1]


def _rare(labels: NDArray[np.int64], split: _Split, num_classes: int) -> list[int]:
    train, val = (np.bincount(labels[split == code], minlength=num_classes) for code in (TRAIN, VAL))
    return [int(label) for label in np.flatnonzero((train > 0) != (val > 0))]
