"""The reader of JAFFE: 213 images of ten women, whose names have subject and emotion: KA.AN1.39.tiff.

No split divides the images of one subject.
Source: Lyons et al. 1998, "Coding Facial Expressions with Gabor Wavelets".
"""

import re
from pathlib import Path, PurePosixPath
from typing import Unpack

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.faults import existing_path
from ferhpo.data.labeled_files.decode import read_named_files
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError

SPLITS = ("random",)

_EMOTIONS = {
    "AN": "angry", "DI": "disgust", "FE": "fear", "HA": "happy", "SA": "sad", "SU": "surprise", "NE": "neutral",
}  # fmt: skip
_NAME = re.compile(r"([A-Z]{2})\.([A-Z]{2})\d*\.\d+\.\w+", re.IGNORECASE)


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read JAFFE: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order.

    path: the folder with the images, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {neutral: drop}
    split_keys: see splits.SplitOptions. JAFFE publishes no split; the only one is "random", by subject
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    if faults := key_faults(options, SPLITS, image_size, channels, labels):
        raise ConfigError("data=jaffe", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "jaffe", "image_size": image_size, "channels": channels}
    rule = "named by subject and emotion, e.g. KA.AN1.39.tiff"
    entry = read_cached(
        where,
        source,
        recipe,
        cache_dir,
        lambda: read_named_files(where, source, "JAFFE", channels, image_size, emotion_in, rule),
    )
    return select("jaffe", where, source, entry, options, labels, None, subject_of=subject_of)


def emotion_in(name: str) -> str:
    """Return the emotion in the name of a file, or why it is left out."""
    match = _NAME.fullmatch(name)
    return _EMOTIONS.get(match[2].upper(), "with another name") if match else "with another name"


def subject_of(name: str) -> str:
    """Return the subject in the name of a file, e.g. KA."""
    return PurePosixPath(name).name.partition(".")[0].upper()
