"""Train, val and test.

options.py  the keys about splits
groups.py   images that belong together: identical ones, one subject
draw.py     random splits and folds
dealing.py  groups to parts
assign.py   every image to its split
"""

from ferhpo.data.splits.assign import assign_splits, with_fold, with_train_subset
from ferhpo.data.splits.groups import identical_groups, overlap_mask
from ferhpo.data.splits.options import SplitOptions

__all__ = ["SplitOptions", "assign_splits", "identical_groups", "overlap_mask", "with_fold", "with_train_subset"]
