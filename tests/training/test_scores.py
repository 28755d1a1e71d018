"""Both score variants against scikit-learn, on a data set with planted duplicates."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import make_data, make_network

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, face_data
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import DataError
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.scoring.scores import class_scores, in_training_mask, score_variants

PLANTED = {VAL: 4, TEST: 3}


@pytest.fixture
def overlapping() -> FaceData:
    """The tiny data set, in which the first 4 images of val and 3 of test are copies of training images."""
    data = make_data()
    images = data.images.copy()
    for code, number in PLANTED.items():
        images[np.flatnonzero(data.split == code)[:number]] = images[np.flatnonzero(data.split == TRAIN)[:number]]
    return face_data(images, data.labels.copy(), data.split.copy(), data.class_names, "made", "published")


@pytest.mark.parametrize("split", ["val", "test"])
def test_both_variants_are_scikit_learns(overlapping: FaceData, split: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    predictions = evaluate(make_network(), overlapping, split, preprocess_of(overlapping, 24, "dataset"))
    variants = score_variants(predictions, overlapping)
    planted = PLANTED[VAL if split == "val" else TEST]
    for scores, kept in ((variants.all, slice(None)), (variants.dedup, slice(planted, None))):
        assert scores is not None
        labels, probabilities = overlapping.labels[predictions.indices][kept], predictions.probabilities[kept]
        predicted = probabilities.argmax(1)
        assert scores.n == len(labels)
        assert scores.acc == metrics.accuracy_score(labels, predicted)
        assert scores.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), abs=1e-6)
        assert scores.loss == pytest.approx(metrics.log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-5)
    assert variants.all.acc == predictions.acc
    assert variants.all.macro_f1 == pytest.approx(predictions.macro_f1, abs=1e-7)
    assert variants.all.loss == pytest.approx(predictions.loss, rel=1e-5)
    assert variants.dedup is not None
    assert variants.dedup.n == variants.all.n - planted


def test_without_duplicates_both_variants_are_equal(data: FaceData) -> None:
    variants = score_variants(evaluate(make_network(), data, "val", preprocess_of(data, 24, "none")), data)
    assert variants.dedup == variants.all


def test_a_split_that_is_all_in_training_has_no_dedup_scores(data: FaceData) -> None:
    predictions = evaluate(make_network(), data, "val", preprocess_of(data, 24, "none"))
    assert score_variants(predictions, data, np.ones(len(data.labels), np.bool_)).dedup is None


def test_the_loss_of_soft_targets_is_that_of_the_evaluation() -> None:
    soft = make_data(soft=True)
    predictions = evaluate(make_network(), soft, "val", preprocess_of(soft, 24, "none"))
    assert score_variants(predictions, soft).all.loss == pytest.approx(predictions.loss, rel=1e-5)


def test_what_was_trained_on_elsewhere_counts(overlapping: FaceData) -> None:
    """The training images of the model's own data set count, not those of the set that it is scored on."""
    own = np.flatnonzero(overlapping.split == TRAIN)[:3]
    split = np.full(10, VAL, np.uint8)
    split[7:] = TRAIN
    images = np.concatenate([overlapping.images[own], np.zeros((7, 24, 24), np.uint8)])
    other = face_data(images, np.zeros(10, np.int64), split, overlapping.class_names, "other", "published")
    assert in_training_mask(other, overlapping).tolist() == [True] * 3 + [False] * 7
    assert in_training_mask(other)[:7].tolist() == [False] * 3 + [True] * 4, "its own: the black ones are all alike"
    small = face_data(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64), split[:2], ("a",), "small", "published")
    assert not in_training_mask(small, overlapping).any()


def test_a_fold_with_the_digest_of_another_has_its_own_duplicates(overlapping: FaceData) -> None:
    split = overlapping.split.copy()
    split[split == TRAIN] = VAL
    split[np.flatnonzero(overlapping.split == TEST)] = TRAIN
    assert in_training_mask(overlapping).sum() == sum(PLANTED.values())
    assert in_training_mask(replace(overlapping, split=split)).sum() == PLANTED[TEST] + min(PLANTED.values())


def test_scores_of_classes_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 3, 200)  # the last class is never predicted
    names = ("a", "b", "c", "d")
    found = class_scores(metrics.confusion_matrix(labels, predicted, labels=range(4)), names)
    precision, recall, f1, count = metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    assert [c.name for c in found] == list(names)
    np.testing.assert_allclose([c.precision for c in found], precision)
    np.testing.assert_allclose([c.recall for c in found], recall)
    np.testing.assert_allclose([c.f1 for c in found], f1)
    assert [c.n for c in found] == count.tolist()


def test_classes_in_another_order_get_the_numbers_of_the_model() -> None:
    data = make_data(soft=True)
    turned = with_classes(data, ("c", "a", "b"))
    assert turned.class_names == ("c", "a", "b")
    assert [turned.class_names[i] for i in turned.labels] == [data.class_names[i] for i in data.labels]
    assert data.targets is not None
    assert turned.targets is not None
    np.testing.assert_array_equal(turned.targets[:, 0], data.targets[:, 2])
    assert with_classes(data, ("a", "b", "c")) is data


def test_other_classes_are_named() -> None:
    with pytest.raises(DataError) as caught:
        with_classes(make_data(), ("a", "b", "d"))
    assert str(caught.value) == (
        "made: it has c, which the model does not predict; it does not have d; its classes must be those of the model: "
        "a, b, d"
    )
