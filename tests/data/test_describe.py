"""`describe` on a data set with known defects, and on the real FER2013."""

import io
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from tiny_faces import UNPACK

from ferhpo.data import fer2013
from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, face_data
from ferhpo.data.describe import describe
from ferhpo.data.splits import overlap_mask


def test_describe_counts_every_defect() -> None:
    images = np.zeros((8, 2, 2), np.uint8)
    images[:, 0, 0] = [0, 0, 1, 1, 1, 2, 3, 0]
    images[5] = 9  # blank, not black
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    split = np.array([TRAIN, VAL, TRAIN, TEST, VAL, TRAIN, TEST, UNUSED], np.uint8)
    data = face_data(images, labels, split, ("glad", "sad"), "made here", "published")
    facts = describe(data)
    assert json.loads(json.dumps(facts)) == {
        "source": "made here",
        "split_name": "published",
        "digest": data.digest,
        "num_images": 8,
        "image_size": 2,
        "channels": 1,
        "class_names": ["glad", "sad"],
        "soft_targets": False,
        "counts": {
            "train": {"glad": 2, "sad": 1},
            "val": {"glad": 1, "sad": 1},
            "test": {"glad": 1, "sad": 1},
            "unused": {"glad": 0, "sad": 1},
        },
        "pixels": {"min": 0, "max": 9, "mean": 1.312},
        "duplicates": {"redundant_images": 4, "groups": 2},
        "parts": [],
        "conflicting_labels": {"groups": 2, "images": 6},
        "blank_images": {"one_value": 4, "all_black": 3},
        "overlap": {"val_in_train": 2, "test_in_train": 1, "test_in_val": 1},
    }
    assert overlap_mask(data).tolist() == [False, True, False, True, True, False, False, False]


def test_digest_sees_every_part() -> None:
    images, labels = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    split, names, targets = np.array([0, 0, 1, 2], np.uint8), ("a", "b"), np.full((4, 2), 0.5, np.float32)
    digests = [
        face_data(images.copy(), labels.copy(), split.copy(), names, "x", "random").digest,
        face_data(images + 1, labels.copy(), split.copy(), names, "x", "random").digest,
        face_data(images[:, :1, :1].copy(), labels.copy(), split.copy(), names, "x", "random").digest,
        face_data(images.copy(), 1 - labels, split.copy(), names, "x", "random").digest,
        face_data(images.copy(), labels.copy(), split[::-1].copy(), names, "x", "random").digest,
        face_data(images.copy(), labels.copy(), split.copy(), ("b", "a"), "x", "random").digest,
        face_data(images.copy(), labels.copy(), split.copy(), names, "x", "random", targets).digest,
    ]
    assert len(set(digests)) == len(digests)
    # The path does not matter. This value must never change: digests are compared between machines.
    assert face_data(images, labels, split, names, "y", "published").digest == digests[0]
    assert digests[0] == "a819d4bbc6453b060f89254882e725e29e41b64f65b243d03513cde4bce76917"


@pytest.mark.full
def test_real_csv(real_fer2013: Path) -> None:
    data = fer2013.load(real_fer2013 / "fer2013.csv")
    facts = describe(data)
    assert list(facts["counts"]["train"].values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert [sum(counts.values()) for counts in facts["counts"].values()] == [28709, 3589, 3589, 0]
    # 184 rows of this copy come from the JPEG of their image, so that two pairs of duplicates differ: the folders
    # below have 1,853.
    assert facts["duplicates"]["redundant_images"] == 1851
    assert facts["conflicting_labels"] == {"groups": 57, "images": 160}
    assert facts["blank_images"] == {"one_value": 12, "all_black": 12}
    assert facts["overlap"] == {"val_in_train": 280, "test_in_train": 288, "test_in_val": 44}
    assert overlap_mask(data).sum() == 568

    at_random = describe(fer2013.load(real_fer2013 / "fer2013.csv", split="random"))
    assert at_random["overlap"] == {"val_in_train": 0, "test_in_train": 0, "test_in_val": 0}
    assert sum(at_random["counts"]["val"].values()) == pytest.approx(3588.7, abs=10)
    assert sum(at_random["counts"]["test"].values()) == pytest.approx(3588.7, abs=10)

    majority = fer2013.load(real_fer2013 / "fer2013.csv", labels="ferplus_majority")
    used = majority.split != UNUSED
    assert (~used).sum() == 399
    assert describe(majority)["counts"]["test"]["contempt"] == 27
    assert (majority.labels == data.labels)[used].mean() == pytest.approx(0.653, abs=0.001)


@pytest.mark.full
def test_real_csv_pixel_by_pixel(real_fer2013: Path) -> None:
    with lzma.open(UNPACK.with_name("fer2013.npz.xz")) as packed:
        truth = np.load(io.BytesIO(packed.read()))
    data = fer2013.load(real_fer2013 / "fer2013.csv")
    np.testing.assert_array_equal(data.images, truth["pixels"])
    np.testing.assert_array_equal(data.labels, truth["emotion"])
    np.testing.assert_array_equal(data.split, truth["usage"])


@pytest.mark.full
def test_real_folders(real_fer2013: Path) -> None:
    facts = describe(fer2013.load(real_fer2013 / "fer2013"))
    assert list(facts["counts"]["train"].values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert [sum(counts.values()) for counts in facts["counts"].values()] == [28709, 3589, 3589, 0]
    assert facts["duplicates"]["redundant_images"] == 1853
    assert facts["conflicting_labels"] == {"groups": 57, "images": 160}
    assert facts["overlap"] == {"val_in_train": 280, "test_in_train": 288, "test_in_val": 44}
