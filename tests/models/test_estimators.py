"""scikit-learn estimators as networks: the predictions of scikit-learn, saved and loaded without pickle."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
import yaml
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from ferhpo.models.estimators import DecisionTree, Estimator, LinearDiscriminants, LinearSVM

CONF = Path(__file__).parents[2] / "conf" / "model"
CLASSES: dict[str, type[Estimator]] = {
    "decision_tree": DecisionTree,
    "linear_svm": LinearSVM,
    "lda": LinearDiscriminants,
}
DATA: dict[str, Any] = {"in_channels": 1, "num_classes": 3, "image_size": 6}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels(images: Tensor) -> np.ndarray:
    return np.digitize(images[:, 0, 2, 2], [0.33, 0.66]).astype(np.int64)


def fitted(kind: type[Estimator], images: Tensor, labels: np.ndarray, **settings: Any) -> Estimator:
    estimator = kind(**{**DATA, **settings})
    estimator.fit(estimator.inputs_of(images), labels, seed=1)
    return estimator


def answers(estimator: Estimator, *inputs: Tensor) -> np.ndarray:
    return estimator(*inputs).softmax(1).numpy()  # type: ignore[no-any-return]


def test_tree_predicts_as_scikit_learn(images: Tensor, labels: np.ndarray) -> None:
    pixels = images.flatten(1).numpy()
    own = DecisionTreeClassifier(max_depth=3, min_samples_leaf=4, criterion="entropy", random_state=1)
    own.fit(pixels[:40], labels[:40])
    tree = fitted(DecisionTree, images[:40], labels[:40], max_depth=3, min_samples_leaf=4, criterion="entropy")
    np.testing.assert_allclose(answers(tree, images), own.predict_proba(pixels), atol=1e-6)
    assert tree.cost() == {"num_parameters": own.tree_.node_count}


def test_discriminants_answer_as_scikit_learns(images: Tensor, labels: np.ndarray) -> None:
    pixels = images.flatten(1).numpy()
    own = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(pixels[:40], labels[:40])
    lda = fitted(LinearDiscriminants, images[:40], labels[:40], shrinkage=0.3)
    np.testing.assert_allclose(answers(lda, images), own.predict_proba(pixels), atol=1e-5)
    assert lda.cost() == {"num_parameters": 3 * 36 + 3, "macs": 3 * 36}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_svm_predicts_the_softmax_of_the_distances_of_scikit_learn(
    images: Tensor, labels: np.ndarray, num_classes: int
) -> None:
    labels = np.minimum(labels, num_classes - 1)
    pixels = images.flatten(1).numpy()
    scaler = StandardScaler().fit(pixels[:40])
    own = LinearSVC(C=0.5, dual=False).fit(scaler.transform(pixels[:40]), labels[:40])
    distances = own.decision_function(scaler.transform(pixels))
    svm = fitted(LinearSVM, images[:40], labels[:40], C=0.5, num_classes=num_classes)
    found = answers(svm, images)
    np.testing.assert_array_equal(found.argmax(1), own.predict(scaler.transform(pixels)))
    if num_classes == 3:
        expected = np.exp(distances) / np.exp(distances).sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert svm.cost() == {"num_parameters": 3 * 36 + 3, "macs": 3 * 36}


@pytest.mark.parametrize("kind", CLASSES.values())
def test_hog_estimator_sees_the_features_and_not_the_pixels(
    kind: type[Estimator], images: Tensor, labels: np.ndarray
) -> None:
    features = torch.rand(60, 5, generator=torch.Generator().manual_seed(1))
    estimator = kind(**DATA, features="hog", hog={}, num_features=5)
    estimator.fit(estimator.inputs_of(images, features), labels, seed=1)
    assert np.array_equal(answers(estimator, images, features), answers(estimator, 0 * images, features))
    assert not np.array_equal(answers(estimator, images, features), answers(estimator, images, 0 * features))


@pytest.mark.parametrize("kind", CLASSES.values())
def test_class_without_training_images_is_never_answered(
    kind: type[Estimator], images: Tensor, labels: np.ndarray
) -> None:
    found = answers(fitted(kind, images, labels + (labels > 0), num_classes=4), images)
    assert found.shape == (60, 4)
    assert found[:, 1].max() < 1e-6
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", CLASSES.values())
def test_state_is_tensors_and_predicts_the_same(
    kind: type[Estimator], images: Tensor, labels: np.ndarray, tmp_path: Path
) -> None:
    estimator = fitted(kind, images, labels)
    torch.save(estimator.state_dict(), tmp_path / "state")
    other = kind(**DATA)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert np.array_equal(answers(other, images), answers(estimator, images))
    assert other.cost() == estimator.cost()


def test_state_of_another_estimator_is_refused(images: Tensor, labels: np.ndarray) -> None:
    state = fitted(LinearDiscriminants, images, labels).state_dict()
    with pytest.raises(RuntimeError, match="it is the skops file of a LinearDiscriminantAnalysis, not of a Dec"):
        DecisionTree(**DATA).load_state_dict(state)


def test_state_for_images_of_another_size_is_refused(images: Tensor, labels: np.ndarray) -> None:
    state = fitted(LinearSVM, images, labels).state_dict()
    with pytest.raises(RuntimeError, match="it takes 36 inputs per image; it must take 16"):
        LinearSVM(**{**DATA, "image_size": 4}).load_state_dict(state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (skops.io.dumps(FunctionTransformer(func=os.system)), "system"),
        (b"\x80\x04cos\nsystem\n.", "not a zip"),
        (b"", "not a zip"),
    ],
    ids=["function", "pickle", "nothing"],
)
def test_state_that_holds_other_things_is_refused(content: bytes, message: str) -> None:
    state = {"_extra_state": torch.frombuffer(bytearray(content) or bytearray(1), dtype=torch.uint8)}
    with pytest.raises(RuntimeError, match=f"it is not the skops file of a DecisionTreeClassifier: .*{message}"):
        DecisionTree(**DATA).load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DecisionTree, {"features": "sift"}, "features is 'sift'; it must be one of pixels, hog"),
        (
            DecisionTree,
            {"features": "hog"},
            "features is hog, but hog is null; set it, e.g. hog={orientations: 9}",
        ),
        (DecisionTree, {"max_depth": 0}, "max_depth is 0; it must be an integer of at least 1"),
        (DecisionTree, {"min_samples_leaf": 0.5}, "min_samples_leaf is 0.5; it must be an integer of at least 1"),
        (DecisionTree, {"criterion": "mse"}, "criterion is 'mse'; it must be one of gini, entropy, log_loss"),
        (LinearSVM, {"C": 0}, "C is 0; it must be above 0"),
        (LinearDiscriminants, {"shrinkage": 2}, "shrinkage is 2; it must be in [0, 1], auto or null"),
        (LinearDiscriminants, {"shrinkage": "much"}, "shrinkage is 'much'; it must be in [0, 1], auto or null"),
    ],
    ids=str,
)
def test_setting_out_of_range_is_named(kind: type[Estimator], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**DATA, **settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", CLASSES)
def test_file_and_its_slice_have_the_keys_that_the_estimator_accepts(name: str) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    settings = config["model"]
    assert settings.pop("_target_") == f"ferhpo.models.estimators.{CLASSES[name].__name__}"
    given = {"in_channels": 1, "num_classes": 7, "image_size": 48, "num_features": 900}
    CLASSES[name](**given, **settings)
    for key, draw in config["space"]["model"].items():
        for value in draw.get("choices") or (draw["low"], draw["high"]):
            assert CLASSES[name](**given, **{**settings, key: value}).fitted is None
