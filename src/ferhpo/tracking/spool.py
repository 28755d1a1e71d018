"""The spool: every record of a sweep, in a file of its folder, before any of it goes to MLflow.

One JSON object a line: `seq` counts from 1, `time_ms` is when it happened, `op` says what. An append is one write to
the operating system: killing the process loses nothing. Only the shipper makes the disk write, before it notes that
records were shipped: a loss of power can take the last seconds, but never leaves a note that runs ahead of the file.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ferhpo.disk import flock_soon
from ferhpo.errors import StillRunning, StorageError, TrackingError
from ferhpo.tracking.settings import TrackingSettings

Record = dict[str, Any]
SPOOL, LOCK, REJECTED = "spool.jsonl", "spool.lock", "rejected.jsonl"


class Spool:
    """The spool of one sweep, open for writing and held against every other process.

    Raises TrackingError if another process holds it. Cuts a last line that a kill or loss of power left torn.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / SPOOL
        self._append_lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _hold(folder / LOCK)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.last_seq = self._cut_torn_line()

    def append(self, op: str, fields: Mapping[str, object]) -> int:
        """Add one record, return its number. Raises StorageError, with the file as before, if the disk refuses."""
        with self._append_lock:
            record = {"seq": self.last_seq + 1, "time_ms": time.time_ns() // 1_000_000, "op": op, **fields}
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            size_before = os.fstat(self._fd).st_size
            try:
                written = os.write(self._fd, line)
                if written < len(line):
                    raise OSError("disk full")
            except OSError as error:
                os.ftruncate(self._fd, size_before)
                raise StorageError(
                    f"{self.path} cannot be written ({error.strerror or error}); free some space and resume"
                ) from error
            self.last_seq += 1
            return self.last_seq

    def read(self, offset: int, max_records: int) -> tuple[list[Record], int]:
        """Up to `max_records` whole records from byte `offset`, and the offset behind them. Any thread may read."""
        records: list[Record] = []
        with self.path.open("rb") as file:
            file.seek(offset)
            while len(records) < max_records:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                try:
                    records.append(json.loads(line))
                except ValueError as error:
                    raise TrackingError(
                        f"{self.path}: the line at byte {offset} is broken; delete that line and run `ferhpo sync`"
                    ) from error
                offset += len(line)
        return records, offset

    def sync_to_disk(self) -> None:
        """Wait until the disk has what was appended."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file and of the hold on it."""
        os.close(self._fd)
        os.close(self._lock_fd)

    def _cut_torn_line(self) -> int:
        end, last_seq = _last_record(self._fd, self.path)
        if end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end)
        return last_seq


def last_seq(folder: Path) -> int:
    """The number of the last record in a sweep's folder, 0 where there is none; also while a driver writes."""
    path = folder / SPOOL
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return _last_record(file.fileno(), path)[1]


def is_held(folder: Path, lock: str = LOCK) -> bool:
    """Whether a driver, or `ferhpo sync`, holds the spool of a sweep, or who locks another file of its folder.

    Raises TrackingError where the file cannot be opened.
    """
    path = folder / lock
    if not path.exists():
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    except OSError as error:
        raise TrackingError(f"{path} cannot be read ({error.strerror}); make it a file of yours") from None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _last_record(fd: int, path: Path) -> tuple[int, int]:
    """Where the last whole line ends, and its number. Raises TrackingError where it is no record."""
    end, tail = os.fstat(fd).st_size, b""
    size = end
    while end > 0 and tail.count(b"\n") < 2:  # back to the start of the last whole line
        start = max(0, end - 65536)
        tail = os.pread(fd, end - start, start) + tail
        end = start
    keep = tail.rfind(b"\n") + 1
    if keep == 0:
        return 0, 0
    last_line = tail[:keep].rstrip(b"\n").rsplit(b"\n", 1)[-1]
    try:
        return size - len(tail) + keep, int(json.loads(last_line)["seq"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{path}: the last line is no record of ferhpo; delete that line") from error


@dataclass
class Shipped:
    """How far a spool was shipped to one store, and what the store called things. Written by rename."""

    path: Path
    store: str
    experiment: str
    seq: int = 0
    offset: int = 0
    experiment_id: str | None = None
    sweep_id: str | None = None
    sweep_name: str | None = None
    runs: dict[str, str] = field(default_factory=dict)  # "" is the parent, "7" a trial's, "7/fold0" a fold's
    models: dict[str, str] = field(default_factory=dict)
    in_doubt: list[str] = field(default_factory=list)  # runs that the store may have made twice

    @classmethod
    def load(cls, folder: Path, store: str, experiment: str) -> "Shipped":
        """The note in `folder`, or a new one where there is none for this store: then all is shipped (again),
        which changes nothing that is there."""
        path = folder / "spool.shipped.json"
        try:
            noted = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            noted = {}
        if noted.get("store") != store or noted.get("experiment") != experiment:
            return cls(path, store, experiment)
        return cls(path, **noted)

    def save(self) -> None:
        """Replace the note on disk."""
        values = {key: value for key, value in asdict(self).items() if key != "path"}
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def num_unshipped(folder: Path, settings: TrackingSettings) -> int:
    """How many records of a sweep are not in its store, also while the sweep runs."""
    if settings.off:
        return 0
    # The note first: what is recorded and shipped between the two readings is then not counted as shipped too soon.
    shipped = Shipped.load(folder, settings.shown_uri, settings.experiment).seq
    return last_seq(folder) - shipped


def num_rejected(folder: Path) -> int:
    """How many values and files of a sweep MLflow refused; they stand in its rejected.jsonl."""
    path = folder / REJECTED
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_of(folder: Path, settings: TrackingSettings, number: int | None) -> str | None:
    """MLflow's id of a run of the sweep in `folder` (number None: of the parent), None where it was not shipped."""
    shipped = Shipped.load(folder, settings.shown_uri, settings.experiment)
    return shipped.runs.get("" if number is None else str(number))


def _hold(path: Path) -> int:
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        flock_soon(lock_fd)
    except BlockingIOError:
        os.close(lock_fd)
        raise StillRunning(
            f"{path.parent}: a running sweep, or ferhpo sync, holds these records and ships them; wait until it ends"
        ) from None
    return lock_fd
