"""Whether probabilities say how often a network is right: temperature, calibration error, reliability, abstention.

The temperature divides the logits by one number, fitted to validation images (Guo et al. 2017, On Calibration of Modern
Neural Networks). It changes no prediction. Logits are known up to a constant from probabilities, so no network is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
LEAST_PROBABILITY = 1e-7  # as float16 keeps them
_LOWEST, _HIGHEST = 0.05, 20.0  # of the temperature
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence is from low to high: their number, mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Abstention:
    """A confidence below which a model abstains: the share of images that it answers, and its accuracy on these."""

    confidence: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The calibration of a network on n images.

    temperature: fitted to other images, or to these if there are none
    ece, ece_after: expected calibration error without and with the temperature; nll, nll_after: mean cross-entropy
    bins: with the temperature
    abstention: for each wanted accuracy that can be reached by abstaining, the lowest confidence that reaches it
    """

    n: int
    temperature: float
    ece: float
    ece_after: float
    nll: float
    nll_after: float
    bins: list[Bin]
    abstention: list[Abstention]


def fit_temperature(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Return the temperature with the smallest cross-entropy; from 0.05 to 20.

    probabilities, labels: [N, classes] and [N]
    """
    from scipy.optimize import minimize_scalar

    logs = _logs(probabilities)

    def loss(log_temperature: float) -> float:
        return _nll(_softmax(logs / np.exp(log_temperature)), labels)

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def with_temperature(probabilities: NDArray[np.floating[Any]], temperature: float) -> Floats:
    """Return the probabilities after the logits were divided by a temperature."""
    return _softmax(_logs(probabilities) / temperature)


def calibration(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    temperature: float | None = None,
    wanted: Sequence[float] = (0.8, 0.9, 0.95),
) -> Calibration:
    """Describe the calibration of predictions.

    temperature: fitted to other images; by default it is fitted to these, which is slightly too good
    wanted: accuracies to reach by abstaining
    """
    temperature = fit_temperature(probabilities, labels) if temperature is None else temperature
    scaled = with_temperature(probabilities, temperature)
    bins = reliability(scaled, labels)
    return Calibration(
        n=len(labels),
        temperature=temperature,
        ece=error_of(reliability(probabilities, labels)),
        ece_after=error_of(bins),
        nll=_nll(np.asarray(probabilities, np.float64), labels),
        nll_after=_nll(scaled, labels),
        bins=bins,
        abstention=[found for accuracy in wanted if (found := abstention(scaled, labels, accuracy)) is not None],
    )


def reliability(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> list[Bin]:
    """Return the bins of confidence that have predictions, of equal width, each without its lower bound."""
    confidence = np.asarray(probabilities, np.float64).max(1)
    right = probabilities.argmax(1) == labels
    places = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    return [
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            count=int((places == place).sum()),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in range(BINS)
        if (places == place).any()
    ]


def error_of(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error, the mean difference of accuracy and confidence, weighted by images."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def abstention(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], wanted: float, least: int = 30
) -> Abstention | None:
    """Return the lowest confidence from which on the answers have an accuracy; None if none reaches it.

    least: number of images that must be answered, so that it is not a matter of chance
    """
    confidence = np.asarray(probabilities, np.float64).max(1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(1) == labels)[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    sorted_confidence = confidence[order]
    # A threshold answers all images of the same confidence.
    is_end = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    reached = np.flatnonzero(is_end & (accuracy >= wanted) & (np.arange(1, len(right) + 1) >= least))
    if not len(reached):
        return None
    last = int(reached[-1])
    return Abstention(float(sorted_confidence[last]), (last + 1) / len(right), float(accuracy[last]))


def _logs(probabilities: NDArray[np.floating[Any]]) -> Floats:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)  # type: ignore[no-any-return]


def _nll(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    own = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    return float(-np.log(np.maximum(own, LEAST_PROBABILITY)).mean())
