"""Any folder or zip of images with a folder for each class, with train, val and test folders above them or not.

Images become squares without regard to their proportions; crop the faces first if that matters.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.class_folders import find_class_folders
from ferhpo.data.io.faults import Faults, existing_path
from ferhpo.data.io.files import decode_images, open_tree
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select, split_of_folders
from ferhpo.data.splits import SplitOptions
from ferhpo.errors import ConfigError

SPLITS = ("published", "folder", "random")


def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    split: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
    train_subset: int | None = None,
    image_size: int | None = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
) -> FaceData:
    """Read images uint8 [N, S, S] (channels=1) or [N, S, S, 3]; class names are the folders' names, sorted.

    labels: what becomes of a class, as {bored: drop, glad: happy}
    clean: a CSV of pseudo-labels; see pseudo_labels.agreement
    split: None takes "published" where there are folders train and val or test, "random" otherwise. "published" takes
        the folders as they are; without a val folder, val_fraction of train validates (by groups of identical images).
        "folder" trains on train, validates on all the rest and tests on nothing.
    image_size: side S that images are resized to; None leaves them, and then all must be squares of one size
    Keys of the split: see splits.SplitOptions.
    Raises ConfigError for keys that cannot be, DataError with every fault of the data.
    """
    options = SplitOptions(split or "published", val_fraction, test_fraction, folds, fold, split_seed, train_subset)
    if faults := key_faults(options, SPLITS, image_size, channels, labels, None):
        raise ConfigError("data=image_folder", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "image_folder", "image_size": image_size, "channels": channels}
    entry = read_cached(where, source, recipe, cache_dir, lambda: _read(where, source, channels, image_size))
    options = split_of_folders(where, entry, options, split)
    return select("image_folder", where, source, entry, options, labels, clean)


def _read(where: str, source: Path, channels: int, image_size: int | None) -> Entry:
    with open_tree(where, source) as tree:
        found = find_class_folders(where, tree)
        faults = Faults("folder")
        found.add_empty(faults)
        train_split = None if None in found.split_folders else TRAIN
        class_names = sorted({name for split, name in found.classes if split == train_split})
        if not class_names:
            faults.add(
                "train", "it has folders val or test and no folder train; add one, or put the classes at its top"
            )
        for split, name in found.classes if class_names else []:
            if name not in class_names:
                folder = f"{found.split_folders[split]}/{name}"
                faults.add("class", f"{folder} is a class that train does not have; add it there or remove it", folder)
        if len(class_names) == 1:
            faults.add("one", f"it has one class only, {class_names[0]}; a classifier needs two or more")
        arrays: dict[str, NDArray[Any]] = {
            "images": decode_images(where, faults, tree, found.names, channels, image_size),
        }
        arrays["labels"] = np.array([class_names.index(name) for name in found.class_of], np.int64)
        if train_split is not None:
            arrays["published"] = np.array(found.split_of, np.uint8)
    form = "image folder" if source.is_dir() else "zip of images"
    return Entry(arrays, {"form": form, "names": found.names, "classes": class_names})
