"""AffectNet on generated files: named and numbered folders, splits, 224 color to 48 gray, cleaning by its CSV."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_faces import draw_files, zip_folder

from ferhpo.data import affectnet, image_folder
from ferhpo.data.dataset import TRAIN, VAL
from ferhpo.data.labels.emotions import EMOTIONS
from ferhpo.errors import DataError

NUMBERED = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
NAMED = ("Neutral", "happiness", "Sad", "surprise", "fear", "disgust", "anger", "contempt")
EACH = {"train": 4, "val": 1}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Four training images and one val image of each numbered class, 64x64 in color, with a CSV of labels."""
    names = [
        f"{split}/{code}/image{code}{index}.png"
        for split, count in EACH.items()
        for code in range(8)
        for index in range(count)
    ]
    root = draw_files(tmp_path / "AffectNet", names, (64, 64), colour=True)
    write_csv(root, [(name, name.split("/")[1], name.split("/")[1]) for name in names])
    return root


def write_csv(root: Path, rows: list[tuple[str, str, str]]) -> None:
    with (root / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("file", "label", "pseudo_label"), *rows])


def test_numbered_folders(faces: Path) -> None:
    data = affectnet.load(faces)
    assert data.class_names == EMOTIONS
    assert data.images.shape == (40, 48, 48)
    assert data.source == "AffectNet (AffectNet, folders of classes)"
    assert data.split_name == "published"
    assert np.bincount(data.split).tolist() == [32, 8]
    assert [EMOTIONS[label] for label in data.labels[::4][:8]] == list(NUMBERED)
    with Image.open(faces / "train" / "6" / "image60.png") as image:
        grey = np.asarray(image.convert("L").resize((48, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.images[24], grey)
    assert data.class_names[data.labels[24]] == "angry"
    assert affectnet.load(faces, image_size=64, channels=3).images.shape == (40, 64, 64, 3)
    assert affectnet.load(zip_folder(faces, faces.parent / "a.zip", "down/load/")).digest == data.digest


def test_named_folders_without_splits(faces: Path) -> None:
    for code, name in enumerate(NAMED):
        (faces / "train" / str(code)).rename(faces / "train" / name)
    data = affectnet.load(faces / "train", labels={"contempt": "drop"})
    assert data.split_name == "random"
    assert data.class_names == EMOTIONS[:7]
    assert np.bincount(data.labels).tolist() == [4] * 7
    with pytest.raises(DataError, match="needs folders train and val or test, which it does not have"):
        affectnet.load(faces / "train", split="published")


def test_cleaning(faces: Path) -> None:
    """The pseudo-label of 3 angry images is happy, that of 1 fear image is no face, and 2 neutral images have no row."""
    rows = []
    for split, count in EACH.items():
        for code in range(8):
            for index in range(count):
                pseudo = "happy" if (split, code) == ("train", 6) and index < 3 else NAMED[code]
                pseudo = "10" if (split, code, index) == ("train", 4, 0) else pseudo
                if (split, code) != ("train", 0) or index >= 2:
                    rows.append((f"{split}/{code}/image{code}{index}.png", str(code), pseudo))
    write_csv(faces, rows)
    data = affectnet.load(faces, clean="labels.csv", labels={"contempt": "drop"})
    assert data.parts[0].dropped == (
        ("of class contempt", 5),
        ("whose label and pseudo-label differ", 4),
        ("without a pseudo-label", 2),
    )
    assert data.source == "AffectNet (AffectNet, folders of classes, without contempt, cleaned by labels.csv)"
    assert np.bincount(data.labels[data.split == TRAIN], minlength=7).tolist() == [1, 4, 3, 4, 4, 4, 2]
    assert np.bincount(data.labels[data.split == VAL], minlength=7).tolist() == [1] * 7
    whole = affectnet.load(faces)
    assert all((whole.images == image).all(axis=(1, 2)).sum() == 1 for image in data.images)
    # A mapping does not change what the CSV is compared with.
    mapped = affectnet.load(faces, clean="labels.csv", labels={"contempt": "disgust"})
    assert np.bincount(mapped.labels, minlength=7).tolist() == [2, 10, 4, 5, 5, 5, 3]


def test_nothing_left(faces: Path) -> None:
    write_csv(faces, [("train/0/image00.png", "neutral", "happy")])
    with pytest.raises(DataError) as caught:
        affectnet.load(faces, clean="labels.csv")
    assert str(caught.value) == (
        f"data.path is {faces}: no image is left (dropped: 1 whose label and pseudo-label differ, 39 without a "
        "pseudo-label); change data.labels or data.clean"
    )


def test_unknown_folders(faces: Path) -> None:
    (faces / "train" / "7").rename(faces / "train" / "8")
    (faces / "val" / "7").rename(faces / "val" / "bored")
    with pytest.raises(DataError) as caught:
        affectnet.load(faces)
    assert str(caught.value) == (
        f"data.path is {faces}: the folder 8 is not an emotion (angry, disgust, fear, happy, sad, surprise, neutral, "
        "contempt); use data=image_folder for other classes; 1 more folder is broken (bored)"
    )


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        *[
            ("0", "neutral"),
            (" 6 ", "angry"),
            ("7", "contempt"),
            ("8", "none"),
            ("10", "none"),
            ("11", None),
            ("-1", None),
        ],
        *[("No-Face", "none"), ("uncertain", "none"), ("Happiness", "happy"), ("bored", None)],
    ],
)
def test_class_of(text: str, emotion: str | None) -> None:
    assert affectnet.class_of(text) == emotion


def test_any_folder_can_be_mapped_and_cleaned(tmp_path: Path) -> None:
    names = [f"{folder}/{index}.png" for folder in ("bored", "glad", "Happy") for index in range(10)]
    root = draw_files(tmp_path / "set", names)
    write_csv(
        root, [(name, name.split("/")[0], "bored" if name.endswith("/0.png") else name.split("/")[0]) for name in names]
    )
    data = image_folder.load(root, labels={"glad": "happy", "happy": "happy"}, clean=root / "labels.csv")
    assert data.class_names == ("bored", "happy")
    assert np.bincount(data.labels).tolist() == [10, 18]
    assert data.parts[0].dropped == (("whose label and pseudo-label differ", 2),)
    assert data.source == "set (image folder, Happy as happy, glad as happy, cleaned by labels.csv)"
