"""FER2013 in each form gives the same images, labels and splits."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_faces import csv_row, zip_folder

from ferhpo.data import fer2013
from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData
from ferhpo.data.io.fer2013_csv import VOTE_COLUMNS

WriteCsv = Callable[..., Path]


def check_good(data: FaceData, pixels: np.ndarray) -> None:
    """The images of the fixture `pixels` with their labels and published split, in any order."""
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    found = {
        image.tobytes(): (label, split)
        for image, label, split in zip(data.images, data.labels, data.split, strict=True)
    }
    splits = (TRAIN, TRAIN, TRAIN, VAL, TEST)
    assert found == {image.tobytes(): (i // 5, splits[i % 5]) for i, image in enumerate(pixels)}
    assert data.images.shape == (35, 48, 48)
    assert (data.targets, data.split_name) == (None, "published")


def test_competition_csv(rows: list[str], pixels: np.ndarray, write_csv: WriteCsv) -> None:
    data = fer2013.load(write_csv(rows))
    check_good(data, pixels)
    assert data.source == "fer2013.csv (competition CSV)"
    np.testing.assert_array_equal(data.images, pixels)


def test_icml_csv_with_spaces_in_its_column_names(pixels: np.ndarray, write_csv: WriteCsv) -> None:
    usages = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
    lines = [f"{i // 5},{usages[i % 5]},{' '.join(map(str, im.reshape(-1)))}" for i, im in enumerate(pixels)]
    check_good(fer2013.load(write_csv(["emotion, Usage, pixels", *lines], "icml_face_data.csv")), pixels)


@pytest.mark.parametrize("form", ["quotes", "windows", "mark", "spaces"])
def test_csv_in_other_dialects(form: str, rows: list[str], pixels: np.ndarray, tmp_path: Path) -> None:
    lines = {
        "quotes": [",".join(f'"{field}"' for field in row.split(",")) for row in rows],
        "windows": [row + "\r" for row in rows] + ["\r"],
        "mark": ["\ufeff" + rows[0], *rows[1:]],
        "spaces": [row.replace(",", " , ") for row in rows],
    }[form]
    (tmp_path / "any.csv").write_bytes("\n".join(lines).encode())
    check_good(fer2013.load(tmp_path / "any.csv"), pixels)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("quoted", [False, True])
def test_csv_with_another_separator(
    separator: str, quoted: bool, rows: list[str], pixels: np.ndarray, write_csv: WriteCsv
) -> None:
    lines = [[f'"{field}"' if quoted else field for field in row.split(",")] for row in rows]
    check_good(fer2013.load(write_csv([separator.join(fields) for fields in lines])), pixels)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_further_columns_in_any_language(encoding: str, rows: list[str], pixels: np.ndarray, tmp_path: Path) -> None:
    """A column before and one after; the separator inside quotes is not one."""
    lines = [f'Größe,{rows[0]},"Überschrift, deutsch"', *[f'groß,{row},"traurig, müde"' for row in rows[1:]]]
    (tmp_path / "any.csv").write_bytes("\n".join(lines).encode(encoding))
    check_good(fer2013.load(tmp_path / "any.csv"), pixels)


def test_columns_in_chinese(rows: list[str], pixels: np.ndarray, write_csv: WriteCsv) -> None:
    check_good(
        fer2013.load(
            write_csv([f"备注;{rows[0]}".replace(",", ";"), *[f"好;{row}".replace(",", ";") for row in rows[1:]]])
        ),
        pixels,
    )


@pytest.mark.parametrize(
    "names",
    [
        ("0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0"),
        (" 0", "01", "2", "3.000", "4", "5e0", "6"),
        ("Anger", "disgusted", "fearful", "HAPPY", "sadness", "surprised", "neutral"),
        ("0", "1", "2", "happy", "4", "5", "6"),
    ],
)
def test_labels_in_other_spellings(
    names: tuple[str, ...], rows: list[str], pixels: np.ndarray, write_csv: WriteCsv
) -> None:
    lines = [names[int(row[0])] + row[1:] for row in rows[1:]]
    check_good(fer2013.load(write_csv([rows[0], *lines])), pixels)


def test_names_of_some_emotions_are_not_taken_for_numbers_from_one(rows: list[str], write_csv: WriteCsv) -> None:
    lines = ["disgust" + row[1:] if row[0] == "1" else "sad" + row[1:] for row in rows[1:]]
    assert set(fer2013.load(write_csv([rows[0], *lines])).labels) == {1, 4}


def test_folders(folders: Path, pixels: np.ndarray) -> None:
    data = fer2013.load(str(folders))
    check_good(data, pixels)
    assert data.source == "fer2013 (folders)"


def test_folders_with_other_names_and_left_overs(folders: Path, pixels: np.ndarray) -> None:
    (folders / "train" / "happy").rename(folders / "train" / "Happiness")
    (folders / "test" / "sad").rename(folders / "test" / "sadness")
    (folders / "train" / "fear" / "Thumbs.db").write_bytes(b"x")
    (folders / "train" / "fear" / ".DS_Store").write_bytes(b"x")
    (folders / "README.txt").write_text("about")
    check_good(fer2013.load(folders), pixels)


def test_folder_that_holds_the_csv(rows: list[str], pixels: np.ndarray, write_csv: WriteCsv) -> None:
    check_good(fer2013.load(write_csv(rows).parent), pixels)


@pytest.mark.parametrize("top", ["", "archive/fer2013/"])
def test_zip_of_folders(top: str, folders: Path, pixels: np.ndarray) -> None:
    archive = zip_folder(folders, folders.parent / "faces.zip", top)
    data = fer2013.load(archive)
    check_good(data, pixels)
    assert data.source == "faces.zip (zip of folders)"
    assert sorted(p.name for p in folders.parent.iterdir()) == ["faces.zip", "fer2013"], "nothing is extracted"


def test_zip_of_csv_beside_other_files(rows: list[str], pixels: np.ndarray, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "challenge.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("challenge/README", "about")
        out.writestr("challenge/train.csv", "emotion,pixels\n")
        out.writestr("challenge/fer2013.csv", "\n".join(rows))
    data = fer2013.load(tmp_path / "challenge.zip")
    check_good(data, pixels)
    assert data.source == "challenge.zip (zip of a CSV)"


def test_all_forms_have_the_digest_of_the_same_pixels(rows: list[str], folders: Path, write_csv: WriteCsv) -> None:
    csv = write_csv(rows)
    with zipfile.ZipFile(csv.with_suffix(".zip"), "w") as out:
        out.write(csv, "fer2013.csv")
    assert fer2013.load(csv).digest == fer2013.load(csv.with_suffix(".zip")).digest
    archive = zip_folder(folders, folders.parent / "folders.zip")
    assert fer2013.load(folders).digest == fer2013.load(archive).digest


def test_folder_split_validates_on_the_whole_test_folder(rows: list[str], folders: Path, write_csv: WriteCsv) -> None:
    for path in (folders, write_csv(rows)):
        data = fer2013.load(path, split="folder")
        assert np.bincount(data.split, minlength=4).tolist() == [21, 14, 0, 0]
        assert data.split_name == "folder"


def test_csv_without_usage_splits_at_random(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv([row.rpartition(",")[0] for row in rows])
    data = fer2013.load(path, split="random", val_fraction=0.2, test_fraction=0.2)
    assert np.bincount(data.split, minlength=4).tolist() == [21, 7, 7, 0]
    assert data.split_name == "random"


def test_folds_leave_the_test_split_alone(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv(rows)
    parts = [fer2013.load(path, folds=4, fold=fold) for fold in range(4)]
    assert parts[1].split_name == "published, fold 1 of 4"
    assert all(((part.split == TEST) == (parts[0].split == TEST)).all() for part in parts)
    in_val = sum((part.split == VAL).astype(int) for part in parts)
    np.testing.assert_array_equal(in_val, (parts[0].split != TEST).astype(int))


def test_labels_from_one(pixels: np.ndarray, write_csv: WriteCsv) -> None:
    usages = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
    lines = [csv_row(image, i // 5 + 1, usages[i % 5]) for i, image in enumerate(pixels)]
    check_good(fer2013.load(write_csv(["emotion,pixels,Usage", *lines]), label_offset=1), pixels)


def test_image_size_and_subset(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv(rows)
    data = fer2013.load(path, image_size=32, train_subset=7)
    assert data.images.shape == (35, 32, 32)
    assert np.bincount(data.split, minlength=4).tolist() == [7, 7, 7, 14]
    assert sorted(data.labels[data.split == TRAIN]) == list(range(7))
    assert fer2013.load(path).image_size == 48


def test_arrays_are_read_only_also_after_pickling(rows: list[str], write_csv: WriteCsv) -> None:
    data = fer2013.load(write_csv(rows))
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert len(head) < 5_000 < sum(buffer.raw().nbytes for buffer in buffers)
    for copy in (data, pickle.loads(head, buffers=buffers), pickle.loads(pickle.dumps(data, protocol=5))):
        assert copy.digest == data.digest
        for array in (copy.images, copy.labels, copy.split):
            assert not array.flags.writeable


# FER+: columns neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
def ferplus_lines(votes: dict[int, str]) -> list[str]:
    """35 rows that vote for sadness, except the rows given by their index."""
    return [",".join(VOTE_COLUMNS), *(votes.get(index, "0,0,0,10,0,0,0,0,0,0") for index in range(35))]


def test_ferplus(rows: list[str], write_csv: WriteCsv) -> None:
    votes = {
        0: "0,0,0,0,0,0,0,9,1,0",  # contempt is kept
        1: "4,0,0,0,4,0,0,0,2,0",  # a tie: the label of FER2013, angry
        2: "0,0,5,5,0,0,0,0,0,0",  # a tie without it: the first in class order, sad
        3: "1,0,0,2,0,0,0,0,7,0",  # most say unknown: dropped
        4: "0,0,0,0,0,0,0,0,0,10",  # no face: dropped
        5: "0,0,0,0,0,0,0,0,0,0",  # no votes: dropped
        6: "5,0,0,0,0,0,0,0,5,0",  # as many neutral as unknown: kept
    }
    path = write_csv(rows)
    write_csv(ferplus_lines(votes), "ferplus.csv")
    data = fer2013.load(path, labels="ferplus_majority")
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
    assert data.labels[:8].tolist() == [7, 0, 4, 0, 0, 1, 6, 4]
    assert np.flatnonzero(data.split == UNUSED).tolist() == [3, 4, 5]
    assert data.targets is None
    assert data.source == "fer2013.csv (competition CSV, ferplus_majority)"

    shares = fer2013.load(path, labels="ferplus_shares")
    assert shares.targets is not None
    assert shares.targets.dtype == np.float32
    np.testing.assert_allclose(shares.targets[0], np.eye(8)[7])
    np.testing.assert_allclose(shares.targets[1], [0.5, 0, 0, 0, 0, 0, 0.5, 0])
    np.testing.assert_allclose(shares.targets.sum(axis=1), 1)
    np.testing.assert_array_equal(shares.labels, data.labels)
    assert len({data.digest, shares.digest, fer2013.load(path).digest}) == 3


def test_ferplus_in_the_form_of_its_authors(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv(rows)
    lines = ferplus_lines({0: "0,9,0,0,0,0,0,0,0,0"})
    names = ["Usage,Image name", *(f"Training,fer{index:07}.png" for index in range(35))]
    write_csv([f"{name},{line}" for name, line in zip(names, lines, strict=True)], "fer2013new.csv")
    assert fer2013.load(path, labels="ferplus_majority").labels[:2].tolist() == [3, 4]
