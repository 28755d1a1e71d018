"""The metrics that come with ferhpo, against scikit-learn and torchmetrics and in the cases that have no value there."""

import time

import numpy as np
import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from ferhpo.scoring.metrics import CHOSEN, METRICS, MINIMIZED, chosen, direction, objective_names, section_faults
from ferhpo.scoring.objective import Objective
from ferhpo.scoring.predict import Evaluation, confusion_of
from ferhpo.training.epoch_end import Progress


def found(probabilities, labels) -> Evaluation:
    probabilities, labels = np.asarray(probabilities, np.float32), np.asarray(labels, np.int64)
    predicted = torch.from_numpy(probabilities.argmax(1))
    confusion = confusion_of(predicted, torch.from_numpy(labels), probabilities.shape[1])
    return Evaluation(0.0, 0.0, 0.0, confusion, probabilities, labels, np.arange(len(labels)))


def drawn(seed: int, num_images: int, classes: tuple[int, ...], num_classes: int = 7, digits: int = 7) -> Evaluation:
    """Predictions that are better than chance, for labels of `classes` only; few digits make equal probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, num_images)
    logits = rng.normal(size=(num_images, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    shares = np.exp(logits)
    return found(np.round(shares / shares.sum(1, keepdims=True), digits), labels)


CASES = [
    drawn(0, 500, tuple(range(7))),
    drawn(1, 500, tuple(range(7)), digits=1),
    drawn(2, 300, (0, 2, 5)),
    drawn(3, 40, (0, 1), num_classes=2),
    drawn(4, 12, (1, 2), num_classes=3),
]


@pytest.mark.parametrize("case", CASES)
def test_the_metrics_are_those_of_scikit_learn_and_torchmetrics(case):
    labels, shares = case.labels, case.probabilities
    predicted, classes = shares.argmax(1), range(shares.shape[1])
    values = {name: metric(case) for name, metric in CHOSEN.items()}
    assert all(type(value) is float for value in values.values())
    with np.errstate(all="ignore"):
        recalls = sklearn.metrics.recall_score(
            labels, predicted, labels=np.unique(labels), average=None, zero_division=0
        )
    assert values["balanced_acc"] == pytest.approx(recalls.mean())
    assert values["kappa"] == pytest.approx(sklearn.metrics.cohen_kappa_score(labels, predicted))
    areas = [sklearn.metrics.roc_auc_score(labels == c, shares[:, c]) for c in classes if (labels == c).any()]
    assert values["macro_auc"] == pytest.approx(np.mean(areas))
    expected = multiclass_calibration_error(torch.from_numpy(shares), torch.from_numpy(labels), len(classes), n_bins=15)
    assert values["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_top_2_is_that_of_scikit_learn_without_equal_probabilities():
    for case in (CASES[0], CASES[2]):
        labels = list(range(case.probabilities.shape[1]))
        expected = sklearn.metrics.top_k_accuracy_score(case.labels, case.probabilities, k=2, labels=labels)
        assert CHOSEN["top2_acc"](case) == pytest.approx(expected)


def test_equal_probabilities_are_ordered_as_for_the_accuracy():
    case = found(np.full((3, 3), 1 / 3), [0, 1, 2])
    assert CHOSEN["top2_acc"](case) == pytest.approx(2 / 3), "the classes 0 and 1 are the first two"
    for case in CASES:
        assert CHOSEN["top2_acc"](case) >= (case.probabilities.argmax(1) == case.labels).mean()
    assert CHOSEN["top2_acc"](CASES[3]) == 1


def test_calibration_by_hand():
    """Confidences 0.6 (right), 0.6 (wrong) and 0.9 (right): (|0.6 - 0.5| * 2 + |0.9 - 1| * 1) / 3."""
    case = found([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]], [0, 1, 0])
    assert CHOSEN["ece"](case) == pytest.approx(0.1, abs=1e-6)
    sure = found(np.eye(3), [0, 1, 2])
    assert CHOSEN["ece"](sure) == 0
    assert CHOSEN["ece"](found(np.eye(3), [1, 2, 0])) == 1


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (found(np.eye(3)[[0, 0]], [0, 0]), {"balanced_acc": 1, "kappa": 0, "macro_auc": 0.5, "top2_acc": 1, "ece": 0}),
        (found(np.eye(3)[[1, 2]], [0, 0]), {"balanced_acc": 0, "kappa": 0, "macro_auc": 0.5, "ece": 1}),
        (found([[1.0]], [0]), {"balanced_acc": 1, "kappa": 0, "macro_auc": 0.5, "top2_acc": 1, "ece": 0}),
        (found(np.full((2, 4), 0.25), [1, 3]), {"balanced_acc": 0, "kappa": 0, "macro_auc": 0.5, "ece": 0.25}),
    ],
    ids=["one class, all right", "one class, all wrong", "one image", "a network that knows nothing"],
)
def test_every_metric_has_a_value_in_every_case(case, expected):
    values = {name: metric(case) for name, metric in CHOSEN.items()}
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert all(0 <= value <= 1 for value in values.values())


def test_the_metrics_cost_little():
    """All five on the 3,589 validation images of FER2013: less than 2 ms, of an epoch of seconds."""
    case = drawn(5, 3589, tuple(range(7)))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        for metric in CHOSEN.values():
            metric(case)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.05


def test_directions():
    assert set(MINIMIZED) <= set(objective_names())
    assert {name for name in (*METRICS, *CHOSEN) if direction(f"val_{name}") == "min"} == {"loss", "ece"}
    assert Objective("val_ece").mode == Objective("val_loss").mode == "min"
    assert Objective("val_kappa").mode == Objective("val_of_mine").mode == Objective().mode == "max"
    assert Objective("val_ece", "max").mode == "max"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_an_epoch_without_a_value_is_never_the_best(mode):
    progress = Progress(Objective("val_mine", mode))
    nan = float("nan")
    for epoch, value in enumerate([nan, 0.5, nan, 0.5, nan], 1):
        progress.add(epoch, {"val_mine": value}, torch.zeros(2, 2))
    best = progress.objective.best_row(progress.history)
    assert progress.best_epoch == best["epoch"] == 2


def test_metrics_are_chosen_by_name_or_by_the_objective():
    own = {"_target_": "my_metrics.kappa"}
    config = {"metrics": {"ece": True, "kappa": own, "top2_acc": False}, "objective": {"metric": "val_macro_auc"}}
    more, sections = chosen(config)
    assert (set(more), sections) == ({"ece", "macro_auc"}, {"kappa": own})
    assert chosen({"objective": {"metric": "val_acc"}}) == ({}, {})


def test_faults_of_the_names_in_the_section():
    sections = {
        "kapa": True,
        "kappa": 3,
        "ece": None,
        "acc": {"_target_": "m.acc"},
        "acc_dedup": True,
        "a/b": {"_target_": "m.b"},
        "f": 1,
    }
    assert list(section_faults(sections)) == [
        "metrics.kapa is true; ferhpo has no metric kapa; did you mean kappa?; a metric of your own is a section, e.g. {_target_: my_metrics.kapa}",
        "metrics.kappa is 3; it must be true or false",
        "metrics.acc has the name of a metric that ferhpo always reports; choose another name",
        "metrics.acc_dedup has the name of a metric that ferhpo always reports; choose another name",
        "metrics has the name 'a/b'; it may contain letters, digits, '_' and '-'",
        "metrics.f is 1; ferhpo has no metric f; choose from: balanced_acc, ece, kappa, macro_auc, top2_acc; a metric of your own is a section, e.g. {_target_: my_metrics.f}",
    ]
