"""The validation predictions of a training's best epoch, in a file that stays when its checkpoints are removed.

From them, statistics about the choice among trials, comparisons and ensembles are computed without a network.

The file is a line of JSON and the arrays behind each other, compressed. It has no format of NumPy's or torch's, so that
a file of anyone is read in memory that its first line bounds.
"""

import json
import math
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import FaceData
from ferhpo.disk import disk_refused, read_file, unguessable
from ferhpo.errors import SweepError
from ferhpo.parse import parse_json, shape_fault
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.scores import in_training_mask

FILE = "val_predictions"
FORMAT = 1
MOST_PROBABILITIES = 25_200  # 50 kB: all 3,589 images of FER2013's PublicTest with 7 classes
MOST_CLASSES = 1000  # of which more than a few images are kept
_MOST_BYTES = 1_000_000  # of a file, and of its arrays


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_SHAPE = {"format": int, "epoch": int, "digest": str, "images": int, "kept": int, "classes": int, "soft": _is_flag}


@dataclass(frozen=True)
class ValPredictions:
    """The predictions of a network for validation images.

    epoch: whose network it is
    digest: of the data set, FaceData.digest
    num_images: of the validation split; if it is larger than what is kept, the kept ones were drawn at random, the same
        ones for every network
    indices: int64 [N], of the kept images in the data set
    labels: int64 [N]
    probabilities: float16 [N, classes]; each row has its maximum where that of the network has it
    losses: float32 [N], cross-entropies, with the soft targets if the data has them
    in_training: bool [N], True for images whose pixels are also in training
    """

    epoch: int
    digest: str
    num_images: int
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float16]
    losses: NDArray[np.float32]
    in_training: NDArray[np.bool_]

    def is_of(self, data: FaceData) -> bool:
        """Return whether they are for images and classes of a data set, as those are that ferhpo wrote."""
        if self.probabilities.shape[1] != data.num_classes or (self.indices >= len(data.labels)).any():
            return False
        return bool((data.labels[self.indices] == self.labels).all())


def write_predictions(folder: Path, found: Evaluation, data: FaceData, epoch: int) -> None:
    """Write the predictions for the validation split of `data` into a training's folder. Raises StorageError."""
    num_images, num_classes = found.probabilities.shape
    if not 2 <= num_classes <= MOST_CLASSES:
        return
    kept = np.arange(num_images)
    if num_images * num_classes > MOST_PROBABILITIES:
        kept = np.sort(np.random.default_rng(0).permutation(num_images)[: MOST_PROBABILITIES // num_classes])
    indices = found.indices[kept]
    head = {
        "format": FORMAT,
        "epoch": epoch,
        "digest": data.digest,
        "images": num_images,
        "kept": len(kept),
        "classes": num_classes,
        "soft": data.targets is not None,
    }
    arrays: list[NDArray[Any]] = [
        np.diff(indices, prepend=0).astype("<i4"),  # small numbers, which zlib compresses well
        found.labels[kept].astype("<u2"),
        in_training_mask(data)[indices],
        _as_half(found.probabilities[kept]),
    ]
    if data.targets is not None:
        logs = np.log(np.maximum(found.probabilities[kept], np.finfo(np.float32).smallest_subnormal))
        arrays.append(-(data.targets[indices] * logs).sum(1).astype("<f2"))
    # The bytes of a number apart: the upper ones, with the exponents, repeat.
    content = b"".join(
        np.ascontiguousarray(array.view(np.uint8).reshape(-1, array.itemsize).T).tobytes() for array in arrays
    )
    path = folder / FILE
    temporary = unguessable(path)
    try:
        with temporary.open("xb") as file:
            file.write(json.dumps(head).encode() + b"\n" + zlib.compress(content, 1))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first reason counts
            temporary.unlink(missing_ok=True)
        raise disk_refused(folder, error) from None


def read_predictions(folder: Path) -> ValPredictions | None:
    """Return the predictions in a training's folder; None if there are none. Raises SweepError for a damaged file."""
    path = folder / FILE
    try:
        line, _, packed = read_file(path, _MOST_BYTES).partition(b"\n")
        head = parse_json(line)
        if fault := shape_fault(head, _SHAPE) or _head_fault(head):
            raise ValueError(fault)
        return _unpacked(head, packed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zlib.error) as error:
        raise SweepError(f"{path} is damaged ({error}); restore it from a copy, or remove it") from None


def _head_fault(head: dict[str, Any]) -> str:
    if head["format"] != FORMAT:
        return f"it has format {head['format']}; this version of ferhpo reads format {FORMAT}"
    num_values = max(head["kept"], 1) * max(head["classes"], 1)
    if (
        head["kept"] < 1
        or not 2 <= head["classes"] <= MOST_CLASSES
        or head["images"] < head["kept"]
        or num_values > MOST_PROBABILITIES
    ):
        return f"it has {head['kept']} of {head['images']} images and {head['classes']} classes"
    return ""


def _unpacked(head: dict[str, Any], packed: bytes) -> ValPredictions:
    kept, classes = head["kept"], head["classes"]
    types = [("<i4", 1), ("<u2", 1), ("?", 1), ("<f2", classes), *([("<f2", 1)] if head["soft"] else [])]
    sizes = [kept * count * np.dtype(kind).itemsize for kind, count in types]
    content = zlib.decompressobj().decompress(packed, sum(sizes) + 1)
    if len(content) != sum(sizes):
        raise ValueError(f"its arrays have {len(content)} bytes, for {kept} images")
    arrays: list[NDArray[Any]] = []
    for (kind, count), start, size in zip(types, np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
        width = np.dtype(kind).itemsize
        block = np.frombuffer(content, np.uint8, size, start).reshape(width, kept * count)
        array = np.ascontiguousarray(block.T).view("<u1" if kind == "?" else kind)
        arrays.append(array.reshape(kept, count) if count > 1 else array.reshape(kept))
    steps, labels, in_training, probabilities, *losses = arrays
    labels, probabilities = labels.astype(np.int64), probabilities.astype(np.float16)
    if labels.max() >= classes or (steps[1:] < 1).any() or steps[0] < 0:
        raise ValueError("its labels or images are out of order")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("its probabilities are not between 0 and 1")
    own = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0].astype(np.float32)
    least = float(np.finfo(np.float16).smallest_subnormal)
    of_labels = -np.log(np.maximum(own, least))
    return ValPredictions(
        epoch=head["epoch"],
        digest=head["digest"],
        num_images=head["images"],
        indices=np.cumsum(steps, dtype=np.int64),
        labels=labels,
        probabilities=probabilities,
        losses=losses[0].astype(np.float32) if losses else of_labels,
        in_training=in_training.astype(bool),
    )


def _as_half(probabilities: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return probabilities as float16, with each row's first maximum where it was: rounding makes some equal."""
    half = probabilities.astype("<f2")
    predicted = probabilities.argmax(1)
    moved = np.flatnonzero(half.argmax(1) != predicted)
    raised = np.nextafter(half[moved].max(1), np.float16(math.inf))
    half[moved, predicted[moved]] = raised
    return half
