"""The configuration keys that describe a split, which all data sets read from files share.

Note: configurations keep these keys flat, beside the other keys of `data`. A reader takes them as `**split_keys` and
builds one SplitOptions from them.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict, TypeVar

from ferhpo.data.io.faults import is_number, is_whole, one_of
from ferhpo.keys import closest

MAX_FOLDS = 1000

_Reader = TypeVar("_Reader", bound=Callable[..., Any])


class SplitKeys(TypedDict, total=False):
    """The keyword arguments of a reader that describe the split; SplitOptions explains them."""

    split: str | None
    val_fraction: float
    test_fraction: float
    folds: int | None
    fold: int | None
    split_seed: int
    train_subset: int | None


@dataclass(frozen=True)
class SplitOptions:
    """How the images of a data set are split into train, val and test.

    split: "published", "folder" (every image outside the training folder is a validation image, no image is a test
        image) or "random"; a reader takes None for its own default
    val_fraction, test_fraction: fractions of the images, for a random split
    folds: the number of parts that the train and val images are cut into; test images stay as they are
    fold: the part, counted from 0, that becomes val. None leaves the images uncut and keeps all training images,
        whatever train_subset is: the trials cut the folds one after the other (see with_fold)
    split_seed: the seed of random splits, folds and subsets
    train_subset: the number of training images to keep, stratified by class; the others become UNUSED. A smaller
        subset is contained in every larger one
    """

    split: str
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    folds: int | None = None
    fold: int | None = None
    split_seed: int = 0
    train_subset: int | None = None

    @classmethod
    def of(cls, keys: SplitKeys, default: str) -> Self:
        """Build the options from the keys that a reader got; `default` is the split of a reader that got none."""
        given: dict[str, Any] = {**keys}
        if given.get("split") is None:
            given["split"] = default
        return cls(**given)

    def faults(self, choices: Sequence[str]) -> list[str]:
        """Return one sentence per invalid key; `choices` are the splits that the data set has."""
        faults = []
        if self.split not in choices:
            like = closest(str(self.split), choices)
            hint = f"; did you mean {like}?" if like else ""
            faults.append(f"data.split is {self.split}; it must be {one_of(choices)}{hint}")
        for key, value, low in (("val", self.val_fraction, "above 0"), ("test", self.test_fraction, "at least 0")):
            if not is_number(value) or value < 0 or value >= 1 or (key == "val" and value == 0):
                faults.append(f"data.{key}_fraction is {value}; it must be {low} and below 1, e.g. 0.1")
        if not faults and self.val_fraction + self.test_fraction >= 1:
            fractions = f"data.val_fraction is {self.val_fraction} and data.test_fraction is {self.test_fraction}"
            faults.append(f"{fractions}; their sum must be below 1, or no image is left to train on")
        faults += fold_faults(self.folds, self.fold)
        if not is_whole(self.split_seed):
            faults.append(f"data.split_seed is {self.split_seed}; it must be an integer of at least 0")
        if self.train_subset is not None and not is_whole(self.train_subset, 1):
            faults.append(f"data.train_subset is {self.train_subset}; it must be at least 1, or null for all images")
        return faults


def lists_split_keys(default: str | None) -> Callable[[_Reader], _Reader]:
    """List the keys of a split by name in the signature of a reader that takes them as `**split_keys`.

    The check of a configuration compares its keys with the signature.
    default: the default of the key `split`; None if it depends on the data
    """

    def decorate(reader: _Reader) -> _Reader:
        signature = inspect.signature(reader)
        own = [given for given in signature.parameters.values() if given.kind is not inspect.Parameter.VAR_KEYWORD]
        split, *others = inspect.signature(SplitOptions).parameters.values()
        keys = [split.replace(default=default, annotation=str | None), *others]
        named = [key.replace(kind=inspect.Parameter.KEYWORD_ONLY) for key in keys]
        reader.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
        return reader

    return decorate


def fold_faults(folds: int | None, fold: int | None) -> list[str]:
    """Return one sentence, or none, for an invalid data.folds or data.fold."""
    if folds is not None and not is_whole(folds, 2):
        return [f"data.folds is {folds}; it must be at least 2, or null for no folds"]
    if folds is not None and folds > MAX_FOLDS:
        return [f"data.folds is {folds}; it must be at most {MAX_FOLDS:,}, e.g. 5"]
    if fold is not None and not is_whole(fold):
        return [f"data.fold is {fold}; it must be an integer of at least 0, or null for all folds"]
    if folds is not None and fold is not None and not 0 <= fold < folds:
        return [f"data.fold is {fold}; with data.folds={folds} it must be at most {folds - 1}"]
    return []
