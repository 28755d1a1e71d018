"""Panels of a trial against scikit-learn, against the counts of the network, and against hand-made curves."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from ferhpo.config import Objective
from ferhpo.data.synthetic import load
from ferhpo.models.cnn import CNN
from ferhpo.models.count import count_macs, count_parameters
from ferhpo.models.vit import ViT
from ferhpo.reports.network import layers
from ferhpo.reports.trial import classes, collapse, confusion, curves
from ferhpo.scoring.collapse import collapse as collapse_text
from ferhpo.scoring.collapse import most_answered
from ferhpo.storage.trial_record import TrialRecord

NAMES = ("angry", "happy", "sad")
ACCURACY = Objective("val_acc", "max")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@given(arrays(np.int64, st.tuples(st.just(2), st.integers(1, 30)), elements=st.integers(0, 2)))
@settings(max_examples=80, deadline=None)
def test_scores_by_class_are_those_of_scikit_learn(labels):
    true, predicted = labels
    matrix = confusion_matrix(true, predicted, labels=range(3))
    expected = precision_recall_fscore_support(true, predicted, labels=range(3), zero_division=0)
    found = confusion.class_scores(matrix, NAMES)
    for key, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        assert [row[key] for row in found[:-1]] == pytest.approx(values.tolist())
        if key != "images":
            assert found[-1][key] == pytest.approx(values.mean())


def test_a_confusion_is_described_in_words(tmp_path):
    panel = confusion.of_matrix([[8, 2, 0], [3, 7, 0], [1, 9, 0]], NAMES, tmp_path)
    assert panel.text == (
        "Accuracy 0.5000 on 30 images. Recall is highest for angry (80%) and lowest for sad (0%). Most frequent confusion: "
        "90% of sad predicted as happy. Never predicted: sad."
    )
    assert [path.name for path in panel.images] == ["confusion_images.svg", "confusion_shares.svg"]
    assert confusion.of_matrix(np.zeros((3, 3), int).tolist(), NAMES, tmp_path) is None


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[0, 10, 0], [1, 9, 0], [0, 10, 0]], "happy 96.7 %"),
        ([[1, 9, 0], [1, 9, 0], [1, 9, 0]], ""),  # exactly 90 %, not more
        ([[1, 9, 0], [0, 10, 0], [0, 9, 1]], "happy 93.3 %"),
        ([[0, 1, 0], [0, 99, 0], [0, 0, 0]], ""),  # and so are the labels
    ],
)
def test_a_collapse_is_named(matrix, expected):
    assert collapse_text(most_answered(matrix, NAMES)) == expected
    panel = collapse.of_confusion(matrix, NAMES)
    assert (panel is not None) == bool(expected)
    if panel is not None:
        assert panel.is_warning
        assert "predicts happy for" in panel.text


def test_the_warning_of_a_sweep_names_the_best_first():
    found = most_answered([[0, 10, 0], [0, 10, 0], [0, 10, 0]], NAMES)
    trials = [TrialRecord(n, "COMPLETE", {}, 0, extra={"most_answered": found} if n else {}) for n in range(3)]
    assert collapse.collapse_warnings(trials, trials[2]) == [
        "2 trials collapsed, including the best: trial 2 predicts happy 100.0 % of the time; "
        "trial 1 predicts happy 100.0 % of the time"
    ]
    assert collapse.collapse_warnings(trials[:1], None) == []


class Shared(nn.Module):
    """A layer used twice, and a parameter of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.layer = nn.Flatten(), nn.Linear(16, 16)
        self.scale = nn.Parameter(nn.Linear(1, 1).weight.detach())

    def forward(self, x):
        return self.layer(self.layer(self.flat(x))) * self.scale


NETWORKS = {
    "cnn": (lambda: CNN(in_channels=1, num_classes=7, image_size=48, block_channels=8, stem_channels=4), (1, 48, 48)),
    "vit": (lambda: ViT(in_channels=1, num_classes=7, image_size=48), (1, 48, 48)),
    "shared": (Shared, (1, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_table_adds_up_to_the_counts_of_the_network(name, tmp_path):
    make, shape = NETWORKS[name]
    network = make()
    panel = layers.of_network(network, shape, tmp_path)
    *found, total = rows(panel.tables[0])
    assert int(total["parameters"]) == count_parameters(network) == sum(int(row["parameters"]) for row in found)
    assert int(total["macs"]) == count_macs(network, shape) == sum(int(row["macs"]) for row in found)
    assert f"{count_parameters(network):,} trainable parameters" in panel.text


def test_frozen_layers_train_no_parameters(tmp_path):
    network = NETWORKS["cnn"][0]()
    for parameter in network.features.parameters():
        parameter.requires_grad = False
    *_, total = rows(layers.of_network(network, (1, 48, 48), tmp_path).tables[0])
    assert int(total["parameters"]) == count_parameters(network)


def curve(*values):
    """A trial from (train_acc, val_acc, val_loss) an epoch."""
    keys = ("train_acc", "val_acc", "val_loss")
    epochs = [{"epoch": n, **dict(zip(keys, row, strict=True))} for n, row in enumerate(values, 1)]
    best = max(epochs, key=lambda row: row["val_acc"])
    return TrialRecord(0, "COMPLETE", {}, 0, epochs, value=best["val_acc"], best_epoch=best["epoch"])


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (
            curve((0.5, 0.5, 1.0), (0.9, 0.6, 0.8), (0.99, 0.55, 1.2)),
            "30.0 points above validation accuracy at that epoch: overfitting.",
        ),
        (curve((0.5, 0.5, 1.0), (0.9, 0.6, 0.8), (0.99, 0.55, 1.2)), "lowest at epoch 2 (0.800) and rises to 1.200"),
        (
            curve((0.4, 0.5, 1.0), (0.5, 0.6, 0.8)),
            "10.0 points below validation accuracy at that epoch: no overfitting.",
        ),
        (curve((0.4, 0.5, 1.0), (0.5, 0.6, 0.8)), "still falling at the last epoch"),
        (curve((0.5, 0.48, 1.0)), "2.0 points above validation accuracy at that epoch, a small gap."),
    ],
)
def test_curves_are_described_in_words(trial, words):
    assert words in curves.describe(trial, ACCURACY)


def test_curves_are_drawn_from_one_epoch_and_from_some_metrics(tmp_path):
    assert len(curves.of_trial(curve((0.5, 0.5, 1.0)), ACCURACY, tmp_path).images) == 2
    alone = TrialRecord(0, "COMPLETE", {}, 0, [{"epoch": 1, "val_acc": 0.5}], value=0.5, best_epoch=1)
    assert len(curves.of_trial(alone, ACCURACY, tmp_path).images) == 1
    assert curves.of_trial(TrialRecord(0, "FAILED", {}, 0), ACCURACY, tmp_path) is None


def test_the_class_distribution_counts_every_image(tmp_path):
    data = load(num_train=140, num_val=70, num_test=14)
    panel = classes.of_data(data, tmp_path)
    table = rows(panel.tables[0])
    assert {key: int(table[-1][key]) for key in ("train", "val", "test")} == {"train": 140, "val": 70, "test": 14}
    for index, name in enumerate(data.class_names):
        assert int(table[index]["train"]) == int(((data.labels == index) & (data.split == 0)).sum()), name
