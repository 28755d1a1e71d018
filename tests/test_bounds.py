"""A data set from somebody else takes bounded time and memory, however it was made; faults name what to remove."""

import io
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ferhpo.config.validate import find_faults
from ferhpo.data import fer2013, image_folder, image_table, sfew
from ferhpo.data.io import columns, faults, fer2013_csv, files, table, tree
from ferhpo.data.io import parquet as parquet_files
from ferhpo.data.labeled_files import jaffe
from ferhpo.errors import DataError
from ferhpo.models.cnn import CNN
from ferhpo.models.resnet import ResNet
from ferhpo.models.vit import ViT
from ferhpo.training.settings import TrainerSettings, make_loss
from tests.reports.made_sweeps import demo

MAX_SECONDS = 20  # on a busy machine; without a limit, each of these takes minutes to years
MEMORY = 3_000_000_000  # bytes of addresses


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path / "cache"))


@contextmanager
def soon():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < MAX_SECONDS


def fault(load, path, **settings) -> str:
    with soon(), pytest.raises(DataError) as caught:
        load(path, **settings)
    return str(caught.value)


def fault_in_little_memory(path, **settings) -> str:
    """The DataError of a table, read by a process that may take little memory."""
    code = f"""
import resource
from ferhpo.data import image_table
from ferhpo.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
try:
    image_table.load({str(path)!r}, **{settings!r})
except DataError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def faces(root: Path, names=("happy", "sad"), num=4) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(num):
            Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(root / name / f"{number}.png")
    return root


def sparse(path: Path, num_bytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(num_bytes)
    return path


# ---- CSV


def test_a_csv_with_very_many_columns(tmp_path):
    """Its header alone took a time that grows with the square of its length."""
    names = ";\t".join(f"n{number}" for number in range(40_000)) + ",zz,zz"
    (tmp_path / "a.csv").write_text(f"{names}\n1,2,3\n")
    assert "it has 40,000 columns; it must have at most 2,000; remove" in fault(image_table.load, tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("a,zz,zz\n1,2,3\n")
    assert "it has two columns 'zz'; rename one" in fault(image_table.load, tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("x" * 140_000 + "\n1\n", "line 1 is not CSV (field larger than field limit (131072))"),
        ("file,label\na.png," + "x" * 140_000 + "\n", "line 2 is not CSV (field larger"),
        ("file,label\na.png," + '"\n",' * 500_000, " is in a row of more than 1,048,576 characters"),
        ("file,label\na.png\0,happy\nb.png,sad\n", "row 2 names 'a.png\\x00', which is missing"),
        (",".join(["", *'"\n"' * 3]) + "," * 2_000_000, "is in a row of more than 1,048,576 characters"),
    ],
)
def test_a_csv_that_the_csv_module_refuses(tmp_path, content, rule):
    (tmp_path / "a.csv").write_text(content)
    assert rule in fault(image_table.load, tmp_path / "a.csv")


def test_a_csv_whose_cells_do_not_fit_in_memory(tmp_path, monkeypatch):
    row = ",".join(["x"] * 50) + "\n"
    (tmp_path / "a.csv").write_text(",".join(f"n{number}" for number in range(50)) + "\n" + row * 10_000)
    memory = type("Memory", (), {"available": 20_000_000})
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: memory)
    text = fault(image_table.load, tmp_path / "a.csv")
    assert text.endswith("it needs 32 MB of memory, of which 20 MB are free; split it, or remove columns")


def test_files_are_looked_for_in_few_columns_and_folders(tmp_path, monkeypatch):
    for number in range(150):
        (tmp_path / f"folder{number}").mkdir()
    names = [f"n{number}" for number in range(1500)]
    rows = ["\n" + ",".join(f"{row}x{name}" for name in names) for row in range(60)]
    (tmp_path / "a.csv").write_text(",".join(names) + "".join(rows))
    looked = []
    monkeypatch.setattr(columns, "is_file", lambda path: bool(looked.append(path)))
    assert "no column names files below" in fault(image_table.load, tmp_path / "a.csv")
    assert len(looked) < 600_000, "thirty million without a limit"


# ---- class folders


@pytest.mark.parametrize("parent", ["", "train/"])
@pytest.mark.parametrize("reader", [image_folder, sfew])
def test_very_many_folders_of_classes(tmp_path, reader, parent):
    """The time to collect them grew with the square of their number."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{parent}c{number}/a.png", b"x")
    found = fault(reader.load, tmp_path / "a.zip")
    assert "has 30,000 folders; it must have at most 1,000 classes; set data.path" in found


# ---- Parquet


def in_one_value(value, num_rows):
    """A column in which every row refers to the same value, as a Parquet file stores it too."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array([value]))


@pytest.mark.parametrize("name", ["note", "no.te"])
@pytest.mark.parametrize("store_schema", [True, False])
def test_a_parquet_file_with_one_long_text_in_every_row(tmp_path, name, store_schema):
    rows = 20_000
    made = pa.table({"file": [f"{row}.png" for row in range(rows)], name: in_one_value("x" * 1_000_000, rows)})
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd", store_schema=store_schema)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    assert f"the column {name} has more than 256 MB; split the file" in fault_in_little_memory(tmp_path / "a.parquet")


def test_a_dot_in_the_name_of_a_column(tmp_path, monkeypatch):
    """Sizes are those of the column itself, and no column is taken for a field of another one."""
    made = pa.table({"no.te": ["x" * 3_000_000], "label": ["a"]})
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with monkeypatch.context() as patch:
        patch.setattr(parquet_files, "MAX_BYTES", 2**20)
        assert "the column no.te has more than 1 MB" in fault(image_table.load, tmp_path / "a.parquet")
    made = pa.table({"no": [{"te": "x"}], "no.te": ["x"]})
    parquet.write_table(made, tmp_path / "b.parquet")
    assert "the columns no and no.te cannot be told apart" in fault(image_table.load, tmp_path / "b.parquet")
    rng = np.random.default_rng(0)
    images = [{"bytes": png(rng), "path": None, "more": [1]} for _ in range(40)]
    made = pa.table(
        {"a": [[1, 2]] * 40, "my.face": images, "b": [{"c": 1, "d": {"e": 2}}] * 40, "la.bel": ["x", "y"] * 20}
    )
    parquet.write_table(made, tmp_path / "c.parquet")
    data = image_table.load(tmp_path / "c.parquet", label_column="la.bel")
    assert (len(data.images), data.class_names) == (40, ("x", "y"))


def png(rng) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_a_parquet_file_with_one_large_image_in_every_row(tmp_path, form):
    rows = 64
    column = in_one_value(bytes(200_000_000), rows)
    if form == "struct":
        column = pa.StructArray.from_arrays([in_one_value(b"", rows), column], ["path", "bytes"])
    made = pa.table({"image": column, "label": [str(row % 2) for row in range(rows)]})
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    text = fault_in_little_memory(tmp_path / "a.parquet")
    assert "the image in row 1 is larger than 64 MB; remove it or make it smaller" in text


def test_what_a_parquet_file_has_beside_the_image_is_not_read(tmp_path):
    """A path of 1 MB, and a list, in each of 2,000 rows; the images are read, and all the same."""
    rows = 2000
    image = in_one_value(png(np.random.default_rng(0)), rows)
    fields = [image, in_one_value("x" * 1_000_000, rows), pa.array([[1]] * rows)]
    made = pa.table(
        {"image": pa.StructArray.from_arrays(fields, ["bytes", "path", "more"]), "label": ["a", "b"] * (rows // 2)}
    )
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert "there are 1 different images" in fault_in_little_memory(tmp_path / "a.parquet", image_size=8)


def test_a_parquet_file_with_more_images_than_it_can_have(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "UNPACKED_BYTES", 0)
    rows = 4000
    made = pa.table({"image": in_one_value(b"no image" * 1000, rows), "label": ["a", "b"] * (rows // 2)})
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert "far more than the file has; download it again" in fault(image_table.load, tmp_path / "a.parquet")


def test_a_parquet_file_with_very_many_columns_or_cells(tmp_path, monkeypatch):
    made = pa.table({f"n{number}": ["x"] for number in range(2001)})
    parquet.write_table(made, tmp_path / "a.parquet")
    assert "it has 2,001 columns; it must have at most 2,000" in fault(image_table.load, tmp_path / "a.parquet")
    numbers = pa.array(np.zeros(1_000_000, np.int8))
    parquet.write_table(pa.table({f"n{number}": numbers for number in range(40)}), tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").stat().st_size < 200_000
    memory = type("Memory", (), {"available": 2_000_000_000})
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: memory)
    assert "it needs 2.6 GB of memory, of which 2.0 GB are free" in fault(image_table.load, tmp_path / "b.parquet")
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["a", "a"])
    parquet.write_table(twice, tmp_path / "c.parquet")
    assert "it has two columns 'a'; rename one" in fault(image_table.load, tmp_path / "c.parquet")


def varint(value: int) -> bytes:
    low = bytes([value & 127 | (128 if value > 127 else 0)])
    return low + (varint(value >> 7) if value > 127 else b"")


def nested_parquet(levels: int) -> bytes:
    """A Parquet file without rows, whose column has groups in groups (Thrift's compact protocol)."""
    group = b"\x35\x02\x18\x01a\x15\x02\x00"  # repetition, name, number of children
    schema = b"\x48\x01r\x15\x02\x00" + group * levels + b"\x15\x02\x25\x02\x18\x01x\x00"
    footer = b"\x15\x02\x19\xfc" + varint(levels + 2) + schema + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def test_a_parquet_file_with_a_schema_nested_very_deep(tmp_path):
    """Without a limit, pyarrow overflows the stack of the process."""
    for levels, rule in (
        (50_000, "more than 6,000 row groups, columns or levels"),
        (5000, "recursion"),
        (5, "no rows"),
    ):
        (tmp_path / "a.parquet").write_bytes(nested_parquet(levels))
        assert rule in fault_in_little_memory(tmp_path / "a.parquet")


# ---- zips


def raw_zip(path: Path, members, shared: bytes) -> Path:
    """A zip in which every member has the same bytes of the file."""
    crc, size, packed = shared
    header = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(packed), size, 1, 0) + b"x"
    listed = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, 0)
        + name.encode()
        for name in members
    )
    start = len(header) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(members), len(members), len(listed), start, 0)
    path.write_bytes(header + packed + listed + end)
    return path


def packed_zeros(size: int):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = bytes(size)
    return zlib.crc32(content), size, packer.compress(content) + packer.flush()


def test_members_of_a_zip_that_share_their_bytes(tmp_path):
    path = raw_zip(
        tmp_path / "a.zip", [f"{name}/{i}.png" for name in "ab" for i in range(150)], packed_zeros(64 * 2**20)
    )
    assert path.stat().st_size < 100_000
    assert "share the same bytes of the zip, which no program packs" in fault(image_folder.load, path)


def test_a_zip_that_unpacks_to_more_than_it_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "UNPACKED_BYTES", 10_000_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for number in range(20):
            out.writestr(f"a/{number}.png", bytes(5 * 2**20))
    assert "the zip unpacks to 105 MB; with 104 KB it must unpack to at most 20 MB" in fault(image_folder.load, path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_no_data_set_comes_in(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/1.png", b"1")
        out.writestr("a/1.png", b"2")
        out.writestr("/".join("a" * 30_000), b"1")
        out.writestr("b/2.png", bytes(1000), zipfile.ZIP_BZIP2)
    text = fault(image_folder.load, path)
    assert "the zip has a/1.png twice; pack the images again" in text
    assert "it must have at most 20 folders, and 255 characters in each name" in text
    assert "b/2.png must be stored or compressed by Deflate" in text
    for load in (sfew.load, jaffe.load):  # names are searched by expressions that take the square of their length
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(f"Train/Happy/{'_' * 60_000}.png", b"1")
        assert "255 characters in each name" in fault(load, path)


def test_a_zip_with_a_list_of_members_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for number in range(1000):
            out.writestr(f"a/{number}.png", b"")
    memory = type("Memory", (), {"available": 500_000})
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: memory)
    assert "of memory, of which 500 KB are free; pack only the images" in fault(image_folder.load, path)


# ---- files and folders


def test_a_sparse_file_is_not_hashed(tmp_path):
    root = faces(tmp_path / "faces")
    sparse(root / "happy" / "a.png", 4_000_000_000_000)
    assert "happy/a.png cannot be read: it says that it has 4,000.0 GB" in fault(image_folder.load, root)
    sparse(root / "happy" / "a.png", 90_000_000)
    assert "happy/a.png is larger than 64 MB; remove it or make it smaller" in fault(image_folder.load, root)
    (root / "happy" / "a.png").unlink()
    for name in ("a.zip", "a.csv", "a.parquet"):
        path = sparse(tmp_path / name, 4_000_000_000_000)
        load = image_folder.load if name == "a.zip" else image_table.load
        assert "of which nearly all are empty" in fault(load, path)
    (tmp_path / "list.csv").write_text("file,label\na.jpg,happy\nb.jpg,sad\n")
    for name in ("a.jpg", "b.jpg"):
        sparse(tmp_path / name, 4_000_000_000_000)
    assert "a.jpg cannot be read: it says" in fault(image_table.load, tmp_path / "list.csv")


def test_many_files_that_are_nearly_empty_or_the_same(tmp_path):
    root = faces(tmp_path / "faces")
    for number in range(200):
        sparse(root / f"{number}.txt", 99_000_000)
    assert "its files have 20 GB in all, of which" in fault(image_folder.load, root)
    root = faces(tmp_path / "links")
    (root / "notes").write_bytes(os.urandom(2_000_000))
    for number in range(1000):
        (root / f"{number}.txt").symlink_to("notes")
    assert "remove the links to the same files" in fault(image_folder.load, root)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/urandom", "/dev/tty"])
def test_a_device_is_refused_at_once(tmp_path, name):
    root = faces(tmp_path / "faces")
    for load in (image_folder.load, image_table.load, fer2013.load):
        assert "it is a pipe, a socket or a device; it must be a file or a folder" in fault(load, name)
    (root / "sad" / "x.png").symlink_to(name)
    text = fault(image_folder.load, root)
    assert text.endswith("sad/x.png is a pipe, a socket or a device; remove it")
    (root / "a.csv").write_text(f"file,label\n{name},happy\nhappy/1.png,sad\n")
    assert f"names '{name}', which is missing" in fault(image_table.load, root / "a.csv")


def test_a_pipe_is_refused_at_once(tmp_path):
    root = faces(tmp_path / "faces")
    os.mkfifo(tmp_path / "pipe")
    for load in (image_folder.load, image_table.load, fer2013.load):
        assert "it is a pipe" in fault(load, tmp_path / "pipe")
    for key in ("ferplus_path", "clean"):
        load = fer2013.load if key == "ferplus_path" else image_folder.load
        path = root if key == "clean" else tmp_path / "fer2013.csv"
        pixels = " ".join(["1"] * 2304)
        rows = [f"{label},{pixels},{use}" for label in range(7) for use in fer2013_csv.USAGES]
        (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
        more = {"labels": "ferplus_majority"} if key == "ferplus_path" else {}
        assert "it is a pipe" in fault(load, path, **{key: tmp_path / "pipe"}, **more)
    os.mkfifo(root / "sad" / "pipe.parquet")
    for load in (image_folder.load, image_table.load):
        assert "sad/pipe.parquet is a pipe" in fault(load, root)


def test_a_file_becomes_a_pipe_after_it_was_found(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with soon(), pytest.raises(OSError, match="not a regular file"):
        tree.open_regular(tmp_path / "pipe")


def test_a_list_of_votes_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fer2013_csv, "MAX_ROWS", 100)
    with (tmp_path / "votes.csv").open("w+b") as file:
        file.write((",".join(fer2013_csv.VOTE_COLUMNS) + "\n" + "1,0,0,0,0,0,0,0,0,0\n" * 200).encode())
        file.seek(0)
        with pytest.raises(DataError, match="it has more than 100 rows"):
            fer2013_csv.read_votes("votes.csv", file)


# ---- images


def test_many_blank_images(tmp_path, monkeypatch):
    """A hundred images of 36 million pixels in files of 5 KB."""
    monkeypatch.setattr(files, "BLANK_PIXELS", 100_000_000)
    root = faces(tmp_path / "faces")
    Image.new("1", (6000, 6000)).save(root / "sad" / "blank.png", compress_level=9)
    content = (root / "sad" / "blank.png").read_bytes()
    assert len(content) < 10_000
    for number in range(100):
        (root / "sad" / f"blank{number}.png").write_bytes(content + bytes([number]))
    text = fault(image_folder.load, root, image_size=8)
    assert re.search(r"its images have at least 108,\d{3},\d{3} pixels in files of \d\d,\d{3} bytes; remove the", text)


def test_images_are_compared_with_the_memory_that_is_free(tmp_path, monkeypatch):
    root = faces(tmp_path / "faces", num=20)
    memory = type("Memory", (), {"available": 50_000, "total": 10**12})
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: memory)
    assert "40 images of 48x48 need 92 KB of memory, of which 50 KB are free" in fault(
        image_folder.load, root, image_size=None
    )
    with pytest.raises(DataError, match="10 images of 4096x4096 need"):
        files.resize_images("x", np.zeros((10, 8, 8), np.uint8), 4096)


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".webp", ".png"])
def test_only_the_first_frame_is_decoded(tmp_path, suffix):
    root = faces(tmp_path / "faces")
    frames = [Image.new("L", (1000, 1000), number) for number in range(20)]
    frames[0].save(root / "sad" / f"film{suffix}", save_all=True, append_images=frames[1:])
    with soon():
        assert len(image_folder.load(root).images) == 9


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("x"), RecursionError("x"), ZeroDivisionError("x")])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    def load(image):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert "happy/0.png cannot be decoded (" in fault(image_folder.load, faces(tmp_path / "faces"))


@pytest.mark.parametrize("content", [b"\x93NUMPY\1\0", b"\x80\4cposix\nsystem\n(S'id'\ntR.", b"PK\3\4"])
def test_arrays_and_pickles_are_no_images_and_no_tables(tmp_path, content):
    root = faces(tmp_path / "faces")
    for name in ("x.npz", "x.pkl", "x.png"):
        (root / "sad" / name).write_bytes(content)
        assert "is not an image; remove it" in fault(image_folder.load, root)
        (tmp_path / name).write_bytes(content)
        assert "it must be a CSV or a Parquet file" in fault(image_table.load, tmp_path / name)
        (root / "sad" / name).unlink()


@pytest.mark.parametrize("module", [table, fer2013_csv])
def test_limits_of_tables_are_near_those_of_the_csv_module(module):
    import csv

    assert getattr(module, "MAX_ROW_CHARACTERS", module.__dict__.get("MAX_LINE_BYTES")) < 9 * csv.field_size_limit()


# ---- networks


@pytest.mark.parametrize(
    ("make", "settings", "rule"),
    [
        (
            CNN,
            {"num_blocks": 300_000, "pool": "none", "block_channels": 1},
            "num_blocks is 300000; it must be at most 1,000",
        ),
        (CNN, {"num_dense": 10**9, "dense_units": 1}, "num_dense is 1000000000; it must be at most 1,000"),
        (ViT, {"num_blocks": 10**6}, "num_blocks is 1000000; it must be at most 1,000"),
        (ResNet, {"num_stages": 10**6, "blocks_per_stage": 1}, "num_stages is 1000000; it must be at most 20"),
        (ResNet, {"blocks_per_stage": 10**6}, "blocks_per_stage is 1000000; it must be at most 1,000"),
        (ResNet, {"num_stages": 2, "blocks_per_stage": 900}, "blocks_per_stage adds up to 1,800; it must be at most"),
    ],
)
def test_a_network_has_a_limited_number_of_layers(make, settings, rule):
    with soon(), pytest.raises(ValueError, match=rule):
        make(in_channels=1, num_classes=7, image_size=48, **settings)


# ---- configurations


@pytest.mark.parametrize(
    ("section", "values", "rule"),
    [
        (
            "loss",
            {
                "_target_": "torch.nn.AdaptiveLogSoftmaxWithLoss",
                "in_features": 10**6,
                "n_classes": 10**6,
                "cutoffs": [2],
            },
            "AdaptiveLogSoftmaxWithLoss has parameters, which ferhpo does not train",
        ),
        (
            "loss",
            {"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6},
            r"it must be a subclass of torch.nn.Module, from torch.nn.\*Loss",
        ),
        (
            "loss",
            {"_target_": "torch.nn.BatchNorm1d", "num_features": 10**12, "affine": False},
            r"it must be a subclass of torch.nn.Module, from torch.nn.\*Loss",
        ),
        ("scheduler", {"reduction_factor": 1.0000001}, "reduction_factor is 1.0000001; it must be at least 1.1"),
        ("scheduler", {"reduction_factor": float("nan")}, "reduction_factor is nan; it must be at least 1.1"),
        ("scheduler", {"brackets": 10**9}, "brackets is 1000000000; it must be at most 100"),
    ],
)
def test_what_check_builds_has_a_size(section, values, rule):
    composed = demo(("scheduler=asha",))
    composed.config[section] = values if "_target_" in values else {**composed.config[section], **values}
    with soon():
        found, _ = find_faults(composed)
    assert re.search(rule, "\n".join(found))


def test_a_loss_of_torch_is_built_with_its_numbers():
    loss = make_loss(torch.nn.CrossEntropyLoss, TrainerSettings(class_weights="balanced"), torch.ones(7))
    assert loss(torch.zeros(2, 7), torch.arange(2)).isfinite()
