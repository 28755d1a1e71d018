"""The lock of a sweep's one driver."""

import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from ferhpo.disk import flock_soon
from ferhpo.errors import StorageError, SweepError

LOCK = "driver.lock"


class FolderLock:
    """The one driver of a sweep, by flock; the kernel frees it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        try:
            self._file: IO[str] = self.path.open("a+", errors="replace")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}); make it a file of yours") from None
        try:
            flock_soon(self._file.fileno())
        except BlockingIOError:
            self._file.seek(0)
            holder = as_object(self._file.read())  # empty where it has just taken the lock
            self._file.close()
            raise SweepError(
                f"sweep {folder.name} is being run by process {holder.get('pid', '?')} on {holder.get('host', '?')} "
                f"since {holder.get('since', '?')}; wait for it, or stop that process"
            ) from None
        except OSError as error:
            self._file.close()
            raise StorageError(
                f"{self.path} cannot be locked ({error.strerror}); set output_dir to a file system that has locks"
            ) from None
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def as_object(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON text; empty where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
