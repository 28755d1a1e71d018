"""CK+ in both forms: selected frames, labels, subjects, and every fault."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_faces import draw_files, zip_folder

from ferhpo.data import ckplus
from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.describe import describe
from ferhpo.data.io import ckplus_original
from ferhpo.errors import ConfigError, DataError

FOLDERS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
QUARTERS: dict[str, Any] = {"val_fraction": 0.25, "test_fraction": 0.25}  # of four subjects


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twelve subjects with three frames each of two emotions, as in CK+48 on Kaggle."""
    names = [
        f"{FOLDERS[(subject + turn) % 7]}/S{subject:03}_{turn:03}_{frame:08}.png"
        for subject in range(12)
        for turn in (1, 2)
        for frame in (9, 10, 11)
    ]
    return draw_files(tmp_path / "CK48", names)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Four labeled sequences and one without a label, of eight frames each.

    The gray level is ten times the number of the frame plus that of the subject, since identical images form one group.
    """
    root = tmp_path / "CK+"
    for place, (subject, label) in enumerate(((5, 3), (10, 5), (11, 2), (14, 7), (22, None))):
        sequence = f"S{subject:03}/001"
        images = root / "cohn-kanade-images" / sequence
        labels = root / "Emotion" / sequence
        for folder in (images, labels):
            folder.mkdir(parents=True)
        for frame in range(1, 9):
            Image.fromarray(np.full((49, 64), 10 * frame + place, np.uint8)).save(
                images / f"{sequence.replace('/', '_')}_{frame:08}.png"
            )
        if label is not None:
            (labels / f"{sequence.replace('/', '_')}_00000008_emotion.txt").write_text(f"   {label}.0000000e+00\n")
    return root


def message(path: Path, **settings: object) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        ckplus.load(path, **settings)  # type: ignore[arg-type]
    return str(caught.value).replace(str(path), "HERE")


def test_folders(folders: Path) -> None:
    data = ckplus.load(folders)
    assert data.images.shape == (72, 48, 48)
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
    assert data.source == "CK48 (CK+, folders of classes)"
    assert data.groups is not None
    assert len(set(data.groups)) == 12
    assert data.split_name == "random"
    assert set(data.split) == {TRAIN, VAL, TEST}
    for group in set(data.groups):
        assert len(set(data.split[data.groups == group])) == 1
    with Image.open(folders / "sadness" / "S004_001_00000009.png") as image:
        shown = np.flatnonzero((data.images == np.asarray(image)).all(axis=(1, 2)))
    assert data.class_names[data.labels[shown[0]]] == "sad"
    assert ckplus.load(zip_folder(folders, folders.parent / "ck.zip", "CK+48/")).digest == data.digest


def test_peak_of_folders(folders: Path) -> None:
    data = ckplus.load(folders, peak_frames=1)
    assert len(data.images) == 24
    assert data.parts[0].dropped == (("frames before the peak", 48),)
    with Image.open(folders / "fear" / "S002_001_00000011.png") as image:
        assert (data.images == np.asarray(image)).all(axis=(1, 2)).sum() == 1


def test_labels_drop_or_map(folders: Path) -> None:
    whole = ckplus.load(folders)
    number = int((whole.labels == 7).sum())
    dropped = ckplus.load(folders, labels={"contempt": "drop"})
    assert dropped.class_names == whole.class_names[:7]
    assert dropped.parts[0].dropped == (("of class contempt", number),)
    assert dropped.source == "CK48 (CK+, folders of classes, without contempt)"
    np.testing.assert_array_equal(dropped.images, whole.images[whole.labels != 7])
    mapped = ckplus.load(folders, labels={"Contempt": "disgust"})
    assert mapped.class_names == whole.class_names[:7]
    np.testing.assert_array_equal(mapped.labels, np.where(whole.labels == 7, 1, whole.labels))
    assert mapped.source == "CK48 (CK+, folders of classes, contempt as disgust)"


def test_original_directories(original: Path) -> None:
    data = ckplus.load(original, image_size=24, **QUARTERS)
    assert data.source == "CK+ (CK+, original directories, centre of each frame)"
    names = [data.class_names[label] for label in data.labels]
    assert names == [
        *["neutral", "disgust", "disgust", "disgust", "neutral", "happy", "happy", "happy"],
        *["neutral", "contempt", "contempt", "contempt", "neutral", "surprise", "surprise", "surprise"],
    ]
    assert data.images.shape == (16, 24, 24)
    assert data.images[:, 12, 12].tolist() == [10 * frame + place for place in range(4) for frame in (1, 6, 7, 8)]
    assert data.groups is not None
    assert data.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert data.parts[0].dropped == (
        ("frames of sequences without a label", 8),
        ("frames between neutral and peak", 16),
    )
    more = ckplus.load(original, peak_frames=2, neutral_frames=2, channels=3, **QUARTERS)
    assert more.images[:4, 20, 20, 1].tolist() == [10, 20, 70, 80]
    assert (
        ckplus.load(zip_folder(original, original.parent / "ck.zip"), image_size=24, **QUARTERS).digest == data.digest
    )


def test_faces_by_landmarks(original: Path) -> None:
    """The square around the landmarks is moved inside the frame if necessary."""
    for place, file in enumerate(sorted((original / "cohn-kanade-images").rglob("*.png"))):
        pixels = np.zeros((49, 64), np.uint8)
        pixels[8:28, 36:56] = 100 + place  # where the landmarks are
        Image.fromarray(pixels).save(file)
        marks = original / "Landmarks" / f"{file.stem}_landmarks.txt"
        marks.parent.mkdir(exist_ok=True)
        marks.write_text("   3.6000000e+01   1.0000000e+01\n  5.6000000e+01   2.8000000e+01\n 4.6e+01 2.0e+01\n")
    data = ckplus.load(original, **QUARTERS)
    assert data.source.endswith("faces by landmarks)")
    # 26 pixels wide for landmarks 20 wide, centered on x=46 and 2 above y=19: from (33, 4) to (59, 30).
    with Image.open(next((original / "cohn-kanade-images").rglob("S005_001_00000001.png"))) as image:
        expected = image.crop((33, 4, 59, 30)).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.images[0], np.asarray(expected))
    assert ckplus.load(original, crop="centre", **QUARTERS).source.endswith("centre of each frame)")
    assert ckplus_original._square(np.array([0.0, 0, 20, 20]), 64, 49) == (0, 0, 26, 26)
    assert ckplus_original._square(np.array([50.0, 40, 64, 49]), 64, 49) == (46, 31, 64, 49)
    assert ckplus_original._square(np.array([0.0, 0, 64, 49]), 64, 49) == (8, 0, 57, 49)
    (original / "Landmarks" / "S005_001_00000001_landmarks.txt").unlink()
    (original / "Landmarks" / "S010_001_00000008_landmarks.txt").write_text("1 2 x")
    assert message(original) == (
        "data.path is HERE: 2 faults\n"
        "  cohn-kanade-images/S005/001/S005_001_00000001.png has no landmarks; download them again, or set "
        "data.crop=centre\n"
        "  Landmarks/S010_001_00000008_landmarks.txt does not consist of pairs of numbers; download it again, or set "
        "data.crop=centre"
    )


def test_every_fault_of_the_original(original: Path) -> None:
    emotion = original / "Emotion"
    next((emotion / "S005" / "001").iterdir()).write_text("8.0")
    next((emotion / "S010" / "001").iterdir()).write_text("")
    (emotion / "S099_001_00000012_emotion.txt").write_text("1.0")
    for frame in range(1, 6):
        (original / "cohn-kanade-images" / "S014" / "001" / f"S014_001_{frame:08}.png").unlink()
    assert message(original) == (
        "data.path is HERE: 3 faults\n"
        "  the content of Emotion/S005/001/S005_001_00000008_emotion.txt is '8.0'; it must be one number from 0 to 7; "
        "download it again; 1 more file is broken (Emotion/S010/001/S010_001_00000008_emotion.txt)\n"
        "  Emotion/S099_001_00000012_emotion.txt labels S099_001, which has no images; download the images\n"
        "  S014_001 has 3 frames, fewer than data.peak_frames=3 and data.neutral_frames=1 together; set fewer"
    )
    for file in emotion.rglob("*.txt"):
        file.unlink()
    assert message(original) == (
        "data.path is HERE: it has no emotion file, e.g. S005_001_00000011_emotion.txt; unpack the Emotion labels of "
        "CK+ beside cohn-kanade-images"
    )


def test_every_fault_of_folders(folders: Path) -> None:
    draw_files(folders, ["bored/S001_001_00000001.png", "fear/face.png"])
    (folders / "happy" / "S001_009_00000001.png").write_text("no image")
    assert message(folders) == (
        "data.path is HERE: 3 faults\n"
        "  the folder bored is not an emotion (angry, disgust, fear, happy, sad, surprise, neutral, contempt); "
        "use data=image_folder for other classes\n"
        "  fear/face.png is not named by subject, sequence and frame, e.g. S010_004_00000017.png; use data=image_folder "
        "for other names\n"
        "  happy/S001_009_00000001.png is not an image; remove it"
    )


def test_every_wrong_key(folders: Path) -> None:
    keys = {"split": "published", "peak_frames": 0, "neutral_frames": -1, "crop": "face", "channels": 2}
    assert message(folders, labels={"contmpt": "drop"}, image_size=0, **keys) == (
        "data=ckplus: 7 faults\n"
        "  data.split is published; it must be random\n"
        "  data.labels.contmpt matches no class; did you mean contempt?\n"
        "  data.channels is 2; it must be 1 (gray) or 3 (color)\n"
        "  data.image_size is 0; it must be at least 1, or null to keep the size of the images\n"
        "  data.peak_frames is 0; it must be at least 1, e.g. 3\n"
        "  data.neutral_frames is -1; it must be at least 0, e.g. 1\n"
        "  data.crop is face; it must be landmarks or centre, or null for landmarks if they exist"
    )


@pytest.mark.full
def test_real_ck48(real_fer2013: Path) -> None:
    data = ckplus.load(real_fer2013 / "CK48")
    facts = describe(data)
    assert facts["num_images"] == 981
    whole = {name: sum(facts["counts"][split][name] for split in facts["counts"]) for name in data.class_names}
    assert whole == {
        "angry": 135, "disgust": 177, "fear": 75, "happy": 207, "sad": 84, "surprise": 249, "neutral": 0, "contempt": 54,
    }  # fmt: skip
    assert data.groups is not None
    assert len(set(data.groups)) == 118
    assert len(ckplus.load(real_fer2013 / "CK48", peak_frames=1).images) == 327
