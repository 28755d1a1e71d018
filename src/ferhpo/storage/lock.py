"""Lock the folder of a sweep, so that it has one driver at a time."""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ferhpo.disk import disk_refused, flock_soon
from ferhpo.errors import StorageError, SweepError
from ferhpo.parse import parse_json

LOCK = "driver.lock"


class FolderLock:
    """Hold the lock of a sweep's folder, by flock. The kernel releases it with the process, however that ends.

    Raises SweepError if another driver holds it, StorageError if the file cannot be written or locked.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        try:
            self._file: IO[str] = self.path.open("a+", errors="replace")
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror}); make it writable for this user"
            ) from None
        try:
            flock_soon(self._file.fileno())
        except BlockingIOError:
            self._file.seek(0)
            holder = as_object(self._file.read())  # empty if it has only just taken the lock
            self._file.close()
            raise SweepError(
                f"sweep {folder.name} is being run by process {holder.get('pid', '?')} on {holder.get('host', '?')} "
                f"since {holder.get('since', '?')}; wait for it, or stop that process"
            ) from None
        except OSError as error:
            self._file.close()
            raise StorageError(
                f"{self.path} cannot be locked ({error.strerror}); set output_dir to a file system that supports locks"
            ) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            self._file.truncate(0)
            self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            self._file.flush()
        except OSError as error:
            self.release()
            raise disk_refused(folder, error) from None

    def release(self) -> None:
        with suppress(OSError):  # what could not be written is tried again; the lock ends all the same
            self._file.close()


def as_object(text: str | bytes) -> dict[str, Any]:
    """Return the object in a JSON text; empty if it is not valid JSON or not an object."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
