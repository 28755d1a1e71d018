"""The cache of decoded arrays on disk, addressed by the content of the file or folder they were read from.

Note: an entry is found by the SHA-256 of its source, never by name or time. Time only serves to skip hashing: the hash
of a file is stored with its size, inode, mtime and ctime, and only if the file is so old that a later write must change
one of them (git calls the opposite "racily clean").
Entries are written to a temporary name and renamed, so that two processes may write the same one at the same time; they
are compared with their own digests when read, and a damaged one is rebuilt.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import array_digest
from ferhpo.data.io.faults import Faults, most_unpacked, raise_faults
from ferhpo.data.io.files import fault_of_size, is_image
from ferhpo.data.io.tree import open_regular, tree_names
from ferhpo.disk import fault_of_file, read_file
from ferhpo.errors import ConfigError, DataError
from ferhpo.text import size

log = logging.getLogger(__name__)

FORMAT = 4  # increment it when a reader returns other arrays for the same bytes, or the format of the files changes
_FOLDER_BYTES, _SEEN_BYTES = 4096, 100_000
SETTLED_SECONDS = 2.0  # coarser than the time stamps of any file system in use


@dataclass(frozen=True)
class Entry:
    """What a reader made of a source: arrays, metadata in plain JSON values, and the digest of each array."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    digests: dict[str, str] = field(default_factory=dict)


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return the given folder, else $FERHPO_CACHE_DIR, else ~/.cache/ferhpo."""
    if not isinstance(cache_dir, str | Path | None) or "\0" in str(cache_dir):
        raise ConfigError("data", [f"data.cache_dir is {cache_dir!r:.60}; it must be the name of a folder, or null"])
    return Path(cache_dir or os.environ.get("FERHPO_CACHE_DIR") or "~/.cache/ferhpo").expanduser()


def drop_caches(section: Any) -> None:
    """Set every `cache_dir` of a data section to null that is not the user's own cache.

    For a section that a sweep's folder or a store contains: it may have been written by someone else, and must not
    choose what is read in place of the user's images, nor where this process makes files.
    """
    for key, value in section.items() if isinstance(section, dict) else enumerate(section):
        if isinstance(value, dict | list):
            drop_caches(value)
        elif key == "cache_dir" and value is not None and not _is_users(value):
            section[key] = None


def _is_users(cache_dir: object) -> bool:
    try:
        return cache_folder(str(cache_dir)).resolve() == cache_folder(None).resolve()
    except (OSError, RuntimeError, ConfigError):
        return False


def read_cached(
    where: str,
    path: Path,
    recipe: Mapping[str, Any],
    cache_dir: str | Path | None,
    read: Callable[[], Entry],
    files: Sequence[Path] | None = None,
) -> Entry:
    """Return the entry for the content of `path` and `recipe`; call `read` only if there is none.

    where: the first words of an error message, e.g. "data.path is fer2013.csv"
    recipe: everything besides the content that changes the result of `read`; plain JSON values
    files: what is read, if it is not `path` itself; their order counts, not their names
    Raises DataError if the source changes while it is read. A cache that cannot be written gives a warning.
    """
    folder = cache_folder(cache_dir)
    with readable(where):
        before, changed_at = _state(where, path, files)
        settled = changed_at < time.time() - SETTLED_SECONDS
        content = _content_hash(path, files, before, settled, folder)

    def read_unchanged() -> Entry:
        with readable(where):
            entry = read()
            after = _state(where, path, files)[0]
        if after != before:
            raise DataError(where, ["it changed while it was read; retry when no other process writes to it"])
        return entry

    return cached([content, recipe], cache_dir, read_unchanged)


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn an OSError of the file system into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        name = "it" if error.filename is None else error.filename
        raise DataError(where, [f"{name} cannot be read ({error.strerror or error}); fix this and retry"]) from None


def cached(key: Any, cache_dir: str | Path | None, make: Callable[[], Entry]) -> Entry:
    """Return the entry of `key`; call `make` only if there is none.

    key: everything that the arrays depend on; plain JSON values
    """
    digest = hashlib.sha256(json.dumps([FORMAT, key], sort_keys=True).encode()).hexdigest()
    file = cache_folder(cache_dir) / f"{digest}.arrays"
    entry = _load(file)
    if entry is None:
        entry = make()
        entry = Entry(entry.arrays, entry.meta, {name: array_digest(array) for name, array in entry.arrays.items()})
        _write_whole(file, lambda out: _save(out, entry))
    return entry


def _members(path: Path, files: Sequence[Path] | None) -> list[tuple[str, Path]]:
    """Return what is read, each with the name that counts: none for given files."""
    if files is not None:
        return [("", file) for file in files]
    return [(name, path / name) for name in tree_names(path)[0]] if path.is_dir() else [("", path)]


def _state(where: str, path: Path, files: Sequence[Path] | None) -> tuple[str, float]:
    """Return the state of what is read, and the time of its last change in seconds since 1970.

    The state is a digest that changes when the file, or any file of the folder, is written, replaced, added or removed.
    Raises DataError for files that would take a time without limit to read, before any of them is read.
    """
    digest, newest = hashlib.sha256(), 0.0
    faults, total, stored = Faults("file"), 0, {}
    for name, file in _members(path, files):
        stat = file.stat()
        if fault := fault_of_file(file):
            faults.add("file", f"{name or file} cannot be read: {fault}; remove it", name or str(file))
        elif is_image(file.name) and (fault := fault_of_size(stat.st_size)):
            faults.add("size", f"{name or file} {fault}", name or str(file))
        digest.update(
            os.fsencode(f"{name}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}\n")
        )  # a name need not be UTF-8
        newest = max(newest, stat.st_mtime, stat.st_ctime)
        total += stat.st_size
        # A small file may be stored in its folder, without a block of its own.
        stored[stat.st_dev, stat.st_ino] = max(512 * stat.st_blocks, min(stat.st_size, _FOLDER_BYTES))
    raise_faults(where, faults)
    if total > most_unpacked(on_disk := sum(stored.values())):
        rule = f"its files have {size(total)} in all, of which {size(on_disk)} are on the disk"
        raise DataError(where, [f"{rule}; remove the links to the same files, and the files that are mostly empty"])
    return digest.hexdigest(), newest


def _content_hash(path: Path, files: Sequence[Path] | None, state: str, settled: bool, folder: Path) -> str:
    """Return the SHA-256 of a file, or over the names and contents of a folder; stored if the state is settled."""
    stored = folder / "seen" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}.json"
    try:
        known = json.loads(read_file(stored, _SEEN_BYTES))
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # not stored, or damaged: compute it
    if path.is_dir() or files is not None:
        digest = hashlib.sha256()
        for name, file in _members(path, files):
            digest.update(os.fsencode(f"{name}\0{_file_hash(file)}\n"))
        content = digest.hexdigest()
    else:
        content = _file_hash(path)
    if settled:
        text = json.dumps({"path": str(path.resolve()), "state": state, "sha256": content})
        _write_whole(stored, lambda out: out.write(text.encode()))
    return content


def _file_hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(out: IO[bytes], entry: Entry) -> None:
    """Write the SHA-256 of a header and the header in one line of JSON, then the bytes of the arrays.

    The header has the type, shape and digest of each array, and the metadata.
    """
    arrays = {
        name: {"dtype": array.dtype.str, "shape": array.shape, "digest": entry.digests[name]}
        for name, array in entry.arrays.items()
    }
    header = json.dumps({"arrays": arrays, "meta": entry.meta}).encode()
    out.write(hashlib.sha256(header).hexdigest().encode() + b" " + header + b"\n")
    for array in entry.arrays.values():
        out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _load(file: Path) -> Entry | None:
    """Return the entry of a file, or None if there is no file or it is damaged."""
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is not a regular file")
        with file.open("rb") as data:
            digest, _, line = data.readline().removesuffix(b"\n").partition(b" ")
            if hashlib.sha256(line).hexdigest().encode() != digest:
                raise ValueError("its first line does not match its digest")
            header = json.loads(line)
            arrays, digests = {}, {}
            left = file.stat().st_size - data.tell()
            for name, spec in header["arrays"].items():
                dtype, count = np.dtype(spec["dtype"]), int(np.prod(spec["shape"], dtype=np.int64))
                left -= dtype.itemsize * count
                if left < 0:
                    raise ValueError("file too short")
                arrays[name] = np.fromfile(data, dtype, count).reshape(spec["shape"])
                digests[name] = str(spec["digest"])
                if array_digest(arrays[name]) != digests[name]:
                    raise ValueError(f"{name} does not match its digest")
            return Entry(arrays, header["meta"], digests)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # if its digest matches, the header is as it was written
        log.warning("%s is damaged (%s); rebuilding it", file, error)
        return None


def _write_whole(file: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write to a temporary name and rename, so that no process ever reads half a file."""
    temporary: str | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".part", delete=False) as out:
            temporary = out.name
            write(out)
        Path(temporary).replace(file)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        log.warning(
            "data.cache_dir is %s: cannot write to it (%s); continuing without a cache",
            file.parent,
            error.strerror or error,
        )
