"""Parts by subject: no group is divided, and sizes are as close to the wanted ones as in scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferhpo.data.splits.dealing import deal


def drawn_subjects(seed: int, num_images: int = 900, num_subjects: int = 110) -> tuple[np.ndarray, np.ndarray]:
    """Labels with rare classes, and subjects of about eight images of several classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, num_images, p=np.array([14, 18, 8, 21, 9, 25, 5]) / 100)
    return labels, rng.integers(0, num_subjects, num_images) * 3 - 50


def unevenness(labels: np.ndarray, part: np.ndarray, shares: list[float]) -> float:
    counts = np.array([np.bincount(labels[part == number], minlength=7) for number in range(len(shares))])
    return float(np.abs(counts / counts.sum(axis=0) - np.array(shares)[:, None]).mean())


@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.floats(0.05, 1), min_size=1, max_size=5))
def test_groups_are_whole_and_every_image_has_a_part(seed: int, num_subjects: int, weights: list[float]) -> None:
    labels, subjects = drawn_subjects(seed, 60, num_subjects)
    shares = [weight / sum(weights) for weight in weights]
    part = deal(labels, subjects, shares, np.random.default_rng(seed))
    assert part.dtype == np.int64
    assert set(part) <= set(range(len(shares)))
    assert all(len(set(part[subjects == subject])) == 1 for subject in set(subjects))
    np.testing.assert_array_equal(part, deal(labels, subjects, shares, np.random.default_rng(seed)))


def test_shares_of_every_class() -> None:
    for seed in range(5):
        labels, subjects = drawn_subjects(seed)
        shares = [0.1, 0.1, 0.8]
        assert unevenness(labels, deal(labels, subjects, shares, np.random.default_rng(0)), shares) < 0.02


@pytest.mark.full
def test_as_even_as_scikit_learn() -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs, shares = [], [], [0.2] * 5
    for seed in range(10):
        labels, subjects = drawn_subjects(seed)
        ours.append(unevenness(labels, deal(labels, subjects, shares, np.random.default_rng(seed)), shares))
        part = np.empty(len(labels), int)
        splitter = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for number, (_, chosen) in enumerate(splitter.split(labels, labels, subjects)):
            part[chosen] = number
        theirs.append(unevenness(labels, part, shares))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)
