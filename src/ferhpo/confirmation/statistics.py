"""Statistics of a confirmation: means over fresh seeds with confidence intervals, ranks, and luck.

Note: the interval is that of the mean over seeds, on the same validation images. It describes the variation between
trainings, not the variation between images.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ferhpo.config import Objective
from ferhpo.storage.trial_record import CANDIDATE, TrialRecord, completed

if TYPE_CHECKING:
    from ferhpo.scoring.scores import Scores, ScoreVariants

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean of n values, their standard deviation (n - 1 degrees of freedom), and the t-interval of the mean.

    A single value has no deviation and no interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class MeanScores:
    """Mean scores of several networks on the same n images."""

    n: int
    acc: Mean
    macro_f1: Mean
    loss: Mean


@dataclass(frozen=True)
class MeanVariants:
    """Mean scores of `all` images of a split and without the images that are also in training, see scoring.scores."""

    all: MeanScores
    dedup: MeanScores | None


@dataclass(frozen=True)
class Candidate:
    """A trial of the confirmed sweep and its retrainings.

    trial, sample, sweep_value: its number, sample and value in the sweep
    trials: the numbers of its retrainings in the confirmation; without: the states of those that have no value
    score, dedup: the objective, and val_acc without images that are also in training, over the seeds
    rank: from 1, by the mean of `score`; candidates that lost a seed rank below those that lost none
    luck: by how much the value in the sweep is better than those on fresh seeds; None if they are not comparable
    """

    trial: int
    sample: dict[str, Any]
    sweep_value: float
    trials: tuple[int, ...]
    without: tuple[str, ...]
    score: Mean | None
    dedup: Mean | None
    rank: int
    luck: Mean | None


def mean_of(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Return the mean and its t-interval: mean ± t((1 + level) / 2, n - 1) * deviation / sqrt(n)."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Mean(1, mean, None, None, None, tuple(values))
    deviation = statistics.stdev(values)
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Mean(len(values), mean, deviation, mean - half, mean + half, tuple(values))


def rank_candidates(
    selected: Sequence[TrialRecord], trials: Sequence[TrialRecord], objective: Objective, comparable: bool
) -> list[Candidate]:
    """Return the candidates, best first.

    selected: trials of the sweep; trials: all trials of the confirmation, none of them running
    comparable: whether values of the sweep and of the confirmation were measured in the same way
    """
    sign = _sign(objective)
    candidates = []
    for candidate in selected:
        retrained = [trial for trial in trials if trial.sample[CANDIDATE] == candidate.number]
        complete = completed(retrained)
        values = [trial.value for trial in complete if trial.value is not None]
        dedup = [trial.dedup_acc for trial in complete if trial.dedup_acc is not None]
        assert candidate.value is not None
        gains = [sign * (candidate.value - value) for value in values]
        candidates.append(
            Candidate(
                trial=candidate.number,
                sample=candidate.sample,
                sweep_value=candidate.value,
                trials=tuple(trial.number for trial in retrained),
                without=tuple(trial.state for trial in retrained if trial not in complete),
                score=mean_of(values) if values else None,
                dedup=mean_of(dedup) if dedup else None,
                rank=0,
                luck=mean_of(gains) if gains and comparable else None,
            )
        )
    order = sorted(candidates, key=lambda c: (len(c.without), -sign * c.score.mean if c.score else 0.0, c.trial))
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(order, start=1)]


def median_trial(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord:
    """Return the trial with the median value; of an even number, the worse of the two in the middle."""
    assert trials
    sign = _sign(objective)
    return sorted(trials, key=lambda trial: (sign * (trial.value or 0.0), trial.number))[(len(trials) - 1) // 2]


def _sign(objective: Objective) -> float:
    return 1.0 if objective.is_better(1.0, 0.0) else -1.0


def mean_variants(networks: Sequence["ScoreVariants"]) -> MeanVariants:
    """Return the mean of each score over several networks that were evaluated on the same images."""
    dedup = [variants.dedup for variants in networks if variants.dedup is not None]
    return MeanVariants(_mean_scores([variants.all for variants in networks]), _mean_scores(dedup) if dedup else None)


def _mean_scores(scores: Sequence["Scores"]) -> MeanScores:
    acc, macro_f1, loss = (mean_of([getattr(each, key) for each in scores]) for key in ("acc", "macro_f1", "loss"))
    return MeanScores(scores[0].n, acc, macro_f1, loss)


def is_distinct(candidates: Sequence[Candidate]) -> bool:
    """Return whether the intervals of the first two candidates' means do not overlap; False if one has no interval."""
    ends = [(c.score.low, c.score.high) for c in candidates[:2] if c.score is not None]
    if len(ends) < 2 or any(low is None or high is None for low, high in ends):
        return False
    (low, high), (other_low, other_high) = ends
    return bool(low > other_high or high < other_low)  # type: ignore[operator]


def mean_curves(trials: Sequence[TrialRecord]) -> list[dict[str, float]]:
    """Return for each epoch the mean and the standard deviation of every metric over the seeds of each candidate.

    Names are e.g. trial_3/val_acc_mean and trial_3/val_acc_std; trial_3/n is how many seeds reached the epoch. Measured
    times and memory are left out.
    """
    rows: list[dict[str, float]] = []
    for candidate in dict.fromkeys(trial.sample[CANDIDATE] for trial in trials):
        retrained = [trial for trial in trials if trial.sample[CANDIDATE] == candidate and not trial.state.is_failure]
        for place in range(max((len(trial.epochs) for trial in retrained), default=0)):
            epochs = [trial.epochs[place] for trial in retrained if len(trial.epochs) > place]
            if len(rows) <= place:
                rows.append({})
            rows[place][f"trial_{candidate}/n"] = float(len(epochs))
            for key in (key for key in epochs[0] if key.startswith(("train_", "val_"))):
                values = [epoch[key] for epoch in epochs if key in epoch]
                rows[place][f"trial_{candidate}/{key}_mean"] = statistics.fmean(values)
                if len(values) > 1:
                    rows[place][f"trial_{candidate}/{key}_std"] = statistics.stdev(values)
    return rows
