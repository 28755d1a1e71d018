"""The two lines in which a score of validation or test images is given: as the splits give it, and without the images
whose pixels also stand in training. The one function that computes both is `score_lines`.

What a reader would get wrong: "training" means the images that the network was trained on. An image outside
data.train_subset does not count as seen; and where a network meets another data set, its own training images count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_f1_score

from ferhpo.data.dataset import TRAIN, FaceData, array_digest
from ferhpo.data.splits import identical_groups, overlap_mask
from ferhpo.scoring.predict import Evaluation

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)  # a probability of 0 has no logarithm
_MOST_MASKS = 16
_masks: dict[tuple[str, str], NDArray[np.bool_]] = {}  # a warm worker hashes its images once, not once a trial


@dataclass(frozen=True)
class Line:
    """Scores of some images: how many there were, accuracy and macro F1 (0..1), cross-entropy."""

    n: int
    acc: float
    macro_f1: float
    loss: float


@dataclass(frozen=True)
class Lines:
    """`published`: all images of a split; `clean`: without those that also stand in training, None where none is left
    or nobody knows what stood there."""

    published: Line
    clean: Line | None


@dataclass(frozen=True)
class ClassScore:
    """How one class is answered: its images, precision, recall and F1 (0..1)."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


def score_lines(answers: Evaluation, data: FaceData, seen: NDArray[np.bool_] | None = None) -> Lines:
    """Score answers to a split of `data` in both lines.

    seen: bool [N] for all images of `data`, True where the network was trained on the same pixels; by default found in
        the training images of `data` itself
    """
    seen = seen_in_training(data) if seen is None else seen
    keep = ~seen[answers.indices]
    published = score(answers.probabilities, data, answers.indices)
    clean = score(answers.probabilities[keep], data, answers.indices[keep]) if keep.any() else None
    return Lines(published, clean)


def score(probabilities: NDArray[np.float32], data: FaceData, indices: NDArray[np.intp]) -> Line:
    """Score probabilities float32 [n, classes] that were answered to the images at `indices` of `data`."""
    labels, predicted = data.labels[indices], probabilities.argmax(1)
    logs = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    shares = np.eye(data.num_classes)[labels] if data.targets is None else data.targets[indices]
    losses = -(shares * logs).sum(1)
    f1 = multiclass_f1_score(
        torch.from_numpy(predicted), torch.from_numpy(labels), data.num_classes, "macro", validate_args=False
    )
    return Line(len(labels), float((predicted == labels).mean()), float(f1), float(losses.mean()))


def class_scores(confusion: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each class from int64 [classes, classes], rows true; 0 where nothing is divided."""
    right, true, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision, recall = right / np.maximum(answered, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + answered, 1)
    return [
        ClassScore(name, int(true[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i, name in enumerate(class_names)
    ]


def seen_in_training(data: FaceData, training: FaceData | None = None) -> NDArray[np.bool_]:
    """Say which validation and test images of `data` have the pixels of a training image; bool [N].

    training: the data set whose training images count, where it is another one
    """
    if training is not None and training.digest != data.digest:
        return stand_among(data, training.images[training.split == TRAIN])
    key = data.digest, array_digest(data.split)  # a fold may have been drawn without a new digest
    if key not in _masks:
        if len(_masks) >= _MOST_MASKS:
            _masks.clear()
        _masks[key] = overlap_mask(data)
    return _masks[key]


def stand_among(data: FaceData, others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which images of `data` are identical to one of `others`; bool [N]. Images of another shape never are."""
    if not len(others) or others.shape[1:] != data.images.shape[1:]:
        return np.zeros(len(data.images), np.bool_)
    groups = identical_groups(np.concatenate([others, data.images]))
    in_others = np.zeros(int(groups.max()) + 1, np.bool_)
    in_others[groups[: len(others)]] = True
    return in_others[groups[len(others) :]]
