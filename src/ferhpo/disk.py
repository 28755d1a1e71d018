"""Write files atomically, check that a disk is writable, and lock files."""

import errno
import fcntl
import json
import os
import secrets
import stat
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ferhpo.errors import StorageError

START_BYTES = 1_000_000  # sweep.json, the journal, and the tables of an empty MLflow store
_LARGE_BYTES, _MOST_EXPANSION = 100_000_000, 100  # of a file with holes
_HOLD_SECONDS = 1.0  # a process that only checks whether a folder is locked releases the lock at once


def check_disk(folder: Path) -> None:
    """Raise StorageError if a sweep cannot be stored in `folder`. Nothing is left on the disk."""
    place = existing_part(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(START_BYTES))
    except OSError as error:
        raise disk_refused(place, error) from None


def existing_part(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists, as far as this user may look."""

    def exists(path: Path) -> bool:
        try:
            return path.exists()
        except OSError:
            return False

    return next(path for path in [folder, *folder.absolute().parents] if exists(path))


def is_hidden(path: Path) -> bool:
    """Return whether a path leads into a hidden folder, which is another program's; not if the current one is there."""
    place, current = path.resolve(), Path.cwd().resolve()
    parts = place.relative_to(current).parts if place.is_relative_to(current) else place.parts
    return any(part.startswith(".") for part in parts)


def check_temporary() -> None:
    """Raise StorageError if the folder of temporary files, which Ray needs too, cannot be written."""
    ray_folder = os.environ.get("RAY_TMPDIR")
    place = Path(ray_folder or os.environ.get("TMPDIR") or "/tmp")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(START_BYTES))
    except OSError as error:
        variable = "RAY_TMPDIR" if ray_folder else "TMPDIR"
        raise StorageError(
            f"the temporary folder {place} cannot be written ({error.strerror}); free space there, or set {variable} "
            "to a writable folder"
        ) from None


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file that may come from elsewhere.

    Raises OSError if it is larger than `most_bytes`, or is no regular file; a pipe would be waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        # A buffer of the whole limit would be allocated otherwise.
        content = file.read(min(most_bytes, status.st_size) + 1) if status.st_size <= most_bytes else None
    if content is None or len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes / 1e6:,.0f} MB", str(path))
    return content


def fault_of_file(path: Path) -> str:
    """Return what keeps a file from being read in bounded time and memory, or "": a device, or a file of holes only."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_size > _LARGE_BYTES and status.st_size > _MOST_EXPANSION * 512 * max(status.st_blocks, 1):
        return f"it says that it has {status.st_size / 1e9:,.1f} GB, of which nearly all are empty"
    return ""


def has_compressed(archive: zipfile.ZipFile) -> bool:
    """Return whether a member of a zip is compressed, so that it might expand to any size; torch compresses none."""
    return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())


def disk_refused(folder: Path, error: OSError) -> StorageError:
    """Return the StorageError for a folder that cannot be written."""
    return StorageError(
        f"{folder} cannot be written ({error.strerror}); free space on the disk, or set output_dir to a writable folder"
    )


def unguessable(path: Path) -> Path:
    """Return a name beside `path` for a file that will be renamed to it: nobody can have put a link in its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically: readers see the old content or the new one."""
    temporary = unguessable(path)
    try:
        with temporary.open("x") as file:
            file.write(json.dumps(content, indent=1))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # the first reason counts
            temporary.unlink(missing_ok=True)
        raise


def flock_soon(descriptor: int) -> None:
    """Lock an open file exclusively. Raises BlockingIOError if another process keeps it locked for a second."""
    deadline = time.monotonic() + _HOLD_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)
