"""Files in folders that are named after emotions, in any spelling: the form that CK+, AffectNet and SFEW share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.io.cache import Entry
from ferhpo.data.io.class_folders import ClassFolders, find_class_folders
from ferhpo.data.io.faults import Faults
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import Tree, open_tree
from ferhpo.data.labels.emotions import EMOTIONS, emotion_of


def find_emotion_folders(
    where: str, tree: Tree, faults: Faults, spelling: Callable[[str], str | None] = emotion_of
) -> tuple[ClassFolders, list[int]]:
    """Return the files in folders of classes, and the index in EMOTIONS of each file's class (0 for an unknown class).

    spelling: returns the emotion that the name of a folder means, or None
    Raises DataError if there are no folders of classes; adds the faults of existing ones to `faults`.
    """
    found = find_class_folders(where, tree)
    emotions = {name: spelling(name) for _, name in found.classes}
    for name, emotion in emotions.items():
        if emotion not in EMOTIONS:
            rule = f"the folder {name} is not an emotion ({', '.join(EMOTIONS)})"
            faults.add("class", f"{rule}; use data=image_folder for other classes", name)
    found.add_empty(faults)
    codes = {name: EMOTIONS.index(emotion) if emotion in EMOTIONS else 0 for name, emotion in emotions.items()}
    return found, [codes[name] for name in found.class_of]


def read_emotion_folders(
    where: str,
    source: Path,
    form: str,
    channels: int,
    image_size: int,
    spelling: Callable[[str], str | None] = emotion_of,
) -> Entry:
    """Decode a folder or zip of emotions into the entry that `selection.select` takes.

    The entry has the array `published` if the source has split folders.
    Raises DataError with every fault of the data.
    """
    faults = Faults("folder")
    with open_tree(where, source) as tree:
        found, codes = find_emotion_folders(where, tree, faults, spelling)
        images = decode_images(where, faults, tree, found.names, channels, image_size)
    arrays: dict[str, NDArray[Any]] = {"images": images, "labels": np.array(codes, np.int64)}
    if None not in found.split_folders:
        arrays["published"] = np.array(found.split_of, np.uint8)
    return Entry(arrays, {"form": form, "names": found.names, "classes": EMOTIONS})
