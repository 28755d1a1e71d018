"""AffectNet in folders of classes, as its subsets are passed on: [train/ and val/ or test/ above] <class>/*.jpg.

Classes are named (anger, Happy) or numbered as AffectNet does: 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear,
5 disgust, 6 anger, 7 contempt. That is not FER2013's order. A labels CSV beside the folders is read with `clean` only:
the folders tell the labels. Source: Mollahosseini et al. 2017 (arXiv 1708.03985), which may not be redistributed.
"""

from pathlib import Path

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.emotion_folders import read_emotion_folders
from ferhpo.data.io.faults import existing_path
from ferhpo.data.labels.emotions import emotion_of
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select, split_of_folders
from ferhpo.data.splits import SplitOptions
from ferhpo.errors import ConfigError

SPLITS = ("published", "folder", "random")

_NUMBERED = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
_NO_EMOTION = ("none", "uncertain", "no face")  # 8, 9 and 10: nothing to train on, but a pseudo-label may say so


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
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
) -> FaceData:
    """Read AffectNet: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order, then contempt.

    path: the folder that holds the classes, or train and val above them, or a zip of it
    labels: what becomes of a class, as {contempt: drop}
    clean: the CSV of labels and pseudo-labels; see pseudo_labels.agreement
    split: None takes "published" where there are folders train and val or test, "random" otherwise
    image_size: side that the faces (of 224 or 96 in what is passed on) are resized to
    Keys of the split: see splits.SplitOptions. "published" without val: val_fraction of train validates.
    Raises ConfigError for keys that cannot be, DataError with every fault of the data.
    """
    options = SplitOptions(split or "published", val_fraction, test_fraction, folds, fold, split_seed, train_subset)
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
    options = split_of_folders(where, entry, options, split)
    return select("affectnet", where, source, entry, options, labels, clean, class_of=class_of)


def class_of(text: str) -> str | None:
    """The emotion that a name or a number of AffectNet means; "none" where it means that there is no emotion."""
    if text.strip().isdecimal():
        number = int(text)
        return _NUMBERED[number] if number < 8 else "none" if number < 11 else None
    return "none" if text.strip().lower().replace("-", " ") in _NO_EMOTION else emotion_of(text)
