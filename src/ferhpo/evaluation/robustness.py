"""How sure a network may be of its answers, and what becomes of them if images are worse than those of the data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.data.features.hog import hog_of
from ferhpo.evaluation.load import TrainedModel
from ferhpo.scoring.corruptions import SEVERITIES, corrupted, kinds
from ferhpo.scoring.device_data import device_for
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.predict import evaluate as predict
from ferhpo.scoring.statistics.calibration import Calibration, calibration, fit_temperature

MOST_IMAGES = 1000  # that are corrupted, evenly spaced among those of the split


@dataclass(frozen=True)
class Corrupted:
    """Scores of n images with a corruption; severity 0 and no name: the same images as they are."""

    corruption: str
    severity: int
    n: int
    acc: float
    macro_f1: float


def predicted(trained: TrainedModel, data: FaceData, split: str) -> Evaluation:
    """Return the predictions of a network for a split of a data set with its classes."""
    return predict(trained.network.to(device_for(trained.config)), data, split, trained.preprocess)


def calibrated(trained: TrainedModel, data: FaceData, split: str, found: Evaluation) -> Calibration:
    """Return the calibration of predictions for a split, with a temperature that is fitted to the validation images."""
    temperature = None
    if split != "val" and (data.split == SPLIT_NAMES.index("val")).any():
        val = predicted(trained, data, "val")
        temperature = fit_temperature(val.probabilities, val.labels)
    return calibration(found.probabilities, found.labels, temperature)


def robustness_of(
    trained: TrainedModel, data: FaceData, split: str, most: int = MOST_IMAGES, severities: Sequence[int] = SEVERITIES
) -> list[Corrupted]:
    """Score a network on at most `most` images of a split with every corruption, after the images as they are."""
    indices = np.flatnonzero(data.split == SPLIT_NAMES.index(split))
    if len(indices) > most:
        indices = indices[np.linspace(0, len(indices) - 1, most).astype(int)]
    images = data.images[indices]
    found = [_scored(trained, data, split, indices, images, "", 0)]
    for name, severity in kinds(severities):
        found.append(_scored(trained, data, split, indices, corrupted(images, name, severity), name, severity))
    return found


def _scored(
    trained: TrainedModel,
    data: FaceData,
    split: str,
    indices: NDArray[np.intp],
    images: NDArray[np.uint8],
    name: str,
    severity: int,
) -> Corrupted:
    hog = hog_of(trained.config["model"])
    part = replace(
        data,
        images=images,
        labels=data.labels[indices],
        targets=None if data.targets is None else data.targets[indices],
        split=np.full(len(indices), SPLIT_NAMES.index(split), np.uint8),
        groups=None,
        features=None if hog is None or data.features is None else hog(images),
        parts=(),
    )
    scores = predicted(trained, part, split)
    return Corrupted(name, severity, len(indices), scores.acc, scores.macro_f1)
