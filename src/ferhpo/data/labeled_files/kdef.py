"""The reader of KDEF: 70 people in two sessions, seven emotions and five angles, all in the names: AF01ANS.JPG.

The letters are the session (A or B), the person (F01), the emotion (AN) and the angle (S, straight). No split divides
the images of one person, of whom both sessions are.
Source: Lundqvist et al. 1998, "The Karolinska Directed Emotional Faces".
"""

import re
from pathlib import Path, PurePosixPath
from typing import Unpack

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import read_cached
from ferhpo.data.io.faults import existing_path, one_of
from ferhpo.data.labeled_files.decode import read_named_files
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError

SPLITS = ("random",)
ANGLES = {"straight": ("S",), "half": ("S", "HL", "HR"), "all": ("S", "HL", "HR", "FL", "FR")}

_EMOTIONS = {
    "AF": "fear", "AN": "angry", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
_NAME = re.compile(r"[AB]([FM]\d{2})([A-Z]{2})(S|HL|HR|FL|FR)\.\w+", re.IGNORECASE)


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    angles: str = "straight",
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read KDEF: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order.

    path: the folder with the images, in any folders, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {neutral: drop}
    angles: "straight", "half" (and 45 degrees to both sides) or "all" (and both profiles)
    image_size: the side in pixels that the middle square of an image (562x762) is resized to
    split_keys: see splits.SplitOptions. KDEF publishes no split; the only one is "random", by person
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    faults = key_faults(options, SPLITS, image_size, channels, labels)
    if angles not in ANGLES:
        faults.append(f"data.angles is {angles}; it must be {one_of(tuple(ANGLES))}")
    if faults:
        raise ConfigError("data=kdef", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "kdef", "image_size": image_size, "channels": channels, "angles": angles}
    form, rule = f"KDEF, angles {angles}", "named by person, emotion and angle, e.g. AF01ANS.JPG"

    def meaning(name: str) -> str:
        return emotion_in(name, ANGLES[angles])

    entry = read_cached(
        where,
        source,
        recipe,
        cache_dir,
        lambda: read_named_files(where, source, form, channels, image_size, meaning, rule, _middle),
    )
    return select("kdef", where, source, entry, options, labels, None, subject_of=person_of)


def emotion_in(name: str, angles: tuple[str, ...]) -> str:
    """Return the emotion in the name of a file, or why it is left out."""
    match = _NAME.fullmatch(name)
    if match is None or match[2].upper() not in _EMOTIONS:
        return "with another name"
    return _EMOTIONS[match[2].upper()] if match[3].upper() in angles else "from another angle"


def person_of(name: str) -> str:
    """Return the person in the name of a file, e.g. F01."""
    return PurePosixPath(name).name[1:4].upper()


def _middle(name: str, width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
