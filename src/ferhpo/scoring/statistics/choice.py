"""How much of the best value of a sweep is luck: a bootstrap of the choice itself.

The best of several trials is chosen by the value that is then reported, so part of that value is noise of the
validation images. Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou and Borboudakis 2018, Machine
Learning 107) repeats the choice on images that are drawn with replacement, and scores each chosen trial on the images
that were not drawn; no network is trained.

Two things are added, each with its simulation in tests/test_choice.py:

- The choice on a bootstrap sample is noisier than the real one: its noise has twice the variance. What the real choice
  gains over it is estimated with the trials' values, shrunk to the spread that is not noise. Without this, the
  corrected value is 0.1 to 0.4 points too low if many trials are nearly equal.
- The interval is that of a score on all images, not on the 37 % that were not drawn. The noise that all trials have in
  common counts fully; that of each trial by itself less, the less the trials differ, since the correction then averages
  over many of them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.scoring.statistics.paired import Z

MOST_TRIALS = 200  # the best ones; no other is chosen on a bootstrap sample
NUM_DRAWS = 1000
_MOST_CELLS = 10_000_000  # of the confusion matrices in memory at a time
_FEW_TRIALS = 10  # from so many on, most of the probabilities come from a distribution without a form that is given
_GRID, _ROUNDS = 60, 60  # of the distribution of true scores
# Variance of the error of the corrected value, in units of a trial's own noise: if all trials are equal, and what is
# added if all their spread is real. From simulations.
_EQUAL, _DIFFERENT = 0.55, 0.7
# For metrics that are no sum over images or cells of the confusion matrix, e.g. a user's own
SLOW_TRIALS, _SLOW_DRAWS, _SLOW_SECONDS = 10, (40, 400), 2.0

Floats = NDArray[np.float64]
Counts = NDArray[np.floating[Any]]
Weights = NDArray[np.float32]  # [draws, N], how often each image was drawn
# Returns the scores [draws, trials] of all trials with the images weighted, larger is better
Scorer = Callable[[Weights], Floats]


@dataclass(frozen=True)
class Choice:
    """What is known about the best of several trials, as scores of which larger ones are better.

    corrected: its score, corrected for the choice among all; low, high: the 95 % interval of its true score
    probabilities: for each trial, the probability that its true score is the best
    """

    corrected: float
    low: float
    high: float
    probabilities: Floats


def choice(scores: Sequence[float], scorer: Scorer, num_images: int, num_draws: int = NUM_DRAWS) -> Choice:
    """Correct the best of `scores`, one for each trial.

    scorer: called with weights [draws, num_images]; of ones, it returns about `scores`
    The result is the same at every call: draws are seeded.
    """
    given = np.asarray(scores, np.float64)
    best = int(given.argmax())
    random = np.random.default_rng(0)
    weights = _bootstrap(num_images, num_draws, random)
    whole = scorer(np.ones((1, num_images), np.float32))[0]
    drawn = scorer(weights)
    left_out = scorer((weights == 0).astype(np.float32))
    chosen = drawn.argmax(1)
    found = left_out[np.arange(num_draws), chosen]
    noise = drawn - whole
    share = _share_of_spread(given, noise)
    gain = _gain(given, noise, share, random)
    corrected = given[best] + found.mean() - whole[best] + gain
    half = Z * _error(noise, best, share)
    probabilities = _probabilities(given, noise, random)
    return Choice(float(corrected), float(corrected - half), float(corrected + half), probabilities)


def _bootstrap(num_images: int, num_draws: int, random: np.random.Generator) -> Weights:
    """Return how often each image is in each of the samples, which are drawn with replacement."""
    drawn = random.integers(num_images, size=(num_draws, num_images))
    drawn += np.arange(num_draws)[:, None] * num_images
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float32)


def _share_of_spread(scores: Floats, noise: Floats) -> float:
    """Return which share of the variance of the scores is not noise, from 0 to 1."""
    own = noise - noise.mean(1, keepdims=True)  # what all trials have in common chooses none
    spread = scores.var()
    return float(max(0.0, 1 - (own**2).mean() / spread)) if spread > 0 else 0.0


def _probabilities(scores: Floats, noise: Floats, random: np.random.Generator) -> Floats:
    """Return how likely each trial is truly the best, from two estimates of the true scores.

    One draws them with a normal distribution of the true scores, whose spread is itself uncertain: right about few
    trials. The other estimates their distribution without a form that is given: right about many, some of them bad.
    Each alone is too sure where the other is right (simulations in tests/test_choice.py), so the more trials there are,
    the more of the draws are of the second kind.
    """
    num_trials = noise.shape[1]
    own = ((noise - noise.mean(1, keepdims=True)) ** 2).mean()  # what all trials have in common chooses none
    deviation = float(np.sqrt(own * num_trials / max(num_trials - 1, 1)))
    if num_trials == 1 or np.ptp(scores) == 0:
        return np.full(num_trials, 1 / num_trials)
    if deviation == 0:
        return np.eye(num_trials)[scores.argmax()]  # type: ignore[no-any-return]
    num_draws = 2 * len(noise)
    num_free = num_draws * (num_trials - 2) // (num_trials - 2 + _FEW_TRIALS)  # two points have no distribution
    best = np.concatenate(
        [
            _normal_scores(scores, deviation, num_draws - num_free, random).argmax(1),
            _free_scores(scores, deviation, num_free, random).argmax(1),
        ]
    )
    return np.bincount(best, minlength=num_trials) / num_draws


def _normal_scores(scores: Floats, deviation: float, num_draws: int, random: np.random.Generator) -> Floats:
    """Draw true scores [draws, trials] under a normal distribution of unknown mean and spread.

    The prior of the spread is half-Cauchy with the scale of the noise, that of the mean flat (Gelman 2006, Bayesian
    Analysis 1).
    """
    num_trials = len(scores)
    spreads = deviation * np.tan((np.arange(_GRID) + 0.5) / _GRID * math.pi / 2)
    variances = spreads**2 + deviation**2
    squares = float(((scores - scores.mean()) ** 2).sum())
    logarithm = -0.5 * (num_trials - 1) * np.log(variances) - 0.5 * squares / variances
    likelihood = np.exp(logarithm - logarithm.max())
    spread = spreads[random.choice(_GRID, size=num_draws, p=likelihood / likelihood.sum())][:, None]
    variance = spread**2 + deviation**2
    mean = scores.mean() + np.sqrt(variance / num_trials) * random.standard_normal((num_draws, 1))
    kept = spread**2 / variance
    drawn = mean + kept * (scores - mean)
    found: Floats = drawn + np.sqrt(kept) * deviation * random.standard_normal((num_draws, num_trials))
    return found


def _free_scores(scores: Floats, deviation: float, num_draws: int, random: np.random.Generator) -> Floats:
    """Draw true scores [draws, trials] under the distribution that makes the scores likeliest.

    Source: Kiefer and Wolfowitz 1956, Annals of Mathematical Statistics 27; fitted on a grid by EM
    """
    grid = np.linspace(scores.min(), scores.max(), _GRID)
    likelihood = np.exp(-0.5 * ((scores[:, None] - grid) / deviation) ** 2) + 1e-300
    weights = np.full(_GRID, 1 / _GRID)
    for _ in range(_ROUNDS):
        posterior = likelihood * weights
        posterior /= posterior.sum(1, keepdims=True)
        weights = posterior.mean(0)
    shape = (num_draws, len(scores))
    places = (posterior.cumsum(1)[None] < random.random((*shape, 1))).sum(2).clip(max=_GRID - 1)
    within = random.random(shape) - 0.5  # equal points of the grid are no ties
    found: Floats = grid[places] + within * (grid[1] - grid[0])
    return found


def _error(noise: Floats, best: int, share: float) -> float:
    """Return the standard deviation of the corrected value's error."""
    num_trials = noise.shape[1]
    whole = float(noise[:, best].var())
    if num_trials == 1:
        return math.sqrt(whole)
    own = noise - noise.mean(1, keepdims=True)
    of_one = min(whole, float((own**2).mean()) * num_trials / (num_trials - 1))
    return math.sqrt(whole - of_one + of_one * (_EQUAL + _DIFFERENT * share))


def _gain(scores: Floats, noise: Floats, share: float, random: np.random.Generator) -> float:
    """Return how much better the trial is that is chosen with the real noise than with twice its variance."""
    true = scores.mean() + np.sqrt(share) * (scores - scores.mean())
    more = noise[random.permutation(len(noise))]
    return float((true[(true + noise).argmax(1)] - true[(true + noise + more).argmax(1)]).mean())


def sum_scorer(values: NDArray[np.float32]) -> Scorer:
    """Return the scorer of a mean over images, e.g. the accuracy. values: [trials, N], one for each image"""

    def scores(weights: Weights) -> Floats:
        return np.asarray(weights @ values.T, np.float64) / weights.sum(1, keepdims=True)  # type: ignore[no-any-return]

    return scores


def confusion_scorer(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int, of: Callable[[Counts], Counts]
) -> Scorer:
    """Return the scorer of a function of confusion matrices.

    predicted, labels: [trials, N] and [N]
    of: called with [draws, trials, classes, classes], rows are true classes; returns [draws, trials]
    """

    def scores(weights: Weights) -> Floats:
        block = max(1, _MOST_CELLS // (len(predicted) * num_classes**2))
        parts = [weights[start : start + block] for start in range(0, len(weights), block)]
        return np.concatenate([of(counts_of(part)) for part in parts]).astype(np.float64)

    def counts_of(weights: Weights) -> Counts:
        counts = np.zeros((len(weights), len(predicted), num_classes, num_classes), np.float32)
        for label in range(num_classes):
            places = np.flatnonzero(labels == label)
            cells = predicted[:, places, None] == np.arange(num_classes)  # [trials, images, classes]
            matrix = cells.transpose(1, 0, 2).reshape(len(places), len(predicted) * num_classes).astype(np.float32)
            counts[:, :, label] = (weights[:, places] @ matrix).reshape(len(weights), len(predicted), num_classes)
        return counts

    return scores


def slow_scorer(of_trial: Sequence[Callable[[NDArray[np.intp]], float]]) -> Scorer:
    """Return the scorer of functions that are called for each draw: with the drawn images, repeated."""

    def scores(weights: Weights) -> Floats:
        draws = (np.repeat(np.arange(weights.shape[1]), row.astype(np.intp)) for row in weights)
        return np.array([[function(images) for function in of_trial] for images in draws])

    return scores


def affordable_draws(function: Callable[[], float], num_trials: int) -> int:
    """Return how many draws of a slow scorer take some seconds; function: one call of it"""
    start = time.perf_counter()
    function()
    seconds = max(time.perf_counter() - start, 1e-6)
    least, most = _SLOW_DRAWS
    return int(np.clip(_SLOW_SECONDS / (2 * num_trials * seconds), least, most))


def macro_f1_of(counts: Counts) -> Counts:
    """Return the mean F1 of confusion matrices [..., classes, classes], over the classes that are true or predicted."""
    right, both = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1) + counts.sum(-2)
    return (2 * right / np.maximum(both, 1)).sum(-1) / (both > 0).sum(-1)  # type: ignore[no-any-return]


def balanced_acc_of(counts: Counts) -> Counts:
    """Return the mean recall of the classes that have images."""
    right, images = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    present = images > 0
    return (right / np.maximum(images, 1)).sum(-1) / present.sum(-1)  # type: ignore[no-any-return]


def kappa_of(counts: Counts) -> Counts:
    """Return Cohen's kappa."""
    total = counts.sum((-2, -1))
    agreed = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1) / total
    chance = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
    return (agreed - chance) / np.maximum(1 - chance, 1e-12)  # type: ignore[no-any-return]


# Metrics of the validation images that are functions of the confusion matrix
OF_CONFUSION: Mapping[str, Callable[[Counts], Counts]] = {
    "val_macro_f1": macro_f1_of,
    "val_balanced_acc": balanced_acc_of,
    "val_kappa": kappa_of,
}
