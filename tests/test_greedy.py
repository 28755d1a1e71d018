"""The choice of an ensemble: against brute force, and a simulation of what its correction is for."""

import itertools

import numpy as np
import pytest

from ferhpo.scoring.statistics.choice import macro_f1_of
from ferhpo.scoring.statistics.greedy import (
    accuracy_score,
    best_prefix,
    confusion_score,
    greedy,
    loss_score,
    mean_of,
    select,
)


def networks(random, num_networks, num_images, num_classes=4, own=1.0, noise=2.0):
    """Networks whose logits are right on average, with noise of their own."""
    labels = random.integers(num_classes, size=num_images)
    truth = np.eye(num_classes)[labels] * own
    logits = truth + noise * random.standard_normal((num_networks, num_images, num_classes))
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(2, keepdims=True)).astype(np.float32), labels


def test_each_step_is_the_best_one():
    random = np.random.default_rng(0)
    probabilities, labels = networks(random, 4, 60)
    score, ones = loss_score(labels), np.ones(60, np.float32)
    added, path = greedy(probabilities, score, ones)
    for step in range(1, 6):
        values = [score(mean_of(probabilities, [*added[: step - 1], other])[None], ones)[0] for other in range(4)]
        assert path[step - 1] == pytest.approx(max(values), abs=1e-5)


def test_a_greedy_choice_comes_near_the_best_of_all():
    random = np.random.default_rng(1)
    probabilities, labels = networks(random, 4, 80)
    score, ones = loss_score(labels), np.ones(80, np.float32)
    added, path = greedy(probabilities, score, ones)
    every = (chosen for size in range(1, 6) for chosen in itertools.combinations_with_replacement(range(4), size))
    best = max(score(mean_of(probabilities, chosen)[None], ones)[0] for chosen in every)
    assert max(path) >= best - 0.01
    assert score(mean_of(probabilities, best_prefix(added, path))[None], ones)[0] == pytest.approx(max(path), abs=1e-5)


def test_the_shortest_of_equal_ensembles_is_taken():
    assert best_prefix([3, 1, 1], [0.5, 0.6, 0.6]) == [3, 1]


def test_weights_count_images():
    random = np.random.default_rng(2)
    probabilities, labels = networks(random, 3, 50)
    drawn = random.integers(50, size=70)
    weights = np.bincount(drawn, minlength=50).astype(np.float32)
    for score, again in (
        (accuracy_score(labels), accuracy_score(labels[drawn])),
        (loss_score(labels), loss_score(labels[drawn])),
        (confusion_score(labels, 4, macro_f1_of), confusion_score(labels[drawn], 4, macro_f1_of)),
    ):
        np.testing.assert_allclose(
            score(probabilities, weights), again(probabilities[:, drawn], np.ones(70, np.float32)), rtol=1e-5
        )


def test_the_corrected_gain_is_that_on_other_images():
    """The score on the images of the choice is too good; the corrected one is right, on average over 20 worlds."""
    raw, corrected, gains = [], [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        probabilities, labels = networks(random, 6, 6000, own=0.6)
        here, there = slice(0, 500), slice(500, None)
        score_here, score_there = accuracy_score(labels[here]), accuracy_score(labels[there])
        found = select(probabilities[:, here], score_here, num_draws=30)
        members = [place for place, count in found.counts.items() for _ in range(count)]
        ones = np.ones(5500, np.float32)
        truth = score_there(mean_of(probabilities[:, there], members)[None], ones)[0]
        single = score_there(probabilities[:, there], ones)[score_here(probabilities[:, here], np.ones(500)).argmax()]
        raw.append(found.score - truth)
        corrected.append(found.corrected - truth)
        gains.append((found.gain - (truth - single), found.low <= truth - single <= found.high))
    assert np.mean(raw) > 0.005
    assert abs(np.mean(corrected)) < 0.01
    assert abs(np.mean([error for error, _ in gains])) < 0.012
    assert np.mean([inside for _, inside in gains]) >= 0.8


def test_one_network_is_an_ensemble_of_itself():
    probabilities, labels = networks(np.random.default_rng(0), 1, 100)
    found = select(probabilities, accuracy_score(labels), num_draws=5)
    assert found.counts == {0: 1}
    assert found.gain == 0
