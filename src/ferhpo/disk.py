"""Write files atomically, check that a disk can be written, lock a file."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferhpo.errors import StorageError

START_BYTES = 1_000_000  # sweep.json, the journal, and the tables of an empty MLflow store


def check_disk(folder: Path) -> None:
    """Raise StorageError where the disk has no place for a sweep in `folder`; leaves nothing behind."""
    place = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(START_BYTES))
    except OSError as error:
        raise disk_refused(place, error) from None


def disk_refused(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder} cannot be written ({error.strerror}); free space there, or set output_dir to a folder that can be"
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write by rename, so that no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


_HOLD_SECONDS = 1.0  # somebody who only asks whether a folder is held lets go at once


def flock_soon(descriptor: int) -> None:
    """Lock a file for this process alone. BlockingIOError where another one holds it for longer than _HOLD_SECONDS."""
    deadline = time.monotonic() + _HOLD_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)
