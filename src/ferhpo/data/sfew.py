"""The reader of SFEW 2.0, stills from films: Train/<Emotion>/*.png and Val/<Emotion>/*.png, as its authors publish it.

Note: the published test images have no labels, so the published split has an empty test. No film is in two splits, and
a random split keeps the stills of a film together.
Source: Dhall et al. 2011, "Static facial expression analysis in tough conditions".
"""

import re
from pathlib import Path, PurePosixPath
from typing import Unpack

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.emotion_folders import read_emotion_folders
from ferhpo.data.io.faults import existing_path
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError, DataError

SPLITS = ("published", "random")  # the first is the default

_TIME_AND_NUMBER = re.compile(r"[-_]+\d+_+\d+$")  # of AlexEmma_000225840_00000024


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read SFEW: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order.

    path: the folder with Train and Val, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {disgust: drop}
    clean: a CSV of pseudo-labels; see pseudo_labels.agreement
    image_size: the side in pixels that the faces of 143x181 are resized to; their proportions are not kept
    split_keys: see splits.SplitOptions. "published" (the default): Train is train, Val is val
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
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
    if options.split == "published" and "published" not in entry.arrays:
        raise DataError(where, ["data.split=published needs the folders Train and Val; set data.split=random"])
    return select("sfew", where, source, entry, options, labels, clean, subject_of=film_of)


def film_of(name: str) -> str:
    """Return the film that a still comes from."""
    return _TIME_AND_NUMBER.sub("", PurePosixPath(name).stem)
