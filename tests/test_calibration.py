"""Calibration against networks whose truth is known, and corruptions of images."""

import itertools

import numpy as np
import pytest

from ferhpo.scoring.corruptions import CORRUPTIONS, SEVERITIES, corrupted, kinds
from ferhpo.scoring.statistics.calibration import (
    abstention,
    calibration,
    error_of,
    fit_temperature,
    reliability,
    with_temperature,
)


def predictions(num_images, sharpness=1.0, seed=0, num_classes=5):
    """Probabilities that are calibrated, then sharpened: labels are drawn from the calibrated ones."""
    random = np.random.default_rng(seed)
    logits = 1.5 * random.standard_normal((num_images, num_classes))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) > random.random((num_images, 1))).argmax(1)
    shown = np.exp(sharpness * logits)
    return (shown / shown.sum(1, keepdims=True)).astype(np.float16), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0, 3.0])
def test_the_temperature_undoes_what_made_the_network_too_sure(sharpness):
    probabilities, labels = predictions(20_000, sharpness)
    assert fit_temperature(probabilities, labels) == pytest.approx(sharpness, rel=0.06)
    found = calibration(probabilities, labels)
    assert found.ece_after < 0.012
    assert found.nll_after <= found.nll + 1e-9
    if sharpness != 1:
        assert found.ece > 0.03


def test_a_temperature_changes_no_prediction_and_one_changes_nothing():
    probabilities, _ = predictions(500)
    scaled = with_temperature(probabilities, 2.7)
    np.testing.assert_array_equal(scaled.argmax(1), probabilities.argmax(1))
    np.testing.assert_allclose(with_temperature(probabilities, 1.0), probabilities, atol=2e-3)
    np.testing.assert_allclose(scaled.sum(1), 1)


def test_the_error_is_that_of_the_metric():
    import torch

    from ferhpo.scoring.metrics import ece
    from ferhpo.scoring.predict import Evaluation

    probabilities, labels = predictions(3000, 2.0)
    as_floats = probabilities.astype(np.float32)
    found = Evaluation(0, 0, 0, torch.zeros(5, 5), as_floats, labels, np.arange(3000))
    assert error_of(reliability(as_floats, labels)) == pytest.approx(ece(found), abs=1e-6)


def test_abstaining_reaches_the_wanted_accuracy():
    probabilities, labels = predictions(20_000)
    right = probabilities.argmax(1) == labels
    confidence = probabilities.astype(float).max(1)
    for wanted in (0.7, 0.8, 0.9):
        found = abstention(probabilities, labels, wanted)
        answered = confidence >= found.confidence
        assert answered.mean() == pytest.approx(found.coverage)
        assert right[answered].mean() == pytest.approx(found.accuracy)
        assert found.accuracy >= wanted
    assert abstention(probabilities, labels, 0.0).coverage == 1
    wrong = (probabilities.argmax(1) + 1) % 5
    assert abstention(probabilities, wrong, 0.5) is None


@pytest.fixture(scope="module", params=["gray", "color"])
def images(request):
    random = np.random.default_rng(0)
    shape = (6, 48, 48) if request.param == "gray" else (6, 32, 32, 3)
    smooth = random.integers(60, 200, (6, 4, 4, *shape[3:])).repeat(shape[1] // 4, 1).repeat(shape[2] // 4, 2)
    return smooth.astype(np.uint8)


def test_every_corruption_keeps_shape_and_type_and_is_repeatable(images):
    assert len(list(kinds())) == len(CORRUPTIONS) * len(SEVERITIES)
    for name, severity in kinds():
        found = corrupted(images, name, severity)
        assert (found.shape, found.dtype) == (images.shape, np.uint8), name
        np.testing.assert_array_equal(found, corrupted(images, name, severity))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_more(images, name):
    changes = [np.abs(corrupted(images, name, s).astype(int) - images).mean() for s in SEVERITIES]
    assert changes[0] > 0
    assert changes[-1] > 1.5 * changes[0]
    assert sum(later >= earlier for earlier, later in itertools.pairwise(changes)) >= 3
