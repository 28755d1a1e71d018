"""Properties of splits: every image is in one, identical images stay together, equal for equal seeds, stratified."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_faces import draw_files

from ferhpo.data import affectnet, ckplus, fer2013, image_folder, sfew
from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, Part, face_data
from ferhpo.data.splits import SplitKeys, SplitOptions, identical_groups, with_fold
from ferhpo.data.splits.assign import balanced_class_weights, keep_subset
from ferhpo.data.splits.draw import k_fold, random_split
from ferhpo.data.splits.groups import image_groups
from ferhpo.errors import ConfigError, DataError

NUM_CLASSES = 4


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, groups (some of several images, some with conflicting labels) and usable, for 20 to 400 images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    number = draw(st.integers(20, 400))
    groups = rng.integers(0, draw(st.integers(10, number * 3)), number)
    labels = (groups * 7 + (rng.random(number) < 0.1)) % NUM_CLASSES
    usable = rng.random(number) < draw(st.sampled_from([1.0, 0.8]))
    return labels.astype(np.int64), groups.astype(np.int64), usable


def assert_groups_whole(split: np.ndarray, groups: np.ndarray, used: np.ndarray) -> None:
    for group in np.unique(groups[used]):
        assert len(set(split[used & (groups == group)])) == 1


@given(labelled_groups(), st.integers(0, 5), st.floats(0.05, 0.4), st.floats(0, 0.4))
def test_random_split(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, val_fraction: float, test_fraction: float
) -> None:
    labels, groups, usable = drawn
    split = random_split(labels, groups, val_fraction, test_fraction, seed, usable)
    assert split.dtype == np.uint8
    assert ((split == UNUSED) == ~usable).all()
    assert_groups_whole(split, groups, usable)
    np.testing.assert_array_equal(split, random_split(labels, groups, val_fraction, test_fraction, seed, usable))
    # The fraction of each class is off by at most one group at each of its borders; labels within a group may differ.
    largest = np.bincount(groups).max()
    for code, share in ((VAL, val_fraction), (TEST, test_fraction)):
        assert abs((split == code).sum() - share * usable.sum()) <= 2 * NUM_CLASSES * largest


@given(labelled_groups(), st.integers(2, 6), st.integers(0, 5))
def test_k_fold(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], folds: int, seed: int) -> None:
    labels, groups, usable = drawn
    before = random_split(labels, groups, 0.2, 0.2, seed, usable)
    pool = (before == TRAIN) | (before == VAL)
    in_val = np.zeros(len(labels), int)
    for fold in range(folds):
        split = k_fold(labels, groups, before, folds, fold, seed)
        np.testing.assert_array_equal(split[~pool], before[~pool])
        assert set(split[pool]) <= {TRAIN, VAL}
        assert_groups_whole(split, groups, pool)
        in_val += split == VAL
        largest = np.bincount(groups).max()
        assert abs((split == VAL).sum() - pool.sum() / folds) <= 2 * NUM_CLASSES * largest
    np.testing.assert_array_equal(in_val, pool.astype(int))


@given(labelled_groups(), st.integers(0, 5), st.data())
def test_keep_subset_is_stratified_and_nested(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, data: st.DataObject
) -> None:
    labels, groups, usable = drawn
    before = random_split(labels, groups, 0.2, 0.1, seed, usable)
    train = before == TRAIN
    more = data.draw(st.integers(1, int(train.sum())))
    fewer = data.draw(st.integers(1, more))
    large, small = keep_subset(labels, before, more, seed), keep_subset(labels, before, fewer, seed)
    assert (large == TRAIN).sum() == more
    assert (small == TRAIN).sum() == fewer
    assert not ((small == TRAIN) & (large != TRAIN)).any()
    np.testing.assert_array_equal(large[~train], before[~train])
    assert set(large[train]) <= {TRAIN, UNUSED}
    shares = np.bincount(labels[train], minlength=NUM_CLASSES) / train.sum()
    assert (np.abs(np.bincount(labels[small == TRAIN], minlength=NUM_CLASSES) - fewer * shares) < 2).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_identical_groups_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 2, (60, 2, 2), np.uint8)
    groups = identical_groups(images)
    for i in range(60):
        np.testing.assert_array_equal(groups == groups[i], (images == images[i]).all(axis=(1, 2)))
    assert sorted(set(groups)) == list(range(groups.max() + 1))


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 60))
def test_image_groups_join_pixels_and_subjects(seed: int, num_looks: int, num_subjects: int) -> None:
    rng = np.random.default_rng(seed)
    looks, subjects = rng.integers(0, num_looks, 60), rng.integers(0, num_subjects, 60) * 7 - 3
    images = np.repeat(looks.astype(np.uint8), 4).reshape(60, 2, 2)
    together = (looks[:, None] == looks) | (subjects[:, None] == subjects)
    for _ in range(6):  # paths of twice the length in each iteration
        together = together @ together
    groups = image_groups(images, subjects)
    assert groups.dtype == np.int64
    np.testing.assert_array_equal(groups[:, None] == groups, together)
    np.testing.assert_array_equal(image_groups(images, None), identical_groups(images))


@given(st.integers(0, 2**32), st.integers(2, 5), st.booleans())
def test_with_fold(seed: int, folds: int, has_subjects: bool) -> None:
    rng = np.random.default_rng(seed)
    labels, split = rng.integers(0, 3, 80), rng.choice([TRAIN, TRAIN, VAL, TEST, UNUSED], 80).astype(np.uint8)
    images = np.arange(80, dtype=np.uint8).reshape(80, 1, 1)
    images[::20] = 0
    subjects = np.arange(80) // 3 if has_subjects else None
    data = face_data(images, labels, split, ("a", "b", "c"), "made", "published", groups=subjects)
    pool = (split == TRAIN) | (split == VAL)
    times = np.zeros(80, int)
    for fold in range(folds):
        folded = with_fold(data, folds, fold, 3)
        assert folded.images is data.images
        assert folded.split_name == f"published, fold {fold} of {folds}"
        assert folded.digest != data.digest or (folded.split == data.split).all()
        np.testing.assert_array_equal(folded.split[~pool], split[~pool])
        assert_groups_whole(folded.split, image_groups(images, subjects), pool)
        times += folded.split == VAL
    np.testing.assert_array_equal(times, pool.astype(int))


def test_merged_images_never_validate_nor_leak() -> None:
    """Twelve images of a main source, then five that were merged into training: two copies, three of one subject."""
    images = np.arange(17, dtype=np.uint8).reshape(17, 1, 1)
    images[12:14] = images[:2]
    labels, split = np.arange(17) % 2, np.array([TRAIN] * 9 + [VAL] * 3 + [TRAIN] * 5, np.uint8)
    groups = np.array([*range(12), 20, 20, 20, 21, 21])
    parts = (Part("main", "a.csv", 12), Part("more", "b", 5, train_only=True))
    data = face_data(images, labels, split, ("a", "b"), "made", "published", groups=groups, parts=parts)
    alone = face_data(images[:12], labels[:12], split[:12], ("a", "b"), "made", "published")
    for fold in range(3):
        folded = with_fold(data, 3, fold, 0)
        np.testing.assert_array_equal(folded.split[:12], with_fold(alone, 3, fold, 0).split)
        copies = [UNUSED if folded.split[image] == VAL else TRAIN for image in (0, 1)]
        assert folded.split[12:].tolist() == [*copies, TRAIN, TRAIN, TRAIN]


def test_more_folds_than_groups() -> None:
    images, labels = np.arange(8, dtype=np.uint8).reshape(8, 1, 1), np.zeros(8, np.int64)
    subjects = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    split = np.array([TRAIN] * 6 + [TEST] * 2, np.uint8)
    data = face_data(images, labels, split, ("a",), "made", "published", groups=subjects)
    with pytest.raises(ConfigError) as caught:
        _ = [with_fold(data, 5, fold, 0) for fold in range(5)]
    assert str(caught.value) == (
        "data: data.folds is 5; the train and val images form 2 groups, too few for so many folds; set fewer"
    )


def test_groups_are_part_of_the_digest_where_there_are_any() -> None:
    images, labels, split = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1]), np.zeros(4, np.uint8)
    digests = {
        face_data(images, labels, split, ("a", "b"), "x", "random", groups=groups).digest
        for groups in (None, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    }
    assert len(digests) == 3


def test_another_seed_gives_another_split() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300)
    assert (random_split(labels, groups, 0.1, 0.1, 0) != random_split(labels, groups, 0.1, 0.1, 1)).any()
    before = np.zeros(300, np.uint8)
    assert (k_fold(labels, groups, before, 3, 0, 0) != k_fold(labels, groups, before, 3, 0, 1)).any()
    assert (keep_subset(labels, before, 30, 0) != keep_subset(labels, before, 30, 1)).any()


def test_usual_shares_are_exact_when_all_images_differ() -> None:
    labels, groups = np.repeat(np.arange(7), 100), np.arange(700)
    split = random_split(labels, groups, 0.1, 0.1, 0)
    for label in range(7):
        assert np.bincount(split[labels == label]).tolist() == [80, 10, 10]


def test_balanced_class_weights() -> None:
    weights = balanced_class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [4 / 9, 4 / 3, 0])
    labels = np.random.default_rng(0).integers(0, 5, 1000)
    assert balanced_class_weights(labels, 5)[labels].mean() == pytest.approx(1)


@pytest.mark.full
def test_balanced_class_weights_against_scikit_learn() -> None:
    sklearn_weights = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.random.default_rng(0).integers(0, 5, 1000)
    np.testing.assert_allclose(
        balanced_class_weights(labels, 5),
        sklearn_weights.compute_class_weight("balanced", classes=np.arange(5), y=labels),
        rtol=1e-6,
    )


def test_keys_are_the_fields_of_the_options() -> None:
    names = [field.name for field in fields(SplitOptions)]
    assert list(SplitKeys.__annotations__) == names
    for reader in (affectnet, ckplus, fer2013, image_folder, sfew):
        assert list(inspect.signature(reader.load).parameters)[-len(names) :] == names
        with pytest.raises(TypeError, match="fold_"):
            reader.load("faces", fold_=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("keys", [{}, {"split": None}])
def test_default_split(keys: SplitKeys) -> None:
    assert SplitOptions.of({**keys, "folds": 3}, "published") == SplitOptions("published", folds=3)
    assert SplitOptions.of({"split": "random"}, "published").split == "random"


def few(path: Path, counts: dict[str, int]) -> Path:
    return draw_files(path, [f"{name}/{index}.png" for name, count in counts.items() for index in range(count)])


def test_a_class_without_val_is_named_with_a_remedy_that_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = few(tmp_path / "faces", {"glad": 40, "sad": 40, "bored": 2})
    image_folder.load(path)
    text = caplog.text
    assert (
        f"data.path is {path}: train or val has no image of bored (2 of them outside test); set data.val_fraction="
        in text
    )
    fraction = float(re.search(r"data\.val_fraction=([\d.]+),", text)[1])
    caplog.clear()
    data = image_folder.load(path, val_fraction=fraction)
    assert set(data.labels[data.split == VAL]) == {0, 1, 2}
    assert caplog.text == ""


def test_a_class_with_one_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = few(tmp_path / "faces", {"glad": 40, "sad": 40, "bored": 1})
    image_folder.load(path)
    assert (
        "train or val has no image of bored (1 of them outside test); add images, or leave such classes out by data.labels="
        in caplog.text
    )
    caplog.clear()
    image_folder.load(path, labels={"bored": "drop"})
    assert caplog.text == ""


def test_an_empty_val_is_named_with_a_remedy_that_works(tmp_path: Path) -> None:
    path = few(tmp_path / "faces", {"glad": 3, "sad": 3})
    with pytest.raises(DataError, match=r"leaves no image to validate on; set data\.val_fraction=[\d.]+$") as caught:
        image_folder.load(path, test_fraction=0.0)
    fraction = float(str(caught.value).rpartition("=")[2])
    assert (image_folder.load(path, test_fraction=0.0, val_fraction=fraction).split == VAL).any()
    for name in ("glad", "sad"):  # all images equal: one group per class
        for index in range(3):
            (path / name / f"{index}.png").write_bytes((path / "glad" / "0.png").read_bytes())
    with pytest.raises(DataError, match="there are 1 different images, too few to split"):
        image_folder.load(path, test_fraction=0.0)


def test_a_published_split_without_val_and_few_images(tmp_path: Path) -> None:
    """The remedy for a published split is tried as well: a random split alone would leave val empty, too."""
    files = ["train/glad/0.png", "train/sad/0.png", "test/glad/1.png", "test/sad/1.png"]
    path = draw_files(tmp_path / "faces", files)
    with pytest.raises(DataError, match=r"set data\.split=random and data\.val_fraction=([\d.]+)") as caught:
        image_folder.load(path)
    fraction = float(re.search(r"val_fraction=([\d.]+)", str(caught.value))[1])
    zero = {"test_fraction": 0.0} if "test_fraction=0" in str(caught.value) else {}
    assert (image_folder.load(path, split="random", val_fraction=fraction, **zero).split == VAL).any()
