"""Tables of images in the forms that are found in the wild: CSVs with names of files, Parquet with bytes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tiny_faces import draw_files, png

from ferhpo.data import image_table
from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.io import columns
from ferhpo.data.io import parquet as parquet_files
from ferhpo.errors import ConfigError, DataError

NAMES = [f"img/{index}.png" for index in range(20)]
LABELS = ["happy" if index % 2 else "sad" for index in range(20)]
SPLITS = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images img/0.png to img/19.png and no table yet."""
    return draw_files(tmp_path / "faces", NAMES)


def write(folder: Path, header: str, rows: list[list[Any]], name: str = "faces.csv", mark: str = ",") -> Path:
    lines = [header.replace(",", mark), *(mark.join("" if cell is None else str(cell) for cell in row) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def message(*args: Any, **kwargs: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        image_table.load(*args, **kwargs)
    return str(caught.value)


def counts(data: Any) -> list[int]:
    return [int((data.split == code).sum()) for code in (TRAIN, VAL, TEST)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_of_files(mark: str, folder: Path) -> None:
    rows = [[index, *row] for index, row in enumerate(zip(NAMES, LABELS, SPLITS, strict=True))]
    data = image_table.load(write(folder, "nr,bild,gefühl,teil", rows, mark=mark))
    assert data.images.shape == (20, 48, 48)
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert [data.class_names[label] for label in data.labels] == LABELS
    assert counts(data) == [12, 4, 4]
    assert data.split_name == "published"
    assert data.source == "faces.csv (table, image=bild, label=gefühl, split=teil)"
    assert data.groups is None


def test_spellings_of_emotions_are_one_class_and_other_names_are_kept(folder: Path) -> None:
    rows = [[name, ["Happiness", "joy", "HAPPY", "Anger"][index % 4]] for index, name in enumerate(NAMES)]
    data = image_table.load(write(folder, "file,label", rows))
    assert np.bincount(data.labels).tolist() == [5, 0, 0, 15]
    rows = [[name, ["happy", "bored"][index % 2]] for index, name in enumerate(NAMES)]
    data = image_table.load(write(folder, "file,label", rows), labels={"bored": "calm"})
    assert data.class_names == ("calm", "happy")
    assert data.split_name == "random"


def test_files_that_are_elsewhere(folder: Path, tmp_path: Path) -> None:
    """Names from another root, absolute names, names without folder or suffix, backslashes."""
    rows = [[name, label] for name, label in zip(NAMES, LABELS, strict=True)]
    wanted = image_table.load(write(folder, "file,label", rows)).digest
    for change in (
        lambda name: name.removeprefix("img/"),
        lambda name: name.removeprefix("img/").removesuffix(".png"),
        lambda name: str(folder / name),
        lambda name: name.replace("/", "\\"),
    ):
        path = write(folder, "file,label", [[change(name), label] for name, label in rows])
        assert image_table.load(path).digest == wanted
    path = write(tmp_path, "file,label", rows)
    assert image_table.load(path, root=folder).digest == wanted
    assert image_table.load(path).digest == wanted, "in a folder beside the table"


def test_a_table_names_only_images_of_its_folder(folder: Path, tmp_path: Path) -> None:
    """Or of data.root: by absolute names, names with .., and links."""
    rows = [[name, label] for name, label in zip(NAMES, LABELS, strict=True)]
    wanted = image_table.load(write(folder, "file,label", rows)).digest
    table = tmp_path / "downloaded"
    table.mkdir()
    (table / "link").symlink_to(folder)
    for change in (str(folder) + "/{}", "../" + folder.name + "/{}", "link/{}"):
        path = write(table, "file,label", [[change.format(name), label] for name, label in rows])
        with pytest.raises(DataError) as caught:
            image_table.load(path)
        rule = f"outside {table}; if you trust the table, set data.root to the folder of its images"
        assert f"row 2 names {folder / NAMES[0]}, {rule}" in str(caught.value)
        if not change.startswith("link"):
            assert image_table.load(path, root=folder).digest == wanted


def test_a_changed_image_is_read_again(folder: Path) -> None:
    path = write(folder, "file,label", [[name, label] for name, label in zip(NAMES, LABELS, strict=True)])
    before = image_table.load(path)
    assert image_table.load(path).digest == before.digest
    (folder / "unused.png").write_bytes(b"not in the table")
    assert image_table.load(path).digest == before.digest
    (folder / NAMES[3]).write_bytes(png(np.full((48, 48), 7, np.uint8)))
    assert (image_table.load(path).images[3] == 7).all()


def test_groups_stay_together(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [[name, label, f"p{index // 4}"] for index, (name, label) in enumerate(zip(NAMES, LABELS, strict=True))]
    path = write(folder, "file,label,subject", rows)
    for options in ({}, {"folds": 3, "fold": 1}, {"split_seed": 5}):
        data = image_table.load(path, val_fraction=0.2, test_fraction=0.2, **options)
        assert data.groups is not None
        assert all(len(set(data.split[data.groups == group])) == 1 for group in range(5))
    assert image_table.load(path, group_column="").groups is None
    rows = [[*row, ["train", "val"][index % 2]] for index, row in enumerate(rows)]
    with caplog.at_level(logging.WARNING):
        image_table.load(write(folder, "file,label,subject,split", rows))
    assert "5 values of subject are in more than one split" in caplog.text


def write_parquet(path: Path, images: Any, labels: Any, huggingface: Any = None, **more: Any) -> Path:
    made = pyarrow.table({"image": images, "label": labels, **more})
    if huggingface is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": huggingface}})})
    path.parent.mkdir(exist_ok=True, parents=True)
    parquet.write_table(made, path, row_group_size=8)
    return path


def test_parquet_of_hugging_face(folder: Path) -> None:
    """Bytes and path in a struct, integers with names, one file per split; the same images as in a CSV."""
    images = [{"bytes": (folder / name).read_bytes(), "path": Path(name).name} for name in NAMES]
    names = ["sad", "happy"]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    codes = [names.index(label) for label in LABELS]
    for start, stop, split in ((12, 16, "validation"), (16, 20, "test"), (0, 12, "train")):
        file = folder / "hub" / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet"
        write_parquet(file, images[start:stop], codes[start:stop], features)
    data = image_table.load(folder / "hub")
    assert counts(data) == [12, 4, 4]
    assert data.source == "hub (table, image=image, label=label)"
    rows = [list(row) for row in zip(NAMES, LABELS, SPLITS, strict=True)]
    plain = image_table.load(write(folder, "file,label,split", rows))
    pairs = [
        {(i.tobytes(), int(n), int(s)) for i, n, s in zip(d.images, d.labels, d.split, strict=True)}
        for d in (data, plain)
    ]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("kind", ["bytes", "paths", "dictionary"])
def test_parquet_of_bytes_or_paths(kind: str, folder: Path) -> None:
    images: Any = [(folder / name).read_bytes() for name in NAMES] if kind == "bytes" else NAMES
    labels: Any = pyarrow.array(LABELS).dictionary_encode() if kind == "dictionary" else [1.0, 2.0] * 10
    path = write_parquet(folder / "a.parquet", images, labels, score=[0.1 * index for index in range(20)])
    data = image_table.load(path)
    assert data.class_names == (("1", "2") if kind != "dictionary" else data.class_names)
    rows = [list(row) for row in zip(NAMES, LABELS, strict=True)]
    assert (data.images == image_table.load(write(folder, "file,label", rows)).images).all()


def test_integers_and_their_names(folder: Path) -> None:
    rows = [[name, ["0", "1.0"][index % 2]] for index, name in enumerate(NAMES)]
    path = write(folder, "file,label", rows)
    assert image_table.load(path).class_names == ("0", "1")
    assert image_table.load(path, labels={"0": "bored", "1": "glad"}).class_names == ("bored", "glad")


def test_every_fault_of_a_csv_at_once(folder: Path) -> None:
    rows: list[list[Any]] = [list(row) for row in zip(NAMES, LABELS, SPLITS, strict=True)]
    rows[0][1] = None
    rows[1][2] = "trian"
    rows[2][1] = "a\x1bb"
    rows[3][1] = "x" * 101
    (folder / NAMES[4]).write_bytes(b"no image")
    path = write(folder, "file,label,part", rows)
    assert message(path, split_column="part") == (
        f"data.path is {path}: 4 faults\n"
        "  row 2 has no label; remove the row, or give it one\n"
        r"  row 4 has the label 'a\x1bb', which has a line break or another control character; correct it; "
        "1 more row is broken (row 5)\n"
        "  row 3 has the split 'trian'; it must be train, val or test\n"
        "  row 6 (4.png) is not an image; remove it"
    )


def test_missing_files(folder: Path) -> None:
    (folder / NAMES[2]).unlink()
    (folder / NAMES[7]).unlink()
    path = write(folder, "file,label", [list(row) for row in zip(NAMES, LABELS, strict=True)])
    assert message(path) == (
        f"data.path is {path}: row 4 names 'img/2.png', which is missing; set data.root to the folder that the names "
        "start from, or remove the row; 1 more row is broken (row 9)"
    )


@pytest.mark.parametrize(
    ("header", "keys", "text"),
    [
        ("file,label", {"image_column": "fil"}, "data.image_column is fil, which is not a column; did you mean file?"),
        ("a,b", {"label_column": "c"}, "data.label_column is c, which is not a column of texts or numbers"),
        ("emotion,pixels", {}, "it has pixels in the form of FER2013; use data=fer2013"),
    ],
)
def test_columns_that_are_not_there(header: str, keys: dict[str, str], text: str, folder: Path) -> None:
    rows = [["0", "1 2 3"]] * 4 if "pixels" in header else [list(row) for row in zip(NAMES, LABELS, strict=True)]
    assert text in message(write(folder, header, rows), **keys)


def test_columns_that_cannot_be_told_apart(folder: Path) -> None:
    rows = [[name, name, label, label] for name, label in zip(NAMES, LABELS, strict=True)]
    path = write(folder, "a,b,c,d", rows)
    assert message(path) == (
        f"data.path is {path}: 2 faults\n"
        "  the columns a and b have images; set data.image_column to one of them\n"
        "  the columns c and d can be the labels; set data.label_column to one of them"
    )
    assert "the columns c and d can be the labels; set data.label_column" in message(path, image_column="a")
    assert len(image_table.load(path, image_column="a", label_column="c").images) == 20


def test_files_that_are_not_there(folder: Path) -> None:
    path = write(folder, "a,b", [[f"no{index}.jpg", index % 3] for index in range(9)])
    assert message(path) == (
        f"data.path is {path}: row 2 names 'no0.jpg', which is missing; set data.root to the folder that the names "
        "start from, or remove the row; 8 more rows are broken (row 3, row 4, row 5, row 6, row 7, ...)"
    )
    path = write(folder, "a,b", [[f"no{index}", f"a{index}"] for index in range(9)])
    assert message(path) == (
        f"data.path is {path}: 2 faults\n"
        f"  no column names files below {folder} (it has: a, b); set data.root to the folder of the images, "
        "or data.image_column\n"
        "  no column has labels (it has: a, b); set data.label_column to a column of 2 to 1,000 classes"
    )


def test_tables_that_are_none(folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"")
    assert message(folder / "a.csv").endswith("the file is empty; download it again")
    (folder / "a.csv").write_bytes(b"\nfile,label\n")
    assert message(folder / "a.csv").endswith("its first line is empty; it must have the names of the columns")
    (folder / "a.csv").write_bytes(b"file,label\n")
    assert message(folder / "a.csv").endswith("it has a header but no rows; download the file again")
    assert message(folder / NAMES[0]).endswith("it must be a CSV or a Parquet file; unpack or convert it")
    assert "use data=image_folder for folders of classes" in message(folder)
    (folder / "a.parquet").write_bytes(b"PAR1 cut off")
    assert "it is not a readable Parquet file (" in message(folder / "a.parquet")


def test_tables_with_more_than_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Parquet file with many equal rows, a long text in a CSV, many classes."""
    path = folder / "a.parquet"
    parquet.write_table(pyarrow.table({"image": ["a.png"] * 2_100_000, "label": [1] * 2_100_000}), path)
    assert path.stat().st_size < 100_000
    assert message(path) == f"data.path is {path}: it has more than 2,000,000 rows; split it"
    (folder / "a.csv").write_text("file,label\nimg/0.png," + "1 " * 100_000 + "\n")
    assert message(folder / "a.csv").endswith(
        "line 2 is not CSV (field larger than field limit (131072)); download the file again"
    )
    for limit in ("MAX_BYTES", "MAX_CHUNK_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(parquet_files, limit, 100)
            big = write_parquet(folder / "b.parquet", [b"1" * 2000] * 20, [f"{index}" * 9 for index in range(20)])
            assert "has more than 0 " in message(big)
    monkeypatch.setattr(image_table, "MAX_CLASSES", 5)
    path = write(folder, "file,label", [[name, name] for name in NAMES])
    assert "the column label has 20 different values; it must have at most 5 classes" in message(
        path, image_column="file", label_column="label"
    )


def test_settings(folder: Path) -> None:
    path = write(folder, "file,label", [list(row) for row in zip(NAMES, LABELS, strict=True)])
    assert message(path, split="published") == (
        f"data.path is {path}: data.split=published needs a column of splits, which it does not have; "
        "set data.split_column, or data.split=random"
    )
    assert message(path, image_column=3, channels=2) == (
        "data=image_table: 2 faults\n"
        "  data.channels is 2; it must be 1 (gray) or 3 (color)\n"
        "  data.image_column is 3; it must be the name of a column, or null to find it"
    )
    assert message(path, root=path) == (
        f"data.root is {path}: it must be the folder that the names of files start from"
    )
    assert columns.split_of(" Training ") == TRAIN
