"""The fit of an estimator as a training of one epoch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from tiny_training import SIZE, make_data

from ferhpo.data.dataset import TRAIN, VAL, FaceData
from ferhpo.data.features.hog import Hog
from ferhpo.errors import SweepError
from ferhpo.models.estimators import DecisionTree, Estimator, LinearDiscriminants
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.checkpoint import load_network
from ferhpo.training.estimator import fit_estimator
from ferhpo.training.settings import TrainerSettings

SHAPE: dict[str, Any] = {"in_channels": 1, "num_classes": 3, "image_size": SIZE}


def run_fit(estimator: Estimator, data: FaceData, folder: Path, **changes: Any) -> tuple[Any, list[Any]]:
    reports: list[Any] = []
    arguments: dict[str, Any] = {"settings": TrainerSettings(max_epochs=1), "input_size": SIZE, "seed": 3, **changes}
    report = arguments.pop("report", lambda epoch, metrics: reports.append((epoch, metrics)))
    return fit_estimator(estimator, data, folder=folder, report=report, **arguments), reports


def test_metrics_are_scikit_learns(data: FaceData, tmp_path: Path) -> None:
    tree = DecisionTree(**SHAPE, max_depth=2)
    result, ((epoch, metrics),) = run_fit(tree, data, tmp_path)
    assert epoch == 1
    for name, split in (("train", TRAIN), ("val", VAL)):
        chosen = data.split == split
        images = torch.from_numpy(data.images[chosen])[:, None] / 255
        own = tree.fitted.predict_proba(Preprocess(**preprocess(tmp_path)).normalized(images).flatten(1).numpy())
        labels, predicted = data.labels[chosen], own.argmax(1)
        assert metrics[f"{name}_acc"] == sklearn.metrics.accuracy_score(labels, predicted)
        loss = sklearn.metrics.log_loss(labels, own.astype(np.float32), labels=[0, 1, 2])
        assert metrics[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
    f1 = sklearn.metrics.f1_score(labels, predicted, average="macro")
    assert metrics["val_macro_f1"] == pytest.approx(f1, abs=1e-6)
    assert result.confusion == sklearn.metrics.confusion_matrix(labels, predicted, labels=[0, 1, 2]).tolist()
    assert result.best_value == metrics["val_acc"]
    assert result.history == [{"epoch": 1, **metrics}]
    assert metrics["images_per_second"] > 0


def preprocess(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "best.ckpt", weights_only=True)["preprocess"]  # type: ignore[no-any-return]


def test_checkpoint_gives_the_same_predictions(data: FaceData, tmp_path: Path) -> None:
    lda = LinearDiscriminants(**SHAPE)
    _, ((_, metrics),) = run_fit(lda, data, tmp_path)
    other = LinearDiscriminants(**SHAPE)
    held = load_network(tmp_path / "best.ckpt", other)
    scores = evaluate(other, data, "val", Preprocess.from_dict(held["preprocess"]))
    assert (scores.acc, scores.loss) == (metrics["val_acc"], metrics["val_loss"])
    assert held["class_names"] == list(data.class_names)
    assert torch.equal(held["confusion"], scores.confusion)
    assert held["metrics"] == metrics


def test_a_fit_that_the_folder_holds_is_told_again_and_not_made_again(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(epoch: int, metrics: dict[str, float]) -> None:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run_fit(DecisionTree(**SHAPE), data, tmp_path, report=stop)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["metrics"]
    monkeypatch.setattr(Estimator, "fit", lambda *arguments: pytest.fail("fitted again"))
    costs: list[Any] = []
    tree = DecisionTree(**SHAPE)
    result, reports = run_fit(tree, data, tmp_path, on_fitted=lambda: costs.append(tree.cost()))
    assert reports == [(1, kept)]
    assert result.best_value == kept["val_acc"]
    assert costs == [{"num_parameters": tree.fitted.tree_.node_count}]


def test_checkpoint_of_another_estimator_is_named(data: FaceData, tmp_path: Path) -> None:
    run_fit(DecisionTree(**SHAPE), data, tmp_path)
    with pytest.raises(SweepError, match=r"best\.ckpt has the weights of another network: it is the skops file of a"):
        run_fit(LinearDiscriminants(**SHAPE), data, tmp_path)


def test_seed_decides_the_tree(data: FaceData, tmp_path: Path) -> None:
    def tree_of(seed: int, name: str) -> list[int]:
        (tmp_path / name).mkdir()
        tree = DecisionTree(**SHAPE)
        run_fit(tree, data, tmp_path / name, seed=seed)
        return tree.fitted.tree_.feature.tolist()  # type: ignore[no-any-return]

    first = tree_of(1, "first")
    assert tree_of(1, "again") == first
    assert any(tree_of(seed, f"seed{seed}") != first for seed in (2, 3, 4))


def test_losses_go_by_soft_targets_and_the_fit_by_labels(tmp_path: Path) -> None:
    data = make_data(soft=True)
    assert data.targets is not None
    lda = LinearDiscriminants(**SHAPE)
    _, ((_, metrics),) = run_fit(lda, data, tmp_path)
    scores = evaluate(lda, data, "val", Preprocess.from_dict(preprocess(tmp_path)))
    expected = -(data.targets[scores.indices] * np.log(scores.probabilities)).sum(1).mean()
    assert metrics["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_hog_estimator_is_fitted_to_the_features_of_the_data(data: FaceData, tmp_path: Path) -> None:
    hog = Hog(pixels_per_cell=6)
    features = hog(data.images)
    tree = DecisionTree(**SHAPE, features="hog", hog={"pixels_per_cell": 6}, num_features=features.shape[1])
    _, ((_, metrics),) = run_fit(tree, replace(data, features=features), tmp_path)
    val = data.split == VAL
    assert metrics["val_acc"] == (tree.fitted.predict(features[val]) == data.labels[val]).mean()
