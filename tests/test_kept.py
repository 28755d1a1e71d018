"""The file of validation predictions: what it keeps, its size, and that damage is refused."""

import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ferhpo.data.dataset import TRAIN, VAL, face_data
from ferhpo.errors import StorageError, SweepError
from ferhpo.scoring.kept import FILE, MOST_PROBABILITIES, read_predictions, write_predictions
from ferhpo.scoring.predict import Evaluation


def made(num_images, num_classes, seed=0, sharpness=3.0, soft=False):
    """A data set whose validation images are every third one, and predictions for them."""
    random = np.random.default_rng(seed)
    total = 3 * num_images
    labels = random.integers(num_classes, size=total)
    labels[:num_classes] = range(num_classes)
    split = np.where(np.arange(total) % 3 == 2, VAL, TRAIN).astype(np.uint8)
    images = random.integers(0, 256, (total, 4, 4), dtype=np.uint8)
    images[2] = images[0]  # one validation image is also in training
    targets = None
    if soft:
        targets = random.dirichlet(np.ones(num_classes), total).astype(np.float32)
    names = tuple(f"class {number}" for number in range(num_classes))
    data = face_data(images, labels, split, names, "made", "published", targets)
    logits = torch.from_numpy(random.normal(0, sharpness, (num_images, num_classes)).astype(np.float32))
    probabilities = logits.softmax(1).numpy()
    indices = np.flatnonzero(split == VAL)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    return data, Evaluation(0.0, 0.0, 0.0, confusion, probabilities, labels[indices], indices)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("sharpness", [0.0, 0.01, 3.0, 60.0])
def test_predictions_are_kept(tmp_path, soft, sharpness):
    data, found = made(500, 7, sharpness=sharpness, soft=soft)
    write_predictions(tmp_path, found, data, 4)
    kept = read_predictions(tmp_path)
    assert (kept.epoch, kept.digest, kept.num_images) == (4, data.digest, 500)
    np.testing.assert_array_equal(kept.indices, found.indices)
    np.testing.assert_array_equal(kept.labels, found.labels)
    np.testing.assert_allclose(kept.probabilities, found.probabilities, rtol=2e-3, atol=1e-7)
    np.testing.assert_array_equal(kept.probabilities.argmax(1), found.probabilities.argmax(1))
    np.testing.assert_array_equal(np.flatnonzero(kept.in_training), [0])
    shares = data.targets[found.indices] if soft else np.eye(7)[found.labels]
    losses = -(shares * np.log(np.maximum(found.probabilities, 1e-45))).sum(1)
    if sharpness < 60:  # losses above 16 are cut off
        np.testing.assert_allclose(kept.losses, losses, rtol=2e-3, atol=2e-3)


def test_the_file_of_fer2013_has_at_most_60_kilobytes(tmp_path):
    data, found = made(3589, 7)
    write_predictions(tmp_path, found, data, 1)
    assert (tmp_path / FILE).stat().st_size <= 60_000
    assert len(read_predictions(tmp_path).labels) == 3589


def test_of_more_images_the_same_ones_are_kept_by_every_network(tmp_path):
    data, found = made(6000, 8)
    write_predictions(tmp_path, found, data, 1)
    first = read_predictions(tmp_path)
    assert len(first.labels) == MOST_PROBABILITIES // 8
    assert first.num_images == 6000
    assert (tmp_path / FILE).stat().st_size <= 70_000
    write_predictions(tmp_path, made(6000, 8, sharpness=1.0)[1], data, 2)
    np.testing.assert_array_equal(read_predictions(tmp_path).indices, first.indices)


def test_without_a_file_there_are_none(tmp_path):
    assert read_predictions(tmp_path) is None


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    data, found = made(60, 4)
    write_predictions(folder, found, data, 1)
    return (folder / FILE).read_bytes()


def refused(folder, content):
    (folder / FILE).write_bytes(content)
    with pytest.raises(SweepError, match="is damaged"):
        read_predictions(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"kept": 0}, {"kept": 10**9}, {"classes": 10**9}, {"classes": 1}, {"images": 5}, {"kept": 59},
        {"soft": True}, {"epoch": "1"}, {"digest": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_that_lies_is_refused(tmp_path, content, change):
    line, _, packed = content.partition(b"\n")
    refused(tmp_path, json.dumps({**json.loads(line), **change}).encode() + b"\n" + packed)


def test_what_would_expand_is_refused(tmp_path, content):
    line = content.partition(b"\n")[0]
    refused(tmp_path, line + b"\n" + zlib.compress(bytes(10**9), 9))


@pytest.mark.parametrize("strange", [b"", b"\n", b"{}", b"[1]\n", b"null\nxyz", b"\xff\n"])
def test_another_file_is_refused(tmp_path, strange):
    refused(tmp_path, strange)


@given(st.data())
@settings(max_examples=150)
def test_a_flipped_bit_is_refused_or_harmless(tmp_path_factory, content, data):
    """What is read is always what its types say: probabilities from 0 to 1, labels of the classes, rising indices."""
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    folder = tmp_path_factory.mktemp("flipped")
    (folder / FILE).write_bytes(changed)
    try:
        kept = read_predictions(folder)
    except SweepError:
        return
    assert ((kept.probabilities >= 0) & (kept.probabilities <= 1)).all()
    assert (kept.labels < kept.probabilities.shape[1]).all()
    assert (np.diff(kept.indices) > 0).all()


def test_a_full_disk_is_a_storage_error(tmp_path):
    data, found = made(60, 4)
    with pytest.raises(StorageError):
        write_predictions(tmp_path / "nowhere", found, data, 1)
