"""The reader of AffectNet in folders of classes, as its subsets are distributed: [train|val|test/]<class>/*.jpg.

Classes are named (anger, Happy) or have AffectNet's numbers: 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust,
6 anger, 7 contempt. Source: Mollahosseini et al. 2017 (arXiv 1708.03985), which may not be redistributed.

Note: AffectNet's numbers are not in FER2013's order. The labels come from the folders; a CSV of labels beside them is
read only if `clean` names it.
"""

from pathlib import Path
from typing import Unpack

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.emotion_folders import read_emotion_folders
from ferhpo.data.io.faults import existing_path
from ferhpo.data.labels.emotions import emotion_of
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select, split_of_folders
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError

SPLITS = ("published", "folder", "random")  # the first is the default if the source has split folders

_NUMBERED = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
_NO_EMOTION = ("none", "uncertain", "no face")  # AffectNet's 8, 9 and 10: no class to train on, valid pseudo-labels


@lists_split_keys(None)
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read AffectNet: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order, then contempt.

    path: the folder with the classes, or with train and val above them, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {contempt: drop}
    clean: the CSV of labels and pseudo-labels; see pseudo_labels.agreement
    image_size: the side in pixels that faces (distributed as 224x224 or 96x96) are resized to
    split_keys: see splits.SplitOptions. The default is "published" if there are folders train and val or test, else
        "random". "published" without a val folder takes val_fraction of train as val
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    if faults := key_faults(options, SPLITS, image_size, channels, labels):
        raise ConfigError("data=affectnet", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "affectnet", "image_size": image_size, "channels": channels}
    entry = read_cached(
        where,
        source,
        recipe,
        cache_dir,
        lambda: read_emotion_folders(where, source, "AffectNet, folders of classes", channels, image_size, class_of),
    )
    options = split_of_folders(where, entry, options, split_keys.get("split"))
    return select("affectnet", where, source, entry, options, labels, clean, class_of=class_of)


def class_of(text: str) -> str | None:
    """Return the emotion of a name or number of AffectNet, "none" for one that means no emotion, None if unknown."""
    if text.strip().isdecimal() and len(text) < 5:
        number = int(text)
        return _NUMBERED[number] if number < 8 else "none" if number < 11 else None
    return "none" if text.strip().lower().replace("-", " ") in _NO_EMOTION else emotion_of(text)
