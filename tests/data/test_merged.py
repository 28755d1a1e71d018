"""Merging: into training only, in one form, without leaks; every class and image is counted, every fault reported."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_faces import draw_files

from ferhpo.data import affectnet, ckplus, fer2013, image_folder, merged, sfew
from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL
from ferhpo.data.describe import describe
from ferhpo.data.splits import with_fold
from ferhpo.errors import ConfigError, DataError

FOLDERS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")


@pytest.fixture
def csv(rows: list[str], write_csv: Callable[..., Path]) -> Path:
    return write_csv(rows)


@pytest.fixture
def ck48(tmp_path: Path) -> Path:
    """Twelve subjects with three frames each of two emotions; nine frames show contempt."""
    names = [
        f"{FOLDERS[(subject + turn) % 7]}/S{subject:03}_{turn:03}_{frame:08}.png"
        for subject in range(12)
        for turn in (1, 2)
        for frame in (9, 10, 11)
    ]
    return draw_files(tmp_path / "CK48", names)


@pytest.fixture
def affect(tmp_path: Path) -> Path:
    names = [f"{split}/{code}/{code}{index}.png" for split in ("train", "val") for code in range(8) for index in (1, 2)]
    return draw_files(tmp_path / "AffectNet", names, (64, 64), colour=True)


def message(*args: Any, **kwargs: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        merged.load(*args, **kwargs)
    return str(caught.value)


def test_into_training_alone(csv: Path, ck48: Path, affect: Path) -> None:
    main = fer2013.load(csv)
    readers = {"ckplus": partial(ckplus.load, ck48), "affectnet": partial(affectnet.load, path=affect)}
    data = merged.load(partial(fer2013.load, csv), readers)
    assert data.class_names == main.class_names
    assert data.split_name == "published"
    for code in (VAL, TEST):
        np.testing.assert_array_equal(data.images[data.split == code], main.images[main.split == code])
    np.testing.assert_array_equal(data.images[:35], main.images)
    assert (data.split[35:] == TRAIN).all()
    assert [(part.name, part.num_images, part.dropped, part.train_only) for part in data.parts] == [
        ("main", 35, (), False),
        ("ckplus", 63, (("of class contempt", 9),), True),
        ("affectnet", 28, (("of class contempt", 4),), True),
    ]
    own = ckplus.load(ck48, labels={"contempt": "drop"})
    np.testing.assert_array_equal(data.images[35:98], own.images)
    np.testing.assert_array_equal(data.labels[35:98], own.labels)
    assert data.source == " + ".join(
        ["fer2013.csv (competition CSV)", "CK48 (CK+, folders of classes)", "AffectNet (AffectNet, folders of classes)"]
    )
    facts = describe(data)
    assert [part["counts"]["train"] for part in facts["parts"]] == [21, 63, 28]
    assert facts["parts"][1]["dropped"] == {"of class contempt": 9}
    # The subjects of CK+ stay groups, without images of other sources.
    assert data.groups is not None
    assert len(set(data.groups[35:98])) == 12
    assert len(set(data.groups)) == 35 + 12 + 28


def test_only_their_training_images(csv: Path, affect: Path) -> None:
    readers = {"affectnet": partial(affectnet.load, affect)}
    assert len(merged.load(partial(fer2013.load, csv), readers, take="train").images) == 35 + 14
    sample = {"affectnet": partial(affectnet.load, affect, labels={"contempt": "drop"}, train_subset=7)}
    assert len(merged.load(partial(fer2013.load, csv), sample, take="train").images) == 35 + 7
    assert len(merged.load(partial(fer2013.load, csv), sample, take="all").images) == 35 + 7 + 14


def test_one_form(csv: Path, affect: Path, tmp_path: Path) -> None:
    """Readers get the size and channels of the main source; images of readers without these keys are converted."""
    data = merged.load(partial(fer2013.load, csv, image_size=40), {"a": partial(affectnet.load, affect)})
    own = affectnet.load(affect, image_size=40, labels={"contempt": "drop"})
    np.testing.assert_array_equal(data.images[35:], own.images)
    colour = merged.load(partial(affectnet.load, affect, channels=3), {"fer": partial(fer2013.load, csv)})
    assert colour.images.shape == (32 + 35, 48, 48, 3)
    np.testing.assert_array_equal(colour.images[32:], np.repeat(fer2013.load(csv).images[..., None], 3, axis=3))
    forced = partial(affectnet.load, affect, image_size=64, channels=3)
    with Image.open(affect / "train" / "0" / "01.png") as image:
        expected = image.convert("L").resize((48, 48), Image.Resampling.BILINEAR)
    data = merged.load(partial(fer2013.load, csv), {"a": forced})
    np.testing.assert_array_equal(data.images[35], np.asarray(expected))


def test_leaks_are_dropped(csv: Path, ck48: Path, pixels: np.ndarray) -> None:
    """Images 3 and 4 of each emotion are in val and test; 0 is in train."""
    for place, index in enumerate((3, 4, 8, 0)):
        Image.fromarray(pixels[index]).save(ck48 / "fear" / f"S09{place}_001_00000001.png")
    data = merged.load(partial(fer2013.load, csv), {"ckplus": partial(ckplus.load, ck48)})
    assert data.parts[1].dropped == (("of class contempt", 9), ("identical to a val or test image of main", 3))
    assert describe(data)["overlap"] == {"val_in_train": 0, "test_in_train": 0, "test_in_val": 0}
    assert describe(data)["duplicates"]["redundant_images"] == 1


def test_folds(csv: Path, ck48: Path, pixels: np.ndarray) -> None:
    """Folds cut the main source as without merging; a merged copy of a val image is UNUSED."""
    Image.fromarray(pixels[0]).save(ck48 / "fear" / "S090_001_00000001.png")
    readers = {"ckplus": partial(ckplus.load, ck48)}
    times = 0
    for fold in range(3):
        data = merged.load(partial(fer2013.load, csv), readers, folds=3, fold=fold)
        alone = with_fold(fer2013.load(csv), 3, fold, 0)
        np.testing.assert_array_equal(data.split[:35], alone.split)
        copies = np.flatnonzero((data.images[35:] == pixels[0]).all(axis=(1, 2))) + 35
        assert len(copies) == 1
        assert data.split[copies[0]] == (UNUSED if data.split[0] == VAL else TRAIN)
        times += data.split[copies[0]] == UNUSED
        assert ((data.split[35:] == TRAIN) | (data.split[35:] == UNUSED)).all()
    assert times == 1


def test_soft_targets_and_contempt(csv: Path, ck48: Path, write_csv: Callable[..., Path]) -> None:
    header = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    write_csv([header, *["4,4,0,0,0,0,0,2,0,0"] * 35], "ferplus.csv")
    main = partial(fer2013.load, csv, labels="ferplus_shares")
    data = merged.load(main, {"ckplus": partial(ckplus.load, ck48)})
    assert data.class_names[-1] == "contempt"
    assert data.parts[1].dropped == (), "FER+ has a class for contempt"
    assert data.targets is not None
    np.testing.assert_array_equal(data.targets[35:], np.eye(8, dtype=np.float32)[data.labels[35:]])
    assert (data.labels[35:] == 7).sum() == 9


def test_random_split_of_the_main_source(csv: Path, ck48: Path) -> None:
    main = partial(fer2013.load, csv, split="random", val_fraction=0.2, test_fraction=0.2)
    data = merged.load(main, {"ckplus": partial(ckplus.load, ck48)})
    np.testing.assert_array_equal(data.split[:35], main().split)
    assert data.split_name == "random"
    assert set(data.split[35:]) == {TRAIN}


def test_classes_without_a_place(csv: Path, tmp_path: Path) -> None:
    root = draw_files(
        tmp_path / "set", [f"{name}/{index}.png" for name in ("bored", "Happy", "anger") for index in range(9)]
    )
    readers = {"more": partial(image_folder.load, root)}
    main = partial(fer2013.load, csv)
    assert message(main, readers) == (
        "data=merged: data.merge.more has the class bored, which data.main does not have (it has: angry, disgust, fear, "
        "happy, sad, surprise, neutral); set data.merge.more.labels={bored: drop}"
    )
    data = merged.load(main, {"more": partial(image_folder.load, root, labels={"bored": "neutral"})})
    assert np.bincount(data.labels[35:], minlength=7).tolist() == [9, 0, 0, 9, 0, 0, 9]


def test_every_fault_of_every_source(csv: Path, ck48: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.path"  # a name that looks like a key
    readers = {
        "ckplus": partial(ckplus.load, path=ck48, labels={"contempt": "dorp"}, crop="x"),
        "sfew": partial(sfew.load, path=path, val_fraction=0.2),
        "left_out": partial(affectnet.load, path=None),
    }
    emotions = "drop, angry, disgust, fear, happy, sad, surprise, neutral or contempt"
    assert message(partial(fer2013.load, path=tmp_path / "no.csv", split="random"), readers) == (
        "data=merged: 4 faults\n"
        f"  data.main.path is {tmp_path / 'no.csv'}: there is no such file; no similar name in {tmp_path}\n"
        f"  data.merge.ckplus.labels.contempt is dorp; it must be {emotions}; did you mean drop?\n"
        "  data.merge.ckplus.crop is x; it must be landmarks or centre, or null for landmarks if they exist\n"
        f"  data.merge.sfew.path is {path}: there is no such file; no similar name in {tmp_path}"
    )
    assert message(partial(fer2013.load, csv), {"sfew": partial(sfew.load, ck48)}) == (
        f"data.merge.sfew.path is {ck48}: data.merge.sfew.split=published needs the folders Train and Val; "
        "set data.merge.sfew.split=random"
    )


def test_wrong_keys(csv: Path) -> None:
    main = partial(fer2013.load, csv)
    assert message(main, {"ckplus": partial(ckplus.load, path=None)}, take="some", folds=1) == (
        "data=merged: 3 faults\n"
        "  data.folds is 1; it must be at least 2, or null for no folds\n"
        "  data.take is some; it must be all or train\n"
        "  data.merge has no source to merge; set data.merge.ckplus.path, or use the main data set alone"
    )
    assert message(main, {"ckplus": {"path": "x"}}) == (
        "data=merged: data.merge.ckplus is {'path': 'x'}; it must be a data set with its _target_"
    )
    assert message(main, None).startswith(
        "data=merged: 2 faults\n  data.merge is None; it must be a mapping from names to data sets"
    )


@pytest.mark.full
def test_real_sources(real_fer2013: Path) -> None:
    readers = {
        "ckplus": partial(ckplus.load, real_fer2013 / "CK48"),
        "sfew": partial(sfew.load, real_fer2013 / "SFEW"),
    }
    facts = describe(merged.load(partial(fer2013.load, real_fer2013 / "fer2013.csv"), readers))
    assert [part["num_images"] for part in facts["parts"]] == [35_887, 981 - 54, 1_291 - 12]
    # The twelve black images of SFEW are also in the test images of FER2013.
    assert facts["parts"][2]["dropped"] == {"identical to a val or test image of main": 12}
    assert [sum(counts.values()) for counts in facts["counts"].values()] == [28_709 + 927 + 1_279, 3_589, 3_589, 0]
    assert facts["overlap"] == {"val_in_train": 280, "test_in_train": 288, "test_in_val": 44}
