"""Statistics of a confirmation: means over fresh seeds with confidence intervals, ranks, and luck.

Note: the interval is that of the mean over seeds, on the same validation images. It describes the variation between
trainings, not the variation between images.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ferhpo.config import Objective
from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean of n values, their deviation (over n - 1), and the t-interval of the mean; one value has neither."""

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """One trial of the confirmed sweep, trained again.

    trial: its number there, with the sample and the value that it had there
    trials: the numbers of its trainings in the confirmation; without: the states of those that gave no value
    score, clean: the objective, and val_acc without images that also stand in training, over the seeds
    rank: from 1, by the mean of `score`; candidates that lost a seed come after those that lost none
    luck: by how much the sweep's value flatters, its mean and interval; None where the values mean different things
    """

    trial: int
    sample: dict[str, Any]
    sweep_value: float
    trials: tuple[int, ...]
    without: tuple[str, ...]
    score: Mean | None
    clean: Mean | None
    rank: int
    luck: Mean | None


def mean_of(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Mean and t-interval: mean ± t((1 + level) / 2, n - 1) * deviation / sqrt(n)."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Mean(1, mean, None, None, None, tuple(values))
    deviation = statistics.stdev(values)
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Mean(len(values), mean, deviation, mean - half, mean + half, tuple(values))


def rank_candidates(
    chosen: Sequence[TrialRecord], trials: Sequence[TrialRecord], objective: Objective, comparable: bool
) -> list[Candidate]:
    """The candidates best first, from the sweep's trials `chosen` and the confirmation's `trials`, all of which ended.

    comparable: whether a value of the sweep and one of the confirmation mean the same
    """
    sign = 1.0 if objective.mode == "max" else -1.0
    found = []
    for candidate in chosen:
        mine = [trial for trial in trials if trial.sample["confirm.candidate"] == candidate.number]
        complete = [trial for trial in mine if trial.state == TrialState.COMPLETE and trial.value is not None]
        values = [trial.value for trial in complete if trial.value is not None]
        cleans = [trial.clean_acc for trial in complete if trial.clean_acc is not None]
        assert candidate.value is not None
        flattery = [sign * (candidate.value - value) for value in values]
        found.append(
            Candidate(
                trial=candidate.number,
                sample=candidate.sample,
                sweep_value=candidate.value,
                trials=tuple(trial.number for trial in mine),
                without=tuple(trial.state for trial in mine if trial not in complete),
                score=mean_of(values) if values else None,
                clean=mean_of(cleans) if cleans else None,
                rank=0,
                luck=mean_of(flattery) if flattery and comparable else None,
            )
        )
    order = sorted(found, key=lambda c: (len(c.without), -sign * c.score.mean if c.score else 0.0, c.trial))
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(order, start=1)]


def median_trial(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord:
    """The trial in the middle by its value; of two in the middle the worse, so that it never flatters."""
    assert trials
    sign = 1.0 if objective.mode == "max" else -1.0
    return sorted(trials, key=lambda trial: (sign * (trial.value or 0.0), trial.number))[(len(trials) - 1) // 2]


def means_of_lines(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Both lines of several networks, as `dataclasses.asdict` gives them, to the mean of each score over the networks;
    `n` is the number of images."""
    return {
        name: None
        if lines[0][name] is None
        else {
            key: lines[0][name]["n"] if key == "n" else mean_of([line[name][key] for line in lines])
            for key in lines[0][name]
        }
        for name in ("published", "clean")
    }


def told_apart(candidates: Sequence[Candidate]) -> bool:
    """Whether the interval of the first's mean lies clear of the second's; not where there is none."""
    ends = [(c.score.low, c.score.high) for c in candidates[:2] if c.score is not None]
    if len(ends) < 2 or any(low is None or high is None for low, high in ends):
        return False
    (low, high), (other_low, other_high) = ends
    return bool(low > other_high or high < other_low)  # type: ignore[operator]
