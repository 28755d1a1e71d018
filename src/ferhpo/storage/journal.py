"""The study's file: Optuna's journal with one writer.

Note: the journal has no lock of its own. The driver's lock on the folder (lock.py) protects it, and readers need none,
because they see whole lines.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.storages.journal._storage import JournalStorageReplayResult

from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.lock import as_object

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Every sampler: Optuna calls TPE's `group` experimental, and nothing else models conditional spaces.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

JOURNAL = "study.jsonl"
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


def cut_torn_line(path: Path) -> None:
    """A kill can leave half a last line; the next append would make it a broken line in the middle.

    Raises SweepError where the last whole line is broken, which Optuna would pass over.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    if whole and not as_object(data[data.rfind(b"\n", 0, whole - 1) + 1 : whole]):
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
