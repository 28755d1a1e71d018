"""Scores against those of scikit-learn."""

import numpy as np
import pytest
import torch
from tiny_training import make_data, make_network

from ferhpo.data.dataset import TEST, FaceData
from ferhpo.scoring.device_data import to_device
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of


def test_scores_are_scikit_learns(data: FaceData) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    network = make_network().train()
    scores = evaluate(network, data, "test", preprocess_of(data, 24, "dataset"), batch_size=7)
    labels, predicted = data.labels[data.split == TEST], scores.probabilities.argmax(1)
    assert scores.acc == metrics.accuracy_score(labels, predicted)
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert scores.loss == pytest.approx(metrics.log_loss(labels, scores.probabilities, labels=[0, 1, 2]), rel=1e-4)
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(labels, predicted, labels=[0, 1, 2]))
    np.testing.assert_array_equal(scores.indices, np.flatnonzero(data.split == TEST))
    assert network.training


def test_loss_is_that_of_the_soft_targets() -> None:
    data = make_data(soft=True)
    assert data.targets is not None
    scores = evaluate(make_network(), data, "val", preprocess_of(data, 24, "none"))
    expected = -(data.targets[scores.indices] * np.log(scores.probabilities)).sum(1).mean()
    assert scores.loss == pytest.approx(expected, rel=1e-5)


def test_batch_size_changes_no_result(data: FaceData) -> None:
    network, preprocess = make_network().eval(), preprocess_of(data, 24, "image")
    on_device = to_device(data, torch.device("cpu"))
    one, other = (
        evaluate(network, data, "train", preprocess, batch_size=size, on_device=on_device) for size in (1, 64)
    )
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
