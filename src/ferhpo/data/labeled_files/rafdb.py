"""The reader of RAF-DB, basic emotions: list_patition_label.txt with lines such as "train_00001.jpg 5", and the images.

The aligned faces (train_00001_aligned.jpg) are read if there are any, else the files that the list names. Folders
train/5/ and test/5/, in which others pass the data set on, are read as well.
Source: Li et al. 2017, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in the
Wild".
"""

from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, FaceData
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.emotion_folders import read_emotion_folders
from ferhpo.data.io.faults import Faults, existing_path, parsed, raise_faults
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import Tree, open_tree
from ferhpo.data.labeled_files.decode import images_by_name
from ferhpo.data.labels.emotions import EMOTIONS, emotion_of
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select, split_of_folders
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError, DataError

SPLITS = ("published", "folder", "random")  # the first is the default
LISTS = ("list_patition_label.txt", "list_partition_label.txt")  # the first is how its authors spell it
MAX_LIST_BYTES = 64 * 2**20

_NUMBERED = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")  # labels 1 to 7


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read RAF-DB: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order.

    path: the folder with the list and the images, in any folders below it, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {neutral: drop}
    image_size: the side in pixels that faces (aligned: 100x100) are resized to
    split_keys: see splits.SplitOptions. "published" (the default): val_fraction of train becomes val, test is test
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    if faults := key_faults(options, SPLITS, image_size, channels, labels):
        raise ConfigError("data=rafdb", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "rafdb", "image_size": image_size, "channels": channels}
    entry = read_cached(where, source, recipe, cache_dir, lambda: _read(where, source, channels, image_size))
    options = split_of_folders(where, entry, options, split_keys.get("split"))
    return select("rafdb", where, source, entry, options, labels, None, class_of=class_of)


def class_of(text: str) -> str | None:
    """Return the emotion of a name or number of RAF-DB, None if unknown."""
    text = text.strip()
    if text.isdecimal() and len(text) < 5:
        return _NUMBERED[int(text) - 1] if 1 <= int(text) <= len(_NUMBERED) else None
    return emotion_of(text)


def _read(where: str, source: Path, channels: int, image_size: int) -> Entry:
    with open_tree(where, source) as tree:
        lists = [name for name in tree.names if PurePosixPath(name).name.lower() in LISTS]
        if len(lists) > 1:
            raise DataError(where, [f"it has two lists, {lists[0]} and {lists[1]}; set data.path to the folder of one"])
        if lists:
            return _read_list(where, tree, lists[0], channels, image_size)
        if not any(PurePosixPath(folder).name in map(str, range(1, 8)) for folder in tree.folders):
            rule = f"it has no {LISTS[0]}"
            raise DataError(where, [f"{rule}; set data.path to the folder that has EmoLabel and Image"])
    return read_emotion_folders(where, source, "RAF-DB, folders of classes", channels, image_size, class_of)


def _read_list(where: str, tree: Tree, list_name: str, channels: int, image_size: int) -> Entry:
    faults = Faults("line")
    images = images_by_name(tree, Faults("file"))
    is_aligned = any(name.partition(".")[0].endswith("_aligned") for name in images)
    names: list[str] = []
    codes: list[int] = []
    published: list[int] = []
    for number, line in enumerate(_text(where, tree, list_name).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        emotion = class_of(label) if label.strip().isdecimal() else None
        split = TRAIN if name.startswith("train_") else TEST if name.startswith("test_") else None
        if emotion is None or split is None:
            rule = 'it must be a file and a label from 1 to 7, e.g. "train_00001.jpg 5"'
            faults.add("line", f"line {number} of {list_name} is {line.strip()[:40]!r}; {rule}", str(number))
            continue
        stem, _, suffix = name.strip().rpartition(".")
        wanted = f"{stem}_aligned.{suffix}" if is_aligned else name.strip()
        if wanted not in images:
            rule = f"which is missing; unpack aligned.zip beside {list_name}, or remove the line"
            faults.add("missing", f"line {number} of {list_name} needs {wanted}, {rule}", str(number))
            continue
        names.append(images[wanted])
        codes.append(EMOTIONS.index(emotion))
        published.append(split)
    if not names and not faults:
        faults.add("none", f"{list_name} has no lines; download it again")
    raise_faults(where, faults)
    arrays: dict[str, NDArray[Any]] = {
        "images": decode_images(where, faults, tree, names, channels, image_size),
        "labels": np.array(codes, np.int64),
        "published": np.array(published, np.uint8),
    }
    form = "RAF-DB, aligned" if is_aligned else "RAF-DB, not aligned"
    return Entry(arrays, {"form": form, "names": names, "classes": EMOTIONS})


def _text(where: str, tree: Tree, name: str) -> str:
    with parsed(where, f"{name} cannot be unpacked", "download it again"), tree.open_file(name) as file:
        data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise DataError(where, [f"{name} is larger than {MAX_LIST_BYTES // 2**20} MB; download it again"])
    return data.decode("utf-8-sig", "replace")
