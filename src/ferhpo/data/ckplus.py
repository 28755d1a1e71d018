"""The reader of CK+: folders of classes with 48x48 files such as S010_004_00000017.png, or the original directories.

The original has cohn-kanade-images/S005/001/S005_001_00000011.png, and Emotion/S005/001/S005_001_00000011_emotion.txt
for 327 of its 593 sequences. A sequence starts neutral and ends at the peak of its emotion. S005 is the subject: no
split divides the images of one subject. Source: Lucey et al. 2010, "The Extended Cohn-Kanade Dataset (CK+)".
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np

from ferhpo.data.dataset import FaceData
from ferhpo.data.io import ckplus_original
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.emotion_folders import find_emotion_folders
from ferhpo.data.io.faults import Faults, existing_path, is_whole, one_of
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import Tree, open_tree
from ferhpo.data.labels.emotions import EMOTIONS
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError

SPLITS = ("random",)
CROPS = ("landmarks", "centre")

_NAME = re.compile(r"(S\d+)_(\d+)_(\d+)\.\w+$", re.IGNORECASE)


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: LabelMap | None = None,
    clean: str | Path | None = None,
    peak_frames: int = 3,
    neutral_frames: int = 1,
    crop: str | None = None,
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read CK+: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order, then contempt.

    path: the folder of either form, or a zip of it
    labels: a new name or "drop" for each class to change, e.g. {contempt: drop}
    clean: a CSV of pseudo-labels; see pseudo_labels.agreement
    peak_frames: the number of frames at the end of a sequence that are images of its emotion; both forms
    neutral_frames: the number of frames at the start of a sequence that are images of neutral; original form only
    crop: the square to keep of a frame of the original form: "landmarks" (needs the folder Landmarks beside the images)
        or "centre" (of the whole frame, in which the face is small); None takes the landmarks if they exist
    split_keys: see splits.SplitOptions. CK+ publishes no split; the only one is "random", by subject
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    faults = key_faults(options, SPLITS, image_size, channels, labels)
    if not is_whole(peak_frames, 1):
        faults.append(f"data.peak_frames is {peak_frames}; it must be at least 1, e.g. 3")
    if not is_whole(neutral_frames):
        faults.append(f"data.neutral_frames is {neutral_frames}; it must be at least 0, e.g. 1")
    if crop is not None and crop not in CROPS:
        faults.append(f"data.crop is {crop}; it must be {one_of(CROPS)}, or null for landmarks if they exist")
    if faults:
        raise ConfigError("data=ckplus", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "ckplus", "image_size": image_size, "channels": channels}
    recipe |= {"peak_frames": peak_frames, "neutral_frames": neutral_frames, "crop": crop}

    def read() -> Entry:
        with open_tree(where, source) as tree:
            if ckplus_original.is_original(tree):
                return ckplus_original.read(where, tree, channels, image_size, peak_frames, neutral_frames, crop)
            return _read_folders(where, tree, channels, image_size, peak_frames)

    entry = read_cached(where, source, recipe, cache_dir, read)
    return select("ckplus", where, source, entry, options, labels, clean, subject_of=subject_of)


def subject_of(name: str) -> str:
    """Return the subject in the name of a file, e.g. S010."""
    return PurePosixPath(name).name.partition("_")[0].upper()


def _read_folders(where: str, tree: Tree, channels: int, image_size: int, peak_frames: int) -> Entry:
    faults = Faults("file")
    found, codes = find_emotion_folders(where, tree, faults)
    sequences: dict[tuple[int, str], list[int]] = {}
    for place, name in enumerate(found.names):
        match = _NAME.search(PurePosixPath(name).name)
        if match is None:
            rule = "is not named by subject, sequence and frame, e.g. S010_004_00000017.png"
            faults.add("name", f"{name} {rule}; use data=image_folder for other names", name)
        else:
            sequences.setdefault((codes[place], f"{match[1]}_{match[2]}".upper()), []).append(place)
    kept: list[int] = []
    for (code, _), places in sequences.items():
        places.sort(key=lambda place: _frame(found.names[place]))
        # Neutral frames come from the start of a sequence: the last of them are not better than the first.
        kept += places if EMOTIONS[code] == "neutral" else places[-peak_frames:]
    kept.sort()
    names = [found.names[place] for place in kept]
    images = decode_images(where, faults, tree, names, channels, image_size)
    meta: dict[str, Any] = {"form": "CK+, folders of classes", "names": names, "classes": EMOTIONS}
    if len(kept) < len(found.names):
        meta["dropped"] = [("frames before the peak", len(found.names) - len(kept))]
    return Entry({"images": images, "labels": np.array([codes[place] for place in kept], np.int64)}, meta)


def _frame(name: str) -> int:
    match = _NAME.search(name)
    assert match is not None
    return int(match[3])
