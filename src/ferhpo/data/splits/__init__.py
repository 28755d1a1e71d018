"""Train, val and test splits.

options.py  the configuration keys of a split
groups.py   groups of images that no split may divide
draw.py     random splits and folds
dealing.py  the assignment of groups of several classes to parts
assign.py   the split of every image
remedies.py what to set if a split leaves a part or a class without images
"""

from ferhpo.data.splits.assign import assign_splits, with_fold, with_train_subset
from ferhpo.data.splits.groups import identical_groups, overlap_mask
from ferhpo.data.splits.options import SplitKeys, SplitOptions, lists_split_keys

__all__ = [
    "SplitKeys",
    "SplitOptions",
    "assign_splits",
    "identical_groups",
    "lists_split_keys",
    "overlap_mask",
    "with_fold",
    "with_train_subset",
]
