"""The best value of a sweep, corrected for the choice among its trials: simulations with known truth."""

from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score

from ferhpo.scoring.statistics.choice import (
    _probabilities,
    balanced_acc_of,
    choice,
    confusion_scorer,
    kappa_of,
    macro_f1_of,
    slow_scorer,
    sum_scorer,
)

NUM_WORLDS = 150


def world(random, num_images, truths, shared=0.6):
    """Return which images each trial gets right, [trials, N]: some images are hard for all of them."""
    limits = np.array([NormalDist().inv_cdf(truth) for truth in truths])
    hardness = random.standard_normal(num_images) * shared**0.5
    own = random.standard_normal((len(truths), num_images)) * (1 - shared) ** 0.5
    return (hardness + own < limits[:, None]).astype(np.float32)


def simulate(num_images, num_trials, draw_truths, seed=0):
    """Return bias in points, coverage, and the mean probability of the chosen one beside how often it was the best."""
    random = np.random.default_rng(seed)
    errors, inside, probabilities, was_best = [], [], [], []
    for _ in range(NUM_WORLDS):
        truths = draw_truths(random, num_trials)
        right = world(random, num_images, truths)
        scores = right.mean(1)
        found = choice(scores, sum_scorer(right), num_images, num_draws=200)
        best = int(scores.argmax())
        # What all trials have in common has the mean 0; without it, fewer worlds suffice.
        common = (scores - truths).mean()
        errors.append(100 * (found.corrected - truths[best] - common))
        inside.append(found.low <= truths[best] <= found.high)
        probabilities.append(found.probabilities[best])
        was_best.append(truths[best] == truths.max())
    return np.mean(errors), np.mean(inside), np.mean(probabilities), np.mean(was_best)


def normal(spread):
    return lambda random, count: 0.62 + spread * random.standard_normal(count)


def skewed(spread):
    return lambda random, count: 0.66 - spread * random.exponential(size=count)


@pytest.mark.parametrize(
    ("num_trials", "truths"),
    [
        pytest.param(8, normal(0.01), id="8", marks=pytest.mark.full),
        pytest.param(30, normal(0.0), id="30 equal"),
        pytest.param(30, normal(0.01), id="30 close"),
        pytest.param(30, skewed(0.03), id="30 skewed", marks=pytest.mark.full),
        pytest.param(100, normal(0.02), id="100", marks=pytest.mark.full),
    ],
)
def test_the_corrected_value_is_the_truth_on_average(num_trials, truths):
    bias, coverage, probability, was_best = simulate(3589, num_trials, truths)
    assert abs(bias) < 0.1
    assert 0.9 <= coverage <= 0.98
    assert abs(probability - was_best) < 0.12 or was_best == 1  # all are equal: each is the best


@pytest.mark.parametrize("num_trials", [2, 4, 8])
@pytest.mark.parametrize("spread", [0.5, 2.0], ids=["half the noise", "twice the noise"])
def test_who_is_said_to_be_the_best_for_sure_is_it(num_trials, spread):
    """Also with few trials, from which little is known of the spread of the true scores."""
    random = np.random.default_rng(1)
    noise_of_one, sure, right, claims = 0.005, 0, 0, []
    for _ in range(600):
        true = random.normal(0, spread * noise_of_one, num_trials)
        scores = 0.5 + true + random.normal(0, noise_of_one, num_trials)
        found = _probabilities(scores, random.normal(0, noise_of_one, (200, num_trials)), random)
        best = scores.argmax()
        claims.append(found[best] - (true.argmax() == best))
        sure += found[best] > 0.9
        right += found[best] > 0.9 and true.argmax() == best
    assert abs(np.mean(claims)) < 0.12
    assert sure < 30 or right / sure > 0.8, (sure, right)


def test_the_best_value_itself_is_too_high():
    """What the correction is for: the same worlds without it."""
    random = np.random.default_rng(0)
    surplus = []
    for _ in range(60):
        truths = normal(0.01)(random, 30)
        scores = world(random, 3589, truths).mean(1)
        surplus.append(100 * (scores.max() - truths[scores.argmax()] - (scores - truths).mean()))
    assert np.mean(surplus) > 0.3


def test_one_trial_is_not_corrected():
    right = world(np.random.default_rng(1), 2000, [0.7])
    found = choice(right.mean(1), sum_scorer(right), 2000)
    assert abs(found.corrected - right.mean()) < 0.001
    assert found.low < right.mean() < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.21 / 2000) ** 0.5, rel=0.15)
    assert found.probabilities.tolist() == [1.0]


def test_a_trial_that_is_far_ahead_is_the_best():
    right = world(np.random.default_rng(1), 3589, [0.5, 0.5, 0.5, 0.6])
    found = choice(right.mean(1), sum_scorer(right), 3589)
    assert found.probabilities[3] == 1
    assert abs(found.corrected - right[3].mean()) < 0.001


def test_the_same_trials_give_the_same_result():
    right = world(np.random.default_rng(1), 500, [0.5, 0.51, 0.52])
    first, second = (choice(right.mean(1), sum_scorer(right), 500) for _ in range(2))
    assert (first.corrected, first.low, first.high) == (second.corrected, second.low, second.high)


@pytest.mark.parametrize(
    ("of", "oracle"),
    [
        (
            macro_f1_of,
            lambda true, predicted, weights: f1_score(true, predicted, average="macro", sample_weight=weights),
        ),
        (
            balanced_acc_of,
            lambda true, predicted, weights: balanced_accuracy_score(true, predicted, sample_weight=weights),
        ),
        (kappa_of, lambda true, predicted, weights: cohen_kappa_score(true, predicted, sample_weight=weights)),
    ],
    ids=["macro_f1", "balanced_acc", "kappa"],
)
def test_weighted_metrics_are_those_of_scikit_learn(of, oracle):
    random = np.random.default_rng(0)
    labels, predicted = random.integers(5, size=200), random.integers(5, size=(3, 200))
    predicted[:, :80] = labels[:80]
    weights = random.integers(1, 4, size=(4, 200)).astype(np.float32)
    found = confusion_scorer(predicted, labels, 5, of)(weights)
    expected = [[oracle(labels, predicted[trial], row) for trial in range(3)] for row in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_class_that_nobody_names_does_not_count():
    """As in torchmetrics, whose macro F1 is the one that trials report."""
    import torch

    from ferhpo.scoring.predict import macro_f1

    labels, predicted = np.array([0, 1, 1, 3]), np.array([0, 1, 3, 3])
    counts = np.zeros((5, 5))
    np.add.at(counts, (labels, predicted), 1)
    assert macro_f1_of(counts) == pytest.approx(macro_f1(torch.from_numpy(predicted), torch.from_numpy(labels), 5))


def test_a_class_without_images_and_many_classes_are_scored():
    """In blocks of draws, since all matrices together could have gigabytes."""
    random = np.random.default_rng(0)
    labels, predicted = random.integers(60, size=300), random.integers(120, size=(40, 300))
    weights = random.integers(0, 3, size=(30, 300)).astype(np.float32)
    found = confusion_scorer(predicted, labels, 120, macro_f1_of)(weights)
    one = confusion_scorer(predicted[3:4], labels, 120, macro_f1_of)(weights[7:8])
    assert found.shape == (30, 40)
    assert found[7, 3] == pytest.approx(one[0, 0])


def test_a_function_of_images_gets_those_that_were_drawn():
    right = world(np.random.default_rng(2), 100, [0.5, 0.7])
    functions = [lambda images, row=row: float(row[images].mean()) for row in right]
    slow = choice(right.mean(1), slow_scorer(functions), 100, num_draws=50)
    fast = choice(right.mean(1), sum_scorer(right), 100, num_draws=50)
    assert slow.corrected == pytest.approx(fast.corrected)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))
