"""The cache never returns stale or damaged data, and never prevents reading."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_faces import EMOTIONS

from ferhpo.data import fer2013
from ferhpo.data.dataset import FaceData
from ferhpo.data.io import cache
from ferhpo.errors import DataError

WriteCsv = Callable[..., Path]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets one word each time a source is hashed or decoded."""
    done: list[str] = []
    hash_file, read = cache._file_hash, fer2013._read
    monkeypatch.setattr(cache, "_file_hash", lambda path: done.append("hash") or hash_file(path))
    monkeypatch.setattr(fer2013, "_read", lambda *args: done.append("read") or read(*args))
    return done


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrays"))


def test_second_load_reads_only_the_cache(
    rows: list[str], write_csv: WriteCsv, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1)  # the file counts as old
    path = write_csv(rows)
    first = fer2013.load(path)
    assert reads == ["hash", "read"]
    second = fer2013.load(path)
    assert reads == ["hash", "read"]
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.images, first.images)
    assert not second.images.flags.writeable


def test_fresh_file_is_hashed_again(rows: list[str], write_csv: WriteCsv, reads: list[str]) -> None:
    path = write_csv(rows)
    fer2013.load(path)
    fer2013.load(path)
    assert reads == ["hash", "read", "hash"]


@pytest.mark.parametrize("settled_seconds", [-1, 2])
def test_changed_file_of_same_size_and_time(
    settled_seconds: int, rows: list[str], write_csv: WriteCsv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", settled_seconds)
    path = write_csv(rows)
    stat = path.stat()
    fer2013.load(path)
    write_csv([rows[0], "6" + rows[1][1:], *rows[2:]])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fer2013.load(path).labels[0] == 6


def test_changed_image_in_folders(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1)
    before = fer2013.load(folders)
    (folders / "train/sad/Training_20.png").write_bytes((folders / "train/sad/Training_21.png").read_bytes())
    assert fer2013.load(folders).digest != before.digest
    (folders / "train/sad/Training_20.png").rename(folders / "train/angry/Training_20.png")
    assert (fer2013.load(folders).labels == EMOTIONS.index("sad")).sum() == 4


def test_same_content_elsewhere_is_found(rows: list[str], write_csv: WriteCsv, reads: list[str]) -> None:
    fer2013.load(write_csv(rows))
    fer2013.load(write_csv(rows, "copy.csv"))
    assert reads == ["hash", "read", "hash"]


def test_file_that_changes_while_it_is_read(
    rows: list[str], write_csv: WriteCsv, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(rows)
    read = fer2013._read

    def write_in_between(*args: object) -> cache.Entry:
        write_csv(rows[:-1])
        return read(*args)

    monkeypatch.setattr(fer2013, "_read", write_in_between)
    with pytest.raises(DataError) as caught:
        fer2013.load(path)
    assert str(caught.value) == (
        f"data.path is {path}: it changed while it was read; retry when no other process writes to it"
    )
    assert entries(own_cache) == []


def flip_a_bit(data: bytes) -> bytes:
    return data[:-10_000] + bytes([data[-10_000] ^ 1]) + data[-9_999:]


def change_header(data: bytes) -> bytes:
    """A valid header that describes more data than the file has."""
    head, _, rest = data.partition(b"\n")
    header = json.loads(head.partition(b" ")[2])
    header["arrays"]["images"]["shape"][0] = 10**12
    line = json.dumps(header).encode()
    return hashlib.sha256(line).hexdigest().encode() + b" " + line + b"\n" + rest


def change_a_name(data: bytes) -> bytes:
    head, _, rest = data.partition(b"\n")
    assert b"Training" in head or b"form" in head
    return head.replace(b"form", b"farm") + b"\n" + rest


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        change_header,
        change_a_name,
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"{}\n",
        lambda data: b"\xff",
    ],
    ids=["bit", "header", "name", "short", "empty", "other", "binary"],
)
def test_damaged_entry_is_built_again(
    damage: Callable[[bytes], bytes], rows: list[str], write_csv: WriteCsv, own_cache: Path, reads: list[str]
) -> None:
    path = write_csv(rows)
    good = fer2013.load(path)
    (entry,) = entries(own_cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert fer2013.load(path).digest == good.digest
    assert reads.count("read") == 2
    assert entry.read_bytes() == whole


def test_damaged_memory_of_hashes(
    rows: list[str], write_csv: WriteCsv, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1)
    path = write_csv(rows)
    good = fer2013.load(path)
    (memory,) = (own_cache / "seen").iterdir()
    for damage in ("", "[]", '{"state": 1}', "null"):
        memory.write_text(damage)
        assert fer2013.load(path).digest == good.digest


def test_cache_that_cannot_be_written(
    rows: list[str], write_csv: WriteCsv, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    path = write_csv(rows)
    with caplog.at_level(logging.WARNING):
        data = fer2013.load(path, cache_dir=tmp_path / "file")
    assert len(data.images) == 35
    assert caplog.messages == [
        f"data.cache_dir is {tmp_path / 'file'}: cannot write to it (File exists); continuing without a cache"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_leaves_nothing_behind(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write(out: object) -> None:
        with Path("/dev/full").open("wb") as full:
            full.write(b"x")

    cache._write_whole(own_cache / "entry.arrays", write)
    assert list(own_cache.iterdir()) == []
    assert caplog.messages == [
        f"data.cache_dir is {own_cache}: cannot write to it (No space left on device); continuing without a cache"
    ]


def test_two_processes_at_once(rows: list[str], write_csv: WriteCsv, own_cache: Path) -> None:
    path = write_csv(rows)
    program = "import sys; from ferhpo.data import fer2013; print(fer2013.load(sys.argv[1]).digest)"
    command = [sys.executable, "-c", program, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = {process.communicate(timeout=60)[0].strip() for process in running}
    assert digests == {fer2013.load(path).digest}
    assert len(entries(own_cache)) == 1
    assert not list(own_cache.rglob("*.part"))


def test_cache_folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.cache_folder(tmp_path) == tmp_path
    assert cache.cache_folder(None) == own_cache
    monkeypatch.delenv("FERHPO_CACHE_DIR")
    assert cache.cache_folder(None) == Path.home() / ".cache" / "ferhpo"


def test_each_recipe_has_its_own_entry(rows: list[str], write_csv: WriteCsv, own_cache: Path) -> None:
    path = write_csv(rows)
    sizes: list[FaceData] = [fer2013.load(path, image_size=size) for size in (None, 24, 32)]
    assert [data.image_size for data in sizes] == [48, 24, 32]
    fer2013.load(path, split="folder", train_subset=3)
    assert len(entries(own_cache)) == 3, "splits are not part of a recipe"
