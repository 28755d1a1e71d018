"""Open the file of the study: Optuna's journal, with one writer.

Note: the journal has no lock of its own. The driver's lock on the folder (lock.py) protects it; readers need no lock,
because they use complete lines only.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.storages.journal._storage import JournalStorageReplayResult

from ferhpo.clock import Clock
from ferhpo.errors import StorageError, SweepError
from ferhpo.parse import parse_json
from ferhpo.storage.lock import as_object

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Optuna marks TPE's `group` as experimental, but nothing else models conditional spaces.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

JOURNAL = "study.jsonl"
# What Optuna, and the code that reads trials, raise for a journal that was modified or damaged.
_DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError, RuntimeError,
    optuna.exceptions.OptunaError,
)  # fmt: skip


class _NoLock(BaseJournalFileLock):
    """No lock: the driver's flock on the folder protects the journal. Optuna's would wait 30 s for a stale lock."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _Journal(JournalFileBackend):
    """Optuna's journal file, with a StorageError and no partial line if the disk cannot be written.

    Times of trials never run backward, whatever the system's clock does.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock())
        self.clock = Clock()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        path = Path(self._file_path)
        for log in logs:
            for key in ("datetime_start", "datetime_complete"):
                if log.get(key) is not None:
                    now = datetime.fromtimestamp(self.clock.now_ns() / 1e9, UTC)
                    log[key] = now.isoformat(timespec="microseconds")
        size = None
        try:
            size = path.stat().st_size
            super().append_logs(logs)
        except OSError as error:
            with suppress(OSError):  # if even this is refused, the next driver cuts the partial line
                if size is not None:
                    os.truncate(path, size)
            raise StorageError(f"{path} cannot be written ({error.strerror}); free some space and resume") from None


def cut_torn_line(path: Path) -> None:
    """Remove a partial last line, which a kill can leave; the next append would turn it into a damaged line.

    Raises SweepError if the last complete line is damaged, which Optuna would ignore.
    """
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    if end and not as_object(data[data.rfind(b"\n", 0, end - 1) + 1 : end]):
        raise _broken(path, data.count(b"\n"))


def check_is_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise SweepError(f"{path} is not a regular file; restore the study from a copy or remove it")


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn any error about a damaged journal into a SweepError that names the line, instead of a traceback."""
    try:
        yield
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from None
    except _DAMAGE as error:
        number = _first_broken_line(path)
        if number is not None:
            raise _broken(path, number) from None
        raise SweepError(
            f"{path} is damaged: a trial in it lacks data that ferhpo writes ({type(error).__name__}: {error}); "
            "restore it from a copy (MLflow has one for a finished sweep, under study/)"
        ) from None


def _broken(path: Path, number: int) -> SweepError:
    return SweepError(
        f"{path}: line {number} is damaged; restore the file from a copy, or keep the lines before it "
        f"(head -n {number - 1}): a resume repeats what followed"
    )


def _first_broken_line(path: Path) -> int | None:
    """Return the line, counted from 1, at which reading the journal fails; None if it can be read."""
    read = JournalStorageReplayResult("")
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            read.apply_logs([parse_json(line)])
        except _DAMAGE:
            return number
    return None


def load_journal(path: Path) -> tuple[JournalStorage, int]:
    """Return Optuna's storage on a journal and the id of its study, -1 if it has none yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        journal = _Journal(path)
        storage = JournalStorage(journal)
    studies = storage.get_all_studies()
    for trial in storage.get_all_trials(studies[0]._study_id, deepcopy=False) if studies else ():
        for when in (trial.datetime_start, trial.datetime_complete):
            if when is not None:  # in local time
                journal.clock.not_before(int(when.timestamp() * 1e9))
    return storage, studies[0]._study_id if studies else -1


class _ReadOnly(_Journal):
    """A journal that nothing is written to: a program that only shows it could also delete its study."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise StorageError(f"{self._file_path} is open for reading only")


def read_only_storage(path: Path) -> JournalStorage:
    """Return Optuna's storage on a journal that may still grow. Writing to it raises StorageError.

    Raises SweepError if there is no journal, or a damaged one.
    """
    if not path.exists():
        raise SweepError(f"{path} does not exist; the sweep has no trials yet")
    check_is_file(path)
    with naming_damage(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return JournalStorage(_ReadOnly(path))
