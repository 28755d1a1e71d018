"""The file of a study, Optuna's journal with one writer, and the lock of that writer.

What a reader would get wrong: a journal has no lock of its own. The driver's flock on the folder is the lock, and
readers need none: they see whole lines.
"""

import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.storages.journal._storage import JournalStorageReplayResult

from ferhpo.errors import StorageError, SweepError
from ferhpo.tracking.spool import flock_soon

JOURNAL = "study.jsonl"
LOCK = "driver.lock"
# What Optuna, and whoever makes records of trials, raises on a journal that somebody or something has changed.
_DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError, RuntimeError,
    optuna.exceptions.OptunaError,
)  # fmt: skip


class _NoLock(BaseJournalFileLock):
    """The driver's flock on the folder guards the journal; the stock file lock would wait 30 s for a stale one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _Journal(JournalFileBackend):
    """Optuna's journal, which says what to do where the disk refuses, and leaves no half line there."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        path = Path(self._file_path)
        size = path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError as error:
            os.truncate(path, size)
            raise StorageError(f"{path} cannot be written ({error.strerror}); free some space and resume") from None


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
            holder = _as_object(self._file.read())  # empty where it has just taken the lock
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


def _as_object(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON text; empty where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def cut_torn_line(path: Path) -> None:
    """A kill can leave half a last line; the next append would make it a broken line in the middle.

    Raises SweepError where the last whole line is broken, which Optuna would pass over.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    if whole and not _as_object(data[data.rfind(b"\n", 0, whole - 1) + 1 : whole]):
        raise _broken(path, data.count(b"\n"))


def check_is_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise SweepError(f"{path} is no file; put a copy of the study there, or take it away")


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Tell of a journal that is damaged, with the line. What a user may have done is no reason for a traceback."""
    try:
        yield
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it a file that you may read") from None
    except _DAMAGE as error:
        number = _first_broken_line(path)
        if number is not None:
            raise _broken(path, number) from None
        raise SweepError(
            f"{path} is damaged: a trial in it lacks what ferhpo writes ({type(error).__name__}: {error}); put a copy "
            "back (MLflow keeps one of an ended sweep, under study)"
        ) from None


def _broken(path: Path, number: int) -> SweepError:
    return SweepError(
        f"{path}: line {number} is broken; put a copy back, or keep the lines before it (head -n {number - 1}): a "
        "resume runs again what came after them"
    )


def _first_broken_line(path: Path) -> int | None:
    """The line, counted from 1, at which reading the journal fails."""
    read = JournalStorageReplayResult("")
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            read.apply_logs([json.loads(line)])
        except _DAMAGE:
            return number
    return None


def load_journal(path: Path) -> tuple[JournalStorage, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = JournalStorage(_Journal(str(path), lock_obj=_NoLock()))
    studies = storage.get_all_studies()
    return storage, studies[0]._study_id if studies else -1
