"""The messages for a broken data set: exact wording, and every fault at once."""

import os
import re
import struct
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_faces import EMOTIONS, draw_files, png, zip_folder

from ferhpo.data import fer2013, image_folder, synthetic
from ferhpo.data.io import faults, fer2013_csv, tree
from ferhpo.data.labels import emotions
from ferhpo.errors import ConfigError, DataError

WriteCsv = Callable[..., Path]
GREY = np.full((48, 48), 7, np.uint8)


def message(load: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def of_path(path: Path, *sentences: str) -> str:
    if len(sentences) == 1:
        return f"data.path is {path}: {sentences[0]}"
    return "\n  ".join([f"data.path is {path}: {len(sentences)} faults", *sentences])


def change(row: str, emotion: str | None = None, pixels: str | None = None, usage: str | None = None) -> str:
    fields = row.split(",")
    return ",".join(new if new is not None else old for new, old in zip((emotion, pixels, usage), fields, strict=True))


def test_one_short_row(rows: list[str], write_csv: WriteCsv) -> None:
    rows[11] = change(rows[11], pixels=" ".join(["1"] * 2303))
    path = write_csv(rows)
    assert message(fer2013.load, path) == of_path(path, "row 12 has 2,303 pixels; it must have 48x48")


def test_every_fault_of_a_csv_at_once(rows: list[str], write_csv: WriteCsv) -> None:
    for index in (1, 2, 3, 4, 5, 6, 7, 8):
        rows[index] = change(rows[index], pixels=" ".join(["1"] * (2290 + index)))
    rows[9] = change(rows[9], pixels=" ".join(["1"] * 2303 + ["256"]))
    rows[10] = change(rows[10], pixels=" ".join(["1"] * 2303 + ["x9"]))
    rows[11] = change(rows[11], emotion="7", usage="Trainig")
    rows[12] = change(rows[12], emotion="bored", pixels=" ".join(["-1"] * 2304))
    rows[13] = "3"
    rows[14] = change(rows[14], pixels="")
    path = write_csv(rows)
    assert message(fer2013.load, path) == of_path(
        path,
        "row 2 has 2,291 pixels; it must have 48x48; 8 more rows are broken (3, 4, 5, 6, 7, ...)",
        "row 10 has the pixel 256; it must be from 0 to 255; 1 more row is broken (13)",
        "row 11 has the pixel 'x9'; it must be an integer",
        "row 12 has the emotion '7'; it must be from 0 to 6 or one of angry, disgust, fear, happy, sad, surprise, "
        "neutral; if the labels of this file start at 1, set data.label_offset=1; 1 more row is broken (13)",
        "row 12 has the Usage 'Trainig'; it must be Training, PublicTest or PrivateTest",
        "row 14 has 1 of 3 columns",
    )


@pytest.mark.parametrize("pixel", ["9" * 30, "1.5", "1e2", "0x10", "nan", "1_0", "²"])
def test_no_odd_number_passes_as_a_pixel(pixel: str, rows: list[str], write_csv: WriteCsv) -> None:
    rows[1] = change(rows[1], pixels=" ".join(["1"] * 2303 + [pixel]))
    assert "row 2 has the pixel" in message(fer2013.load, write_csv(rows))


def test_csv_without_usage(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv([row.rpartition(",")[0] for row in rows])
    expected = of_path(path, "data.split=published needs a column Usage, which it does not have; set data.split=random")
    assert message(fer2013.load, path) == expected
    fer2013.load(path, split="random")  # now it is in the cache
    assert message(fer2013.load, path) == expected


def test_csv_without_its_columns(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv(["emotions,pixel,Use", *rows[1:]])
    assert message(fer2013.load, path) == of_path(
        path,
        "it has no column emotion (it has: emotions, pixel, Use); rename emotions to emotion",
        "it has no column pixels (it has: emotions, pixel, Use); rename pixel to pixels",
        "data.split=published needs a column Usage, which it does not have; set data.split=random",
    )
    path = write_csv(["a;b", "1;2"])
    assert message(fer2013.load, path, split="random") == of_path(
        path,
        "it has no column emotion (it has: a, b); its first line must name emotion, pixels and Usage",
        "it has no column pixels (it has: a, b); its first line must name emotion, pixels and Usage",
    )


def test_empty_files(write_csv: WriteCsv) -> None:
    path = write_csv(["emotion,pixels,Usage"])
    assert message(fer2013.load, path) == of_path(path, "it has a header but no rows; download the file again")
    path.write_bytes(b"")
    assert message(fer2013.load, path) == of_path(path, "the file is empty; download it again")


def test_no_csv_at_all(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(png(GREY))
    assert message(fer2013.load, tmp_path / "face.png") == of_path(
        tmp_path / "face.png", "it must be a plain-text CSV, a folder or a zip; unpack or convert it"
    )


def test_too_many_rows(rows: list[str], write_csv: WriteCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fer2013_csv, "MAX_ROWS", 20)
    path = write_csv(rows)
    assert message(fer2013.load, path) == of_path(
        path, "it has more than 20 rows; FER2013 has 35,887; download it again"
    )


def test_labels_that_may_start_at_one(rows: list[str], write_csv: WriteCsv) -> None:
    """Labels 1 to 6 are those of a file from 1 that lost neutral, or of a file from 0 that lost angry."""
    path = write_csv([rows[0], *[row for row in rows[1:] if not row.startswith("0")]])
    assert message(fer2013.load, path) == of_path(
        path,
        "no row has the emotion 0 (angry), so the labels may start at 1; set data.label_offset=1 if 1 means angry, "
        "or data.label_offset=0 if 1 means disgust",
    )
    assert sorted(set(fer2013.load(path, label_offset=0).labels)) == [1, 2, 3, 4, 5, 6]
    assert "label_offset" in message(fer2013.load, path), "also from the cache"
    assert sorted(set(fer2013.load(path, label_offset=1).labels)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_row_without_end(zipped: bool, rows: list[str], tmp_path: Path) -> None:
    """Two billion pixels in one row of a file, ten million in a zip; they are not read."""
    path = tmp_path / ("faces.zip" if zipped else "faces.csv")
    if zipped:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
            out.writestr("faces.csv", rows[0] + "\n0," + "0 " * 10_000_000 + ",Training\n")
    else:
        with path.open("w") as file:
            file.write(rows[0] + "\n" + rows[1] + "\n0,")
            file.truncate(4_000_000_000)  # NUL bytes that no disk holds
    tracemalloc.start()
    try:
        text = message(fer2013.load, path)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    row = 2 if zipped else 3
    assert text == of_path(
        path,
        f"row {row} is longer than 65,536 bytes; a row of 48x48 pixels has at most 9,300; "
        "remove what does not belong to it, or download the file again",
    )


def test_nothing_to_validate_on(rows: list[str], write_csv: WriteCsv) -> None:
    path = write_csv([row.replace("PublicTest", "PrivateTest") for row in rows])
    assert message(fer2013.load, path) == of_path(
        path, "data.split=published leaves no image to validate on; set data.split=random"
    )


def test_missing_file(rows: list[str], write_csv: WriteCsv, tmp_path: Path) -> None:
    write_csv(rows)
    path = tmp_path / "fer213.csv"
    assert message(fer2013.load, path) == of_path(path, "there is no such file; did you mean fer2013.csv?")
    path = tmp_path / "zzz"
    assert message(fer2013.load, path) == of_path(path, f"there is no such file; no similar name in {tmp_path}")
    path = tmp_path / "no" / "fer2013.csv"
    assert message(fer2013.load, path) == of_path(path, f"there is no such file, and no folder {tmp_path / 'no'}")


def test_every_fault_of_folders_at_once(folders: Path) -> None:
    for file in (folders / "train" / "disgust").iterdir():
        file.unlink()
    good = folders / "train" / "angry" / "Training_00.png"
    good.write_bytes(good.read_bytes()[:1200])
    (folders / "train" / "angry" / "notes.txt").write_text("no image")
    (folders / "test" / "sad" / "notes.txt").write_text("no image")
    (folders / "train" / "fear" / "Training_99.png").write_bytes(b"")
    (folders / "train" / "fear" / "Training_98.png").write_bytes(png(np.zeros((48, 40), np.uint8)))
    (folders / "train" / "fear" / "Training_97.png").write_bytes(png(np.zeros((48, 48), np.uint16)))
    (folders / "train" / "bored").mkdir()
    (folders / "train" / "bored" / "Training_96.png").write_bytes(png(GREY))
    for file in (folders / "test" / "happy").iterdir():
        file.unlink()
    (folders / "test" / "happy").rmdir()
    assert message(fer2013.load, folders) == of_path(
        folders,
        "the folder bored is not an emotion of FER2013 (angry, disgust, fear, happy, sad, surprise, neutral); "
        "use data=image_folder for other classes",
        "the folder test/happy is missing; download the data again",
        "train/disgust has no images; add some, or remove the class from every split",
        "train/angry/Training_00.png cannot be decoded (image file is truncated); remove it or download it again",
        "train/angry/notes.txt is not an image; remove it; 1 more file is broken (test/sad/notes.txt)",
        "train/fear/Training_97.png has pixels of more than 8 bits; convert it to 8 bits",
        "train/fear/Training_98.png is 40x48; it must be 48x48; resize with data=image_folder and data.image_size",
        "train/fear/Training_99.png is empty; remove it or download it again",
    )


def test_folders_of_another_form(folders: Path) -> None:
    path = folders / "train"
    assert message(fer2013.load, path) == of_path(
        path,
        "it has neither fer2013.csv or icml_face_data.csv nor folders train/<emotion> and test/<emotion>; "
        "use data=image_folder for other layouts",
    )
    assert message(image_folder.load, folders / "train" / "sad") == of_path(
        folders / "train" / "sad",
        "it has no folders of classes; put the images of each class into a folder named after it",
    )


def test_file_names_without_their_split(folders: Path) -> None:
    for index, file in enumerate(sorted((folders / "test").rglob("*.png"))):
        file.rename(file.with_name(f"im{index}.png"))
    assert message(fer2013.load, folders) == of_path(
        folders,
        "14 file names under test/ start with neither PublicTest_ nor PrivateTest_; set data.split=folder or random",
    )
    assert fer2013.load(folders, split="folder").split_name == "folder"


def test_unreadable_zip(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "fer2013.zip"
    path.write_bytes(b"PK\x03\x04 cut off in the middle")
    assert message(fer2013.load, path) == of_path(
        path, "it is not a readable zip (File is not a zip file); download the file again"
    )
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("top/fer2013.csv", "\n".join(rows))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert message(fer2013.load, path) == of_path(
        path,
        "top/fer2013.csv cannot be unpacked (Bad CRC-32 for file 'top/fer2013.csv'); download the zip again",
    )


@pytest.mark.parametrize("evil", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"])
def test_zip_that_climbs_out(evil: str, folders: Path, tmp_path: Path) -> None:
    path = zip_folder(folders, tmp_path / "faces.zip")
    with zipfile.ZipFile(path, "a") as out:
        out.writestr(evil, png(GREY))
    before = sorted(tmp_path.rglob("*"))
    expected = of_path(path, f"the zip has {evil}, a path outside its own folder; nothing was read")
    assert message(fer2013.load, path) == expected
    assert message(image_folder.load, path) == expected
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_image_in_a_zip(folders: Path, tmp_path: Path) -> None:
    path = zip_folder(folders, tmp_path / "faces.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"train/sad/Training_20.png") + 200] ^= 1
    path.write_bytes(data)
    assert message(fer2013.load, path) == of_path(
        path,
        "train/sad/Training_20.png cannot be unpacked (Bad CRC-32 for file 'train/sad/Training_20.png'); "
        "download the zip again",
    )


def test_image_that_would_fill_the_memory(folders: Path) -> None:
    Image.new("1", (8000, 8000)).save(folders / "train" / "sad" / "Training_bomb.png")
    assert message(fer2013.load, folders) == of_path(
        folders,
        "train/sad/Training_bomb.png is 8000x8000; it must have at most 40,000,000 pixels; remove it or make it smaller",
    )


def test_image_folder_faults(folders: Path) -> None:
    (folders / "test" / "bored").mkdir()
    (folders / "test" / "bored" / "a.png").write_bytes(png(GREY))
    (folders / "train" / "sad" / "wide.png").write_bytes(png(np.zeros((20, 48), np.uint8)))
    assert message(image_folder.load, folders, image_size=None) == of_path(
        folders,
        "test/bored is a class that train does not have; add it there or remove it",
        "train/sad/wide.png is 48x20; it must be 48x48; set data.image_size",
    )


def test_image_folder_without_splits(folders: Path) -> None:
    assert message(image_folder.load, folders / "train", split="published") == of_path(
        folders / "train",
        "data.split=published needs folders train and val or test, which it does not have; set data.split=random",
    )


def test_two_data_sets_in_one_folder(folders: Path) -> None:
    (folders.parent / "copy").mkdir()
    zip_folder(folders, folders.parent / "both.zip", "a/")
    with zipfile.ZipFile(folders.parent / "both.zip", "a") as out:
        out.writestr("b/train/sad/x.png", png(GREY))
    path = folders.parent / "both.zip"
    assert message(fer2013.load, path) == of_path(
        path, "it has two data sets, in a and b; set data.path to one of them"
    )


def test_ferplus_faults(rows: list[str], write_csv: WriteCsv, folders: Path, tmp_path: Path) -> None:
    path = write_csv(rows)
    assert message(fer2013.load, path, labels="ferplus_majority") == of_path(
        path,
        "data.labels=ferplus_majority needs ferplus.csv or fer2013new.csv, "
        f"not found in {tmp_path}; set data.ferplus_path",
    )
    assert message(fer2013.load, folders, labels="ferplus_shares") == of_path(
        folders,
        "data.labels=ferplus_shares needs the CSV, since row i of the FER+ votes belongs to row i of the CSV; "
        "set data.path to fer2013.csv, or data.labels=fer",
    )
    header = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = write_csv([header, *["1,0,0,0,0,0,0,0,0,0"] * 30], "ferplus.csv")
    assert message(fer2013.load, path, labels="ferplus_majority") == (
        f"data.ferplus_path is {votes}: it has 30 rows; it must have the 35 rows of fer2013.csv, in the same order"
    )
    write_csv([header, "1,0,0", *["1,0,0,0,0,0,0,0,0,0"] * 33, "1,-1,0,0,0,0,0,0,0,0"], "ferplus.csv")
    assert message(fer2013.load, path, labels="ferplus_majority") == (
        f"data.ferplus_path is {votes}: row 2 is '1,0,0'; it must have 10 counts of votes; 1 more row is broken (36)"
    )
    write_csv([header.replace("neutral", "calm").replace("NF", "none")], "ferplus.csv")
    assert message(fer2013.load, path, labels="ferplus_majority") == (
        f"data.ferplus_path is {votes}: it has no column neutral or NF; it must have {header.replace(',', ', ')}"
    )


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder with effective permissions: root, who may read everything, becomes nobody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        os.seteuid(os.getuid())


def test_what_may_not_be_read_is_named(nobodys_folder: Path, own_cache: Path) -> None:
    root = nobodys_folder / "faces"
    for name in ("glad", "sad"):
        draw_files(root, [f"{name}/{index}.png" for index in range(8)])
    (nobodys_folder / "fer2013.csv").write_text("emotion,pixels,Usage")
    closed = [nobodys_folder / "fer2013.csv", root / "sad" / "3.png", root / "sad", root, nobodys_folder]
    for path in closed:
        mode = path.stat().st_mode
        path.chmod(0)
        if os.getuid() == 0:
            os.seteuid(65534)
        load = fer2013.load if path.suffix == ".csv" else image_folder.load
        fault = message(load, path if path.suffix == ".csv" else root)
        os.seteuid(os.getuid())
        path.chmod(mode)
        assert str(path) in fault
        assert re.search(r"is not readable|cannot be read|cannot be accessed|permission", fault), fault


def test_a_folder_full_of_oddities(nobodys_folder: Path) -> None:
    """Dead links, links to themselves, and names that are not text; a pipe is named."""
    root = nobodys_folder / "faces"
    for name in ("glad", "sad"):
        draw_files(root, [f"{name}/{index}.png" for index in range(8)])
    before = image_folder.load(root).digest
    (root / "sad" / "nowhere.png").symlink_to("/nonexistent/nothing")
    (root / "sad" / "itself.png").symlink_to("itself.png")
    os.mkfifo(root / "sad" / "pipe.png")
    assert message(image_folder.load, root) == of_path(root, "sad/pipe.png is a pipe, a socket or a device; remove it")
    (root / "sad" / "pipe.png").unlink()
    assert image_folder.load(root).digest == before
    (root / "sad" / os.fsdecode(b"\xff\n.png")).write_bytes(png(GREY))
    assert len(image_folder.load(root).images) == 17


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (b"gl\xffd", r"'gl\udcffd' is not UTF-8"),
        (b"gl\nd", r"'gl\nd' has a line break or another control character"),
        (b"\x1b[31mglad", r"'\x1b[31mglad' has a line break or another control character"),
        ("gl\u2028d".encode(), r"'gl\u2028d' has a line break or another control character"),
        ("gl\u202ed".encode(), r"'gl\u202ed' has a character that changes the direction of the text"),
        (b"g" * 101, f"'{'g' * 101}' has more than 100 characters"),
    ],
)
def test_names_that_no_class_can_have(name: bytes, rule: str, tmp_path: Path) -> None:
    root = draw_files(tmp_path / "faces", [f"sad/{index}.png" for index in range(8)])
    (root / os.fsdecode(name)).mkdir()
    expected = of_path(root, f"the name of the folder {rule}; rename the folder")
    assert message(image_folder.load, root) == expected


def test_names_in_messages_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    root = draw_files(tmp_path / "fa\x1b[2Jces", [f"{name}/{index}.png" for name in ("a", "b") for index in range(8)])
    (root / "a" / os.fsdecode(b"\xff\n\x1b.png")).write_bytes(b"none")
    text = message(image_folder.load, root)
    assert text == f"data.path is {tmp_path}/fa\\x1b[2Jces: a/\\udcff\\n\\x1b.png is not an image; remove it"
    (root / "a" / os.fsdecode(b"\xff\n\x1b.png")).unlink()
    assert image_folder.load(root).source == "fa\\x1b[2Jces (image folder)"


def test_a_new_name_that_no_class_can_have(tmp_path: Path) -> None:
    root = draw_files(tmp_path / "faces", [f"{name}/{index}.png" for name in ("a", "b") for index in range(8)])
    assert message(image_folder.load, root, labels={"a": "x\ny"}) == (
        "data=image_folder: data.labels.a is 'x\\ny', which has a line break or another control character; "
        "it must be drop or the name of a class"
    )


def test_links_in_circles(tmp_path: Path) -> None:
    """To the folder itself, to one above it, and to one around the data set."""
    for number, target in enumerate((".", "..", "../..", "../../..")):
        root = draw_files(tmp_path / f"{number}/faces", [f"{name}/{index}.png" for name in "ab" for index in range(8)])
        for link in range(30):  # followed, they would lead to 30 ** 5 folders
            (root / "a" / f"link{link}").symlink_to(target, target_is_directory=True)
        text = message(image_folder.load, root)
        assert re.search(r"/?a/link\S+ (leads back to a folder that it is in, by a|is a) link", text), text


def test_more_files_than_a_data_set_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that do not form a circle, but lead to the same files in many ways."""
    monkeypatch.setattr(tree, "MAX_NAMES", 1000)
    monkeypatch.setenv(tree.FOLDERS, str(tmp_path))
    for level in range(6):
        (tmp_path / f"level{level}").mkdir()
        for link in range(20):
            target = f"../level{level + 1}"
            (tmp_path / f"level{level}" / f"link{link}").symlink_to(target, target_is_directory=True)
    root = tmp_path / "level0"
    rule = "it has more than 1,000 files and folders; set a folder that has only the images"
    assert message(image_folder.load, root) == of_path(root, rule)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as out:
        for number in range(1001):
            out.writestr(f"a/{number}.png", b"")
    rule = "the zip has more than 1,000 files; pack only the images"
    assert message(image_folder.load, tmp_path / "many.zip") == of_path(tmp_path / "many.zip", rule)


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_image_that_says_it_is_huge(side: int, folders: Path) -> None:
    """A PNG of 80 bytes whose header has another size; nothing is decoded, and Pillow's warning is not shown."""
    good = bytearray(png(GREY))
    good[16:24] = struct.pack(">II", side, side)
    good[29:33] = struct.pack(">I", zlib.crc32(bytes(good[12:29])))
    (folders / "train" / "sad" / "Training_bomb.png").write_bytes(good)
    size = "is too large" if side**2 > 2 * Image.MAX_IMAGE_PIXELS else f"is {side}x{side}"
    rule = "it must have at most 40,000,000 pixels; remove it or make it smaller"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = message(fer2013.load, folders)
    assert text == of_path(folders, f"train/sad/Training_bomb.png {size}; {rule}")


def test_more_images_than_fit_in_memory(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"available": 100_000})
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: memory)
    assert message(image_folder.load, folders, image_size=64) == of_path(
        folders,
        "35 images of 64x64 need 143 KB of memory, of which 100 KB are free; set a smaller data.image_size",
    )


def test_every_wrong_key_at_once(tmp_path: Path) -> None:
    keys = {"split": "publishd", "labels": "ferplus", "val_fraction": 0.0, "folds": 1, "train_subset": 0}
    assert message(fer2013.load, tmp_path, label_offset=2, image_size=0, **keys) == (
        "data=fer2013: 7 faults\n"
        "  data.split is publishd; it must be published, folder or random; did you mean published?\n"
        "  data.val_fraction is 0.0; it must be above 0 and below 1, e.g. 0.1\n"
        "  data.folds is 1; it must be at least 2, or null for no folds\n"
        "  data.train_subset is 0; it must be at least 1, or null for all images\n"
        "  data.labels is ferplus; it must be fer, ferplus_majority or ferplus_shares; did you mean ferplus_shares?\n"
        "  data.label_offset is 2; it must be 0 or 1, the label of angry in the CSV, or null\n"
        "  data.image_size is 0; it must be at least 1, or null for 48"
    )
    assert message(image_folder.load, tmp_path, val_fraction=0.5, test_fraction=0.5, channels=2, folds=3, fold=3) == (
        "data=image_folder: 3 faults\n"
        "  data.val_fraction is 0.5 and data.test_fraction is 0.5; "
        "their sum must be below 1, or no image is left to train on\n"
        "  data.fold is 3; with data.folds=3 it must be at most 2\n"
        "  data.channels is 2; it must be 1 (gray) or 3 (color)"
    )
    assert message(synthetic.load, num_train=0, image_size=8, label_noise=1.0, difficulty=-1, imbalance=0.5) == (
        "data=synthetic: 5 faults\n"
        "  data.num_train is 0; it must be at least 1\n"
        "  data.image_size is 8; it must be at least 24 pixels\n"
        "  data.difficulty is -1; it must be at least 0, e.g. 1\n"
        "  data.label_noise is 1.0; it must be at least 0 and below 1, e.g. 0.08\n"
        "  data.imbalance is 0.5; it must be at least 1, which draws all classes equally often"
    )


def test_subset_larger_than_the_split(rows: list[str], write_csv: WriteCsv) -> None:
    assert message(fer2013.load, write_csv(rows), train_subset=40) == (
        "data=fer2013: data.train_subset is 40; it must be at most 21, the number of training images, or null for all"
    )


def test_the_emotions_of_the_fixtures_are_those_of_the_reader() -> None:
    assert EMOTIONS == emotions.CLASS_NAMES
