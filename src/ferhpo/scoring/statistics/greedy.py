"""Choose the members of an ensemble from the predictions of many networks.

Greedy selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes 2004, Ensemble Selection from Libraries of
Models): again and again, the network is added whose addition makes the mean of the probabilities best; a network that
is added several times has a larger share. The best of all sizes on the way is taken.

The ensemble is chosen by the images on which it is then scored, so its score is corrected as that of a best trial is:
the whole selection is repeated on bootstrap samples, and scored on the images outside.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 25
NUM_DRAWS = 100
# Returns the scores [K] of mean probabilities [K, N, classes] for images weighted [N]; larger is better
Score = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Selection:
    """A chosen ensemble, as scores of which larger ones are better.

    counts: how often each network was added, by its place; score: on all images; path: after each step
    corrected: the score to expect on other images; single: the same for the best single network
    gain, low, high: how much better the ensemble is than the best single network, with its 95 % interval; corrected
    """

    counts: dict[int, int]
    score: float
    path: list[float]
    corrected: float
    single: float
    gain: float
    low: float
    high: float


def greedy(
    probabilities: NDArray[np.float32], score: Score, weights: NDArray[np.float32]
) -> tuple[list[int], list[float]]:
    """Return the networks in the order in which they are added, and the score after each step.

    probabilities: [networks, N, classes]; weights: [N], how often each image counts
    """
    total = np.zeros(probabilities.shape[1:], np.float32)
    added: list[int] = []
    path: list[float] = []
    for step in range(1, MOST_STEPS + 1):
        scores = score((total + probabilities) / np.float32(step), weights)
        best = int(scores.argmax())
        added.append(best)
        path.append(float(scores[best]))
        total += probabilities[best]
    return added, path


def best_prefix(added: Sequence[int], path: Sequence[float]) -> list[int]:
    """Return the networks up to the step with the best score, the first of equal ones."""
    return list(added[: int(np.argmax(path)) + 1])


def select(probabilities: NDArray[np.float32], score: Score, num_draws: int = NUM_DRAWS) -> Selection:
    """Choose an ensemble of networks, and correct its score for the choice. The result is the same at every call."""
    num_images = probabilities.shape[1]
    ones = np.ones(num_images, np.float32)
    added, path = greedy(probabilities, score, ones)
    chosen = best_prefix(added, path)
    random = np.random.default_rng(0)
    found, singles = [], []
    for _ in range(num_draws):
        drawn = np.bincount(random.integers(num_images, size=num_images), minlength=num_images).astype(np.float32)
        outside = (drawn == 0).astype(np.float32)
        members = best_prefix(*greedy(probabilities, score, drawn))
        single = int(score(probabilities, drawn).argmax())
        both = np.stack([mean_of(probabilities, members), probabilities[single]])
        ensemble, alone = score(both, outside)
        found.append(ensemble)
        singles.append(alone)
    gains = np.array(found) - np.array(singles)
    # Scores outside a sample are those of 37 % of the images.
    narrowed = np.sqrt(np.exp(-1) / (1 - np.exp(-1)))
    low, high = gains.mean() + narrowed * (np.percentile(gains, [2.5, 97.5]) - gains.mean())
    return Selection(
        counts=dict(Counter(chosen)),
        score=max(path),
        path=path,
        corrected=float(np.mean(found)),
        single=float(np.mean(singles)),
        gain=float(gains.mean()),
        low=float(low),
        high=float(high),
    )


def mean_of(probabilities: NDArray[np.float32], members: Sequence[int]) -> NDArray[np.float32]:
    """Return the mean probabilities [N, classes] of the members, which may repeat."""
    counts = Counter(members)
    weighted = [probabilities[place] * np.float32(count) for place, count in counts.items()]
    return np.sum(weighted, axis=0) / np.float32(len(members))  # type: ignore[no-any-return]


def accuracy_score(labels: NDArray[np.int64]) -> Score:
    """Return the score of the accuracy."""

    def score(mean: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
        right = (mean.argmax(2) == labels).astype(np.float32)
        return np.asarray(right @ weights, np.float64) / weights.sum()  # type: ignore[no-any-return]

    return score


def loss_score(labels: NDArray[np.int64]) -> Score:
    """Return the score of the cross-entropy, which is its negative."""

    def score(mean: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
        own = np.take_along_axis(mean, labels[None, :, None], 2)[:, :, 0]
        return np.asarray(np.log(np.maximum(own, 1e-7)) @ weights, np.float64) / weights.sum()  # type: ignore[no-any-return]

    return score


def confusion_score(labels: NDArray[np.int64], num_classes: int, of: Callable[[NDArray[Any]], NDArray[Any]]) -> Score:
    """Return the score of a function of confusion matrices [..., classes, classes], rows are true classes."""

    def score(mean: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
        cells = labels * num_classes + mean.argmax(2)
        counts = np.stack([np.bincount(row, weights, num_classes**2) for row in cells])
        return np.asarray(of(counts.reshape(len(mean), num_classes, num_classes)), np.float64)

    return score
