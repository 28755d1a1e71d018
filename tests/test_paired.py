"""Statistics of networks on the same images, against other implementations and simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from ferhpo.scoring.statistics.paired import difference, holm, mcnemar, wilson


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    total = only_first + only_second
    tail = binom.cdf(min(only_first, only_second), total, 0.5)
    assert mcnemar(only_first, only_second) == pytest.approx(min(1.0, 2 * tail) if total else 1.0, abs=1e-9)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_that_of_scipy(right, more):
    expected = binomtest(right, right + more).proportion_ci(method="wilson")
    assert wilson(right, right + more) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms())
def test_a_difference_counts_images(first, random):
    second = [random.random() < 0.5 for _ in first]
    found = difference(np.array(first), np.array(second))
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert found.only_first == sum(a and not b for a, b in zip(first, second, strict=True))
    mirrored = difference(np.array(second), np.array(first))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p_value == found.p_value


def test_the_interval_of_a_difference_has_the_truth_in_95_of_100_cases():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        hard = random.random(400)
        first, second = (hard + random.normal(0, 0.2, 400) < limit for limit in (0.65, 0.60))
        found = difference(first, second)
        inside += found.low <= 0.0488 <= found.high  # from 10 million images
    assert 0.93 <= inside / 1000 <= 0.97


def test_holm():
    """The example of statsmodels' documentation of multipletests, and ties."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
