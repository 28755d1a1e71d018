"""JAFFE, KDEF, RAF-DB and FER+ in folders, in the form that their authors publish; the files are generated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_faces import draw_files, zip_folder

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData
from ferhpo.data.describe import describe
from ferhpo.data.io.fer2013_csv import VOTE_COLUMNS
from ferhpo.data.labeled_files import ferplus, jaffe, kdef, rafdb
from ferhpo.errors import ConfigError, DataError

CODES = ("AN", "DI", "FE", "HA", "SA", "SU", "NE")  # of JAFFE, in the order of the classes


def message(load: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def splits_of(data: FaceData) -> list[set[int]]:
    """The splits in which each group has images."""
    assert data.groups is not None
    return [set(data.split[data.groups == group].tolist()) for group in np.unique(data.groups)]


@pytest.fixture
def jaffe_folder(tmp_path: Path) -> Path:
    names = [
        f"{subject}.{code}{take}.{10 * index + take}.tiff"
        for subject in ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")
        for index, code in enumerate(CODES)
        for take in (1, 2)
    ]
    (tmp_path / "jaffe").mkdir()
    (tmp_path / "jaffe" / "README_FIRST.txt").write_text("about")
    return draw_files(tmp_path / "jaffe", names, (60, 60))


def test_jaffe(jaffe_folder: Path) -> None:
    data = jaffe.load(jaffe_folder)
    assert data.images.shape == (140, 48, 48)
    assert np.bincount(data.labels).tolist() == [20] * 7
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    with Image.open(jaffe_folder / "KA.HA1.31.tiff") as image:
        wanted = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))
    place = next(index for index, image in enumerate(data.images) if (image == wanted).all())
    assert data.class_names[data.labels[place]] == "happy"
    assert data.source == "jaffe (JAFFE)"
    assert [len(found) for found in splits_of(data)] == [1] * 10, "no subject is in two splits"
    assert [int((data.split == code).sum()) for code in (TRAIN, VAL, TEST)] == [112, 14, 14]
    assert jaffe.load(zip_folder(jaffe_folder, jaffe_folder.parent / "j.zip", "top/")).digest == data.digest


def test_jaffe_in_folds_and_without_a_class(jaffe_folder: Path) -> None:
    for fold in range(5):
        data = jaffe.load(jaffe_folder, folds=5, fold=fold, labels={"neutral": "drop"})
        assert [len(found) for found in splits_of(data)] == [1] * 10
    assert describe(data)["parts"][0]["dropped"] == {"of class neutral": 20}


def test_other_names_are_counted_and_a_folder_of_others_is_refused(jaffe_folder: Path) -> None:
    draw_files(jaffe_folder, ["logo.png", "KA.XX1.1.tiff"])
    assert describe(jaffe.load(jaffe_folder))["parts"][0]["dropped"] == {"with another name": 2}
    other = draw_files(jaffe_folder.parent / "other", ["a.png"])
    for load, rule in (
        (jaffe.load, "named by subject and emotion, e.g. KA.AN1.39.tiff"),
        (kdef.load, "named by person, emotion and angle, e.g. AF01ANS.JPG"),
    ):
        assert message(load, other) == (
            f"data.path is {other}: it has no image {rule}; use data=image_folder or data=image_table for other images"
        )


@pytest.fixture
def kdef_folder(tmp_path: Path) -> Path:
    emotions = ("AN", "DI", "AF", "HA", "SA", "SU", "NE")
    names = [
        f"{session}{person}/{session}{person}{emotion}{angle}.JPG"
        for session in "AB"
        for person in ("F01", "F02", "F03", "F04", "F05", "M01", "M02", "M03", "M04", "M05")
        for emotion in emotions
        for angle in ("S", "HL", "FR")
    ]
    return draw_files(tmp_path / "KDEF", [*names, "AF31/AF31V.JPG"], (20, 30), colour=True)


def test_kdef(kdef_folder: Path) -> None:
    data = kdef.load(kdef_folder, channels=3, image_size=20)
    assert data.images.shape == (140, 20, 20, 3)
    assert np.bincount(data.labels).tolist() == [20] * 7
    with Image.open(kdef_folder / "AF01" / "AF01AFS.JPG") as image:
        wanted = np.asarray(image)[5:25]
    place = next(index for index, image in enumerate(data.images) if (image == wanted).all())
    assert data.class_names[data.labels[place]] == "fear"
    assert describe(data)["parts"][0]["dropped"] == {"from another angle": 280, "with another name": 1}
    assert [len(found) for found in splits_of(data)] == [1] * 10, "both sessions of a person are in one split"


def test_angles_of_kdef(kdef_folder: Path) -> None:
    assert len(kdef.load(kdef_folder, angles="half").images) == 280
    assert len(kdef.load(kdef_folder, angles="all").images) == 420
    assert message(kdef.load, kdef_folder, angles="S") == (
        "data=kdef: data.angles is S; it must be straight, half or all"
    )


@pytest.fixture
def rafdb_folder(tmp_path: Path) -> Path:
    """Three training images and one test image of each class."""
    root = tmp_path / "basic"
    lines = [f"train_{3 * label + take:05}.jpg {label}" for label in range(1, 8) for take in range(3)]
    lines += [f"test_{label:04}.jpg {label}" for label in range(1, 8)]
    names = [f"Image/aligned/{line.split()[0].replace('.', '_aligned.')}" for line in lines]
    draw_files(root, names, (100, 100), colour=True)
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def test_rafdb(rafdb_folder: Path) -> None:
    data = rafdb.load(rafdb_folder, val_fraction=0.34)
    assert data.images.shape == (28, 48, 48)
    order = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    assert [data.class_names[label] for label in data.labels] == [name for name in order for _ in range(3)] + list(
        order
    )
    assert [int((data.split == code).sum()) for code in (TRAIN, VAL, TEST)] == [14, 7, 7]
    assert data.source == "basic (RAF-DB, aligned)"
    assert rafdb.load(zip_folder(rafdb_folder, rafdb_folder.parent / "r.zip"), val_fraction=0.34).digest == data.digest
    folder = rafdb.load(rafdb_folder, split="folder")
    assert [int((folder.split == code).sum()) for code in (TRAIN, VAL, TEST)] == [21, 7, 0]


def test_rafdb_in_folders_of_classes(rafdb_folder: Path, tmp_path: Path) -> None:
    for file in sorted(rafdb_folder.rglob("*.jpg")):
        split, number, _ = file.name.split("_")
        label = int(number) // 3 if split == "train" else int(number)
        (tmp_path / "DATASET" / split / str(label)).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / "DATASET" / split / str(label) / file.name)
    data = rafdb.load(tmp_path / "DATASET", val_fraction=0.34)
    assert np.bincount(data.labels).tolist() == [4] * 7
    assert data.class_names[data.labels[0]] == "surprise"


def test_faults_of_rafdb(rafdb_folder: Path) -> None:
    listed = rafdb_folder / "EmoLabel" / "list_patition_label.txt"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join([*lines, "train_99999.jpg 5", "train_00001.jpg 8", "x"]))
    name = "EmoLabel/list_patition_label.txt"
    assert message(rafdb.load, rafdb_folder) == (
        f"data.path is {rafdb_folder}: 2 faults\n"
        f"  line 29 of {name} needs train_99999_aligned.jpg, which is missing; unpack aligned.zip beside {name}, "
        "or remove the line\n"
        f"  line 30 of {name} is 'train_00001.jpg 8'; it must be a file and a label from 1 to 7, "
        'e.g. "train_00001.jpg 5"; 1 more line is broken (31)'
    )
    listed.unlink()
    assert message(rafdb.load, rafdb_folder) == (
        f"data.path is {rafdb_folder}: it has no list_patition_label.txt; "
        "set data.path to the folder that has EmoLabel and Image"
    )


@pytest.fixture
def ferplus_folder(tmp_path: Path) -> Path:
    """Two images in each split, and a row whose image the authors left out."""
    rows = [
        ("Training", "fer0000000.png", "0,0,0,0,9,1,0,0,0,0"),  # anger
        ("Training", "", "0,0,0,0,0,0,0,0,0,10"),
        ("Training", "fer0000002.png", "5,5,0,0,0,0,0,0,0,0"),  # a tie of neutral and happiness: happy is first
        ("PublicTest", "fer0000003.png", "0,0,0,0,0,0,0,8,2,0"),  # contempt
        ("PublicTest", "fer0000004.png", "1,0,0,0,0,0,0,0,9,0"),  # unknown
        ("PrivateTest", "fer0000005.png", "0,0,0,10,0,0,0,0,0,0"),
    ]
    folders = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    draw_files(tmp_path / "data", [f"{folders[usage]}/{name}" for usage, name, _ in rows if name])
    lines = ["Usage,Image name," + ",".join(VOTE_COLUMNS), *(",".join(row) for row in rows)]
    (tmp_path / "data" / "fer2013new.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def test_ferplus_folders(ferplus_folder: Path) -> None:
    data = ferplus.load(ferplus_folder)
    assert [data.class_names[label] for label in data.labels[[0, 1, 2, 4]]] == ["angry", "happy", "contempt", "sad"]
    assert data.split.tolist() == [TRAIN, TRAIN, VAL, UNUSED, TEST]
    assert data.targets is None
    assert describe(data)["parts"][0]["dropped"] == {"rows without an image": 1}
    shares = ferplus.load(ferplus_folder, labels="ferplus_shares")
    assert shares.targets is not None
    np.testing.assert_allclose(shares.targets[0], [0.9, 0.1, 0, 0, 0, 0, 0, 0], atol=1e-6)
    assert ferplus.load(zip_folder(ferplus_folder, ferplus_folder.parent / "f.zip")).digest == data.digest


def test_faults_of_ferplus_folders(ferplus_folder: Path) -> None:
    (ferplus_folder / "FER2013Train" / "fer0000002.png").unlink()
    assert message(ferplus.load, ferplus_folder) == (
        f"data.path is {ferplus_folder}: row 4 of fer2013new.csv names fer0000002.png, which is in none of FER2013Train, "
        "FER2013Valid, FER2013Test; unpack the images of FER+ there"
    )
    (ferplus_folder / "fer2013new.csv").unlink()
    assert message(ferplus.load, ferplus_folder, labels="ferplus_majority") == (
        f"data.path is {ferplus_folder}: it has no fer2013new.csv; "
        "it must be beside FER2013Train, FER2013Valid, FER2013Test"
    )
    assert message(ferplus.load, ferplus_folder, labels="fer") == (
        "data=ferplus: data.labels is fer; it must be ferplus_majority or ferplus_shares"
    )
