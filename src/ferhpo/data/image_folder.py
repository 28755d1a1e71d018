"""The reader of any folder or zip of images with one folder per class, with or without train, val and test above them.

Note: images are resized to squares and their proportions are not kept; crop the faces first if that matters.
"""

from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.class_folders import find_class_folders
from ferhpo.data.io.faults import Faults, existing_path
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import open_tree
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select, split_of_folders
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError

SPLITS = ("published", "folder", "random")  # the first is the default if the source has split folders


@lists_split_keys(None)
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    image_size: int | None = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read images uint8 [N, S, S] (channels=1) or [N, S, S, 3]; the class names are the names of the folders, sorted.

    labels: a new name or "drop" for each class to change, e.g. {bored: drop, glad: happy}
    clean: a CSV of pseudo-labels; see pseudo_labels.agreement
    image_size: the side S in pixels that images are resized to; None keeps them, and all must be squares of one size
    split_keys: see splits.SplitOptions. The default is "published" if there are folders train and val or test, else
        "random". "published" takes the folders as they are; without a val folder, val_fraction of train becomes val
        (identical images stay together). "folder": all images outside train are val, and test is empty
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    if faults := key_faults(options, SPLITS, image_size, channels, labels, None):
        raise ConfigError("data=image_folder", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "image_folder", "image_size": image_size, "channels": channels}
    entry = read_cached(where, source, recipe, cache_dir, lambda: _read(where, source, channels, image_size))
    options = split_of_folders(where, entry, options, split_keys.get("split"))
    return select("image_folder", where, source, entry, options, labels, clean)


def _read(where: str, source: Path, channels: int, image_size: int | None) -> Entry:
    with open_tree(where, source) as tree:
        found = find_class_folders(where, tree)
        faults = Faults("folder")
        found.add_empty(faults)
        train_split = None if None in found.split_folders else TRAIN
        class_names = sorted({name for split, name in found.classes if split == train_split})
        if not class_names:
            rule = "it has a folder val or test but no folder train"
            faults.add("train", f"{rule}; add one, or move the classes to the top folder")
        for split, name in found.classes if class_names else []:
            if name not in class_names:
                folder = f"{found.split_folders[split]}/{name}"
                faults.add("class", f"{folder} is a class that train does not have; add it there or remove it", folder)
        if len(class_names) == 1:
            faults.add("one", f"it has only one class, {class_names[0]}; a classifier needs at least two")
        codes = {name: code for code, name in enumerate(class_names)}
        arrays: dict[str, NDArray[Any]] = {
            "images": decode_images(where, faults, tree, found.names, channels, image_size),
        }
        arrays["labels"] = np.array([codes.get(name, 0) for name in found.class_of], np.int64)
        if train_split is not None:
            arrays["published"] = np.array(found.split_of, np.uint8)
    form = "image folder" if source.is_dir() else "zip of images"
    return Entry(arrays, {"form": form, "names": found.names, "classes": class_names})
