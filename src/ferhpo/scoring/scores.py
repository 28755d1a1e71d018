"""Scores of validation and test images in two variants: `all` images of the split, and `dedup`, without the images
whose pixels are also in training. `score_variants` is the one function that computes both.

Note: "training" means the images that the network was trained on. Images left out by data.train_subset are not among
them; on another data set, the images of the network's own training set count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, FaceData, array_digest
from ferhpo.data.splits import identical_groups, overlap_mask
from ferhpo.scoring.predict import Evaluation, confusion_of, macro_f1

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)  # the logarithm of a probability of 0 is not finite
_MOST_MASKS = 16
_masks: dict[tuple[str, str], NDArray[np.bool_]] = {}  # a reused worker hashes its images once, not once per trial


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images: their number, accuracy and macro F1 (0..1), mean cross-entropy.

    metrics: further metrics, by name
    """

    n: int
    acc: float
    macro_f1: float
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreVariants:
    """Scores of one split in both variants.

    all: all images of the split
    dedup: without the images that are also in training; None if none is left, or if the training images are unknown
    """

    all: Scores
    dedup: Scores | None


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class: its number of images, precision, recall and F1 (0..1)."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


def score_variants(
    predictions: Evaluation,
    data: FaceData,
    in_training: NDArray[np.bool_] | None = None,
) -> ScoreVariants:
    """Score the predictions for a split of `data` in both variants.

    in_training: bool [N] over all images of `data`, True for images whose pixels the network was trained on; by default
        compared with the training images of `data` itself
    """
    in_training = in_training_mask(data) if in_training is None else in_training
    keep = ~in_training[predictions.indices]
    everything = score(predictions.probabilities, data, predictions.indices)
    dedup = score(predictions.probabilities[keep], data, predictions.indices[keep]) if keep.any() else None
    return ScoreVariants(everything, dedup)


def subset(found: Evaluation, keep: NDArray[np.bool_], scores: Scores) -> Evaluation:
    """Return the predictions of the images to keep, bool [N]; scores: those of these images"""
    probabilities, labels = found.probabilities[keep], found.labels[keep]
    predicted = torch.from_numpy(probabilities.argmax(1))
    confusion = confusion_of(predicted, torch.from_numpy(labels), probabilities.shape[1])
    kept = found.indices[keep]
    return Evaluation(scores.loss, scores.acc, scores.macro_f1, confusion, probabilities, labels, kept)


def score(probabilities: NDArray[np.float32], data: FaceData, indices: NDArray[np.intp]) -> Scores:
    """Score predicted probabilities float32 [n, classes] of the images at `indices` of `data`."""
    labels, predicted = data.labels[indices], probabilities.argmax(1)
    logs = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    shares = np.eye(data.num_classes)[labels] if data.targets is None else data.targets[indices]
    losses = -(shares * logs).sum(1)
    f1 = macro_f1(torch.from_numpy(predicted), torch.from_numpy(labels), data.num_classes)
    return Scores(len(labels), float((predicted == labels).mean()), f1, float(losses.mean()))


def class_scores(confusion: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassScore]:
    """Return precision, recall and F1 of each class from a confusion matrix int64 [classes, classes], rows true.

    A score whose denominator is 0 is 0.
    """
    right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    return [
        ClassScore(name, int(true[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i, name in enumerate(class_names)
    ]


def in_training_mask(data: FaceData, training: FaceData | None = None) -> NDArray[np.bool_]:
    """Return bool [N], True for validation and test images of `data` with the pixels of a training image.

    training: the data set that the network was trained on, if it is not `data`
    """
    if training is not None and training.digest != data.digest:
        return matches_any(data, training.images[training.split == TRAIN])
    key = data.digest, array_digest(data.split)  # a fold changes the split, but not the digest
    if key not in _masks:
        if len(_masks) >= _MOST_MASKS:
            _masks.clear()
        _masks[key] = overlap_mask(data)
    return _masks[key]


def matches_any(data: FaceData, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool [N], True for images of `data` that are identical to one of `images`; never if the shapes differ."""
    if not len(images) or images.shape[1:] != data.images.shape[1:]:
        return np.zeros(len(data.images), np.bool_)
    groups = identical_groups(np.concatenate([images, data.images]))
    has_match = np.zeros(int(groups.max()) + 1, np.bool_)
    has_match[groups[: len(images)]] = True
    return has_match[groups[len(images) :]]
