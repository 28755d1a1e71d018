"""Statistics of networks that were scored on the same images: intervals, differences, exact tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z = NormalDist().inv_cdf(0.975)
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """How often two networks are right on the same n images.

    difference: accuracy of the first minus that of the second; low, high: its 95 % interval
    only_first, only_second: numbers of images that only one of them gets right
    p_value: of McNemar's exact test that both are right equally often
    """

    n: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float


def difference(first: Flags, second: Flags) -> Difference:
    """Compare which images two networks get right, bool [N] each.

    The interval is the adjusted Wald interval for matched pairs (Agresti and Min 2005, Statistics in Medicine 24).
    """
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    found = (only_first - only_second) / n
    more, less, total = only_first + 0.5, only_second + 0.5, n + 2
    center = (more - less) / total
    half = Z * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return Difference(n, found, center - half, center + half, only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p value of McNemar's exact test, two-sided, from the numbers of images that only one gets right."""
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(min(only_first, only_second), total).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several (Holm 1979, Scandinavian Journal of Statistics 6)."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = least
    return adjusted


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, right of n (Wilson 1927)."""
    share, spread = right / n, Z**2 / n
    center = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, center - half), min(1.0, center + half)
