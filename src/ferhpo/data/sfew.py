"""SFEW 2.0, stills from films: Train/<Emotion>/*.png and Val/<Emotion>/*.png, as its authors give it.

Its test images have no labels, so nothing tests by the published split. No film is in two splits, and a random split
keeps the stills of a film together. Source: Dhall et al. 2011, "Static facial expression analysis in tough conditions".
"""

import re
from pathlib import Path, PurePosixPath

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.emotion_folders import read_emotion_folders
from ferhpo.data.io.faults import existing_path
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitOptions
from ferhpo.errors import ConfigError, DataError

SPLITS = ("published", "random")

_TIME_AND_NUMBER = re.compile(r"[-_]+\d+_+\d+$")  # of AlexEmma_000225840_00000024


def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    split: str = "published",
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
    """Read SFEW: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order.

    path: the folder that holds Train and Val, or a zip of it
    labels: what becomes of a class, as {disgust: drop}
    clean: a CSV of pseudo-labels; see pseudo_labels.agreement
    image_size: side that the faces of 143x181 are resized to, without regard to their proportions
    Keys of the split: see splits.SplitOptions. "published": Train trains and Val validates.
    Raises ConfigError for keys that cannot be, DataError with every fault of the data.
    """
    options = SplitOptions(split, val_fraction, test_fraction, folds, fold, split_seed, train_subset)
    if faults := key_faults(options, SPLITS, image_size, channels, labels):
        raise ConfigError("data=sfew", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "sfew", "image_size": image_size, "channels": channels}
    entry = read_cached(
        where,
        source,
        recipe,
        cache_dir,
        lambda: read_emotion_folders(where, source, "SFEW, folders of classes", channels, image_size),
    )
    if split == "published" and "published" not in entry.arrays:
        raise DataError(where, ["data.split=published needs folders Train and Val; set data.split=random"])
    return select("sfew", where, source, entry, options, labels, clean, subject_of=film_of)


def film_of(name: str) -> str:
    """The film that a still comes from."""
    return _TIME_AND_NUMBER.sub("", PurePosixPath(name).stem)
