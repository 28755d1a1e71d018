"""The original directories of CK+: the frames to keep of each sequence, their labels, and the position of the face.

Note: a sequence without an emotion file has no label and is dropped, and so are the frames between the neutral start
and the peak of a sequence. Both are counted.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.io.cache import Entry
from ferhpo.data.io.faults import Faults, raise_faults
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import Tree
from ferhpo.data.labels.emotions import EMOTIONS

CODES = ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")  # 0 to 7 in emotion files
IMAGES_FOLDER, EMOTION_SUFFIX, LANDMARKS_SUFFIX = "cohn-kanade-images", "_emotion.txt", "_landmarks.txt"
FACE_SIDE = 1.3  # side of the square to keep, relative to the longer side of the box of all landmarks
FACE_LIFT = 0.1  # upward shift of the square, relative to the same side: landmarks end at the brows

_FRAME = re.compile(r"(S\d+_\d+)_(\d+)\.(png|jpe?g|tiff?|bmp)$", re.IGNORECASE)


def is_original(tree: Tree) -> bool:
    """Return whether a folder or zip has CK+ in its original directories."""
    folders = any(PurePosixPath(folder).name.lower() == IMAGES_FOLDER for folder in tree.folders)
    return folders or any(name.lower().endswith(EMOTION_SUFFIX) for name in tree.names)


def read(
    where: str, tree: Tree, channels: int, image_size: int, peak_frames: int, neutral_frames: int, crop: str | None
) -> Entry:
    """Decode the labeled frames into the entry that `selection.select` takes; ckplus.load explains the settings.

    Raises DataError with every fault of the data.
    """
    sequences: dict[str, list[str]] = {}
    for name in tree.names:
        if match := _FRAME.search(PurePosixPath(name).name):
            sequences.setdefault(match[1].upper(), []).append(name)
    faults = Faults("file")
    labels = _labels(tree, sequences, faults)
    if not labels and not faults:
        rule = f"it has no emotion file, e.g. S005_001_00000011{EMOTION_SUFFIX}"
        faults.add("none", f"{rule}; unpack the Emotion labels of CK+ beside {IMAGES_FOLDER}")
    names: list[str] = []
    codes: list[int] = []
    too_short = Faults("sequence")
    for sequence, label in labels.items():
        frames = sorted(sequences[sequence], key=_number)
        if len(frames) < peak_frames + neutral_frames:
            rule = f"fewer than data.peak_frames={peak_frames} and data.neutral_frames={neutral_frames} together"
            too_short.add("short", f"{sequence} has {len(frames)} frames, {rule}; set fewer", sequence)
        names += [*frames[:neutral_frames], *frames[len(frames) - peak_frames :]]
        codes += [EMOTIONS.index("neutral")] * neutral_frames + [EMOTIONS.index(label)] * peak_frames
    landmarks = {
        PurePosixPath(name).name[: -len(LANDMARKS_SUFFIX)]: name
        for name in tree.names
        if name.lower().endswith(LANDMARKS_SUFFIX)
    }
    by_landmarks = crop == "landmarks" or (crop is None and bool(landmarks))
    boxes = _boxes(tree, names, landmarks, faults) if by_landmarks else {}
    raise_faults(where, faults, too_short)

    def cut(name: str, width: int, height: int) -> tuple[int, int, int, int]:
        return _square(boxes.get(name), width, height)

    form = f"CK+, original directories, {'faces by landmarks' if by_landmarks else 'centre of each frame'}"
    unlabeled = sum(len(frames) for sequence, frames in sequences.items() if sequence not in labels)
    between = sum(len(sequences[sequence]) for sequence in labels) - len(names)
    dropped = [("frames of sequences without a label", unlabeled), ("frames between neutral and peak", between)]
    images = decode_images(where, Faults("file"), tree, names, channels, image_size, crop=cut)
    meta = {"form": form, "names": names, "classes": EMOTIONS, "dropped": [pair for pair in dropped if pair[1]]}
    return Entry({"images": images, "labels": np.array(codes, np.int64)}, meta)


def _number(name: str) -> int:
    match = _FRAME.search(PurePosixPath(name).name)
    assert match is not None
    return int(match[2])


def _labels(tree: Tree, sequences: dict[str, list[str]], faults: Faults) -> dict[str, str]:
    """Return the emotion of each labeled sequence."""
    labels: dict[str, str] = {}
    for name in tree.names:
        if not name.lower().endswith(EMOTION_SUFFIX):
            continue
        sequence = "_".join(PurePosixPath(name).name.split("_")[:2]).upper()
        text = _text(tree, name)
        try:
            code = float(text)
        except ValueError:
            code = -1.0
        if code not in range(len(CODES)):
            rule = f"it must be one number from 0 to {len(CODES) - 1}"
            faults.add("code", f"the content of {name} is {text.strip()[:20]!r}; {rule}; download it again", name)
        elif sequence not in sequences:
            faults.add("lonely", f"{name} labels {sequence}, which has no images; download the images", name)
        else:
            labels[sequence] = CODES[int(code)]
    return labels


def _boxes(
    tree: Tree, names: Sequence[str], landmarks: dict[str, str], faults: Faults
) -> dict[str, NDArray[np.float64]]:
    """Return left, top, right and bottom of the box of the landmarks, float64 [4], for each frame."""
    boxes: dict[str, NDArray[np.float64]] = {}
    for name in names:
        file = landmarks.get(PurePosixPath(name).stem)
        if file is None:
            rule = "has no landmarks; download them again, or set data.crop=centre"
            faults.add("landmarks", f"{name} {rule}", name)
            continue
        text = _text(tree, file)
        try:
            points = np.array(text.split(), np.float64).reshape(-1, 2)
        except ValueError:
            points = np.zeros((0, 2))
        if len(points) < 2 or not np.isfinite(points).all():
            rule = "does not consist of pairs of numbers; download it again, or set data.crop=centre"
            faults.add("points", f"{file} {rule}", file)
            continue
        boxes[name] = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return boxes


def _square(box: NDArray[np.float64] | None, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the square around a box, moved inside the frame if necessary; without a box, the middle of the frame."""
    largest = min(width, height)
    if box is None:
        side, x, y = largest, width / 2, height / 2
    else:
        extent = max(box[2] - box[0], box[3] - box[1])
        side = max(1, min(largest, round(FACE_SIDE * extent)))
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - FACE_LIFT * extent
    left = min(max(round(x - side / 2), 0), width - side)
    top = min(max(round(y - side / 2), 0), height - side)
    return left, top, left + side, top + side


def _text(tree: Tree, name: str) -> str:
    try:
        with tree.open_file(name) as file:
            return file.read(65_536).decode("latin-1")
    except Exception:  # see faults.parsed
        return ""  # an empty text is a fault to both callers
