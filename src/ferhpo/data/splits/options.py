"""The keys about splits that all data sets share."""

from collections.abc import Sequence
from dataclasses import dataclass

from ferhpo.data.io.faults import is_number, is_whole, nearest, one_of

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
