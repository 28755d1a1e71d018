"""The spool: a file in a sweep's folder that holds every record of the sweep before it is uploaded to MLflow.

Each line is a JSON object: `seq` counts from 1, `time_ms` is the time of the event, `op` its kind. Appending is one
write to the operating system, so a killed process loses nothing. The shipper calls fsync before it uploads: a power
failure may lose the last seconds, but the saved upload position is never ahead of the file.
"""

import fcntl
import json
import math
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ferhpo.clock import Clock
from ferhpo.disk import disk_refused, flock_soon
from ferhpo.errors import StillRunning, StorageError, TrackingError
from ferhpo.parse import parse_json, shape_fault
from ferhpo.states import RunState

Record = dict[str, Any]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_NUMBER, _NONE, _TEXTS = (int, float), type(None), {str: str}
_FIELDS = {"seq": int, "time_ms": int, "op": str, "number?": (int, _NONE), "epoch?": int, "user?": str}
_OPENING = {**_FIELDS, "params": _TEXTS, "tags": _TEXTS}
_EPOCH = {"epoch": _is_finite, "epoch_seconds?": _is_finite, str: _NUMBER}
_DATASET = {"name": str, "digest": str, "source_type": str, "source": str, "profile?": str}
SHAPES: dict[str, Any] = {  # of a record of each kind
    "open_sweep": {**_OPENING, "sweep_id": str, "name": str},
    "open_trial": {**_OPENING, "number": int},
    "view": {**_FIELDS, "sweep_id": str, "value": str},
    "dataset": {**_FIELDS, "dataset": _DATASET, "context": str},
    "metrics": {**_FIELDS, "step": int, "values": {str: _NUMBER}},
    "fold": {**_FIELDS, "number": int, "fold": int, "epochs": [_EPOCH], "once": {str: _NUMBER}, "path": (str, _NONE)},
    "tags": {**_FIELDS, "tags": _TEXTS},
    "artifact": {**_FIELDS, "path": str, "folder": str},
    "text": {**_FIELDS, "text": str, "file": str},
    "model": {**_FIELDS, "number": int, "path": str},
    "close": {**_FIELDS, "tags": _TEXTS, "state": [state.value for state in RunState].__contains__},
}
SPOOL, LOCK = "spool.jsonl", "spool.lock"


class Spool:
    """The spool of one sweep, open for writing and locked against all other processes.

    Opening it removes an incomplete last line, which a kill or a power failure may leave. Raises StillRunning if
    another process has it open, TrackingError if the last line is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / SPOOL
        self._append_lock = threading.Lock()
        self.clock = Clock()  # MLflow takes the point with the later time as the latest
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(folder / LOCK)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise disk_refused(folder, error) from None
        self.last_seq = self._remove_incomplete_line()

    def append(self, op: str, fields: Mapping[str, object]) -> Record:
        """Append one record and return it.

        Raises StorageError if the disk cannot be written; the file is then as before.
        """
        with self._append_lock:
            record = {"seq": self.last_seq + 1, "time_ms": self.clock.now_ns() // 1_000_000, "op": op, **fields}
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            size_before = os.fstat(self._fd).st_size
            try:
                written = os.write(self._fd, line)
                if written < len(line):
                    raise OSError("disk full")
            except OSError as error:
                with suppress(OSError):  # if even this is refused, the next driver cuts the partial line
                    os.ftruncate(self._fd, size_before)
                raise StorageError(
                    f"{self.path} cannot be written ({error.strerror or error}); free some space and resume"
                ) from error
            self.last_seq += 1
            return record

    def read(self, offset: int, max_records: int) -> tuple[list[Record], int]:
        """Return up to `max_records` complete records from byte `offset`, and the offset after them. Thread-safe."""
        records: list[Record] = []
        with self.path.open("rb") as file:
            file.seek(offset)
            while len(records) < max_records:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                try:
                    record = parse_json(line)
                    # Half of a surrogate pair, e.g. of a file name that is not UTF-8, and null characters: no store
                    # accepts them.
                    record = _encodable(record) if b"\\ud" in line or b"\\u0000" in line else record
                    op = record.get("op") if isinstance(record, dict) else None
                    fault = shape_fault(record, SHAPES.get(str(op), _FIELDS))
                except (ValueError, RecursionError):
                    fault = "it is not JSON"
                if fault:
                    raise TrackingError(
                        f"{self.path}: the line at byte {offset} is damaged ({fault}); delete this line and run "
                        "`ferhpo sync`"
                    )
                records.append(record)
                self.clock.not_before(record["time_ms"] * 1_000_000)
                offset += len(line)
        return records, offset

    def has_position(self, offset: int, seq: int) -> bool:
        """Return whether the record `seq` ends at byte `offset`."""
        size = os.fstat(self._fd).st_size
        if offset == 0 or offset > size or seq > self.last_seq:
            return offset == seq == 0
        if os.pread(self._fd, 1, offset - 1) != b"\n":
            return False
        records, _ = self.read(offset, 1)
        return int(records[0].get("seq", 0)) == seq + 1 if records else seq == self.last_seq

    def sync_to_disk(self) -> None:
        """Wait until everything appended is on disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._fd)
        os.close(self._lock_fd)

    def _remove_incomplete_line(self) -> int:
        """Truncate the file after its last complete line, and return that record's `seq`."""
        end, last_seq = _last_record(self._fd, self.path)
        if end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end)
        return last_seq


def _encodable(value: Any, key: str = "") -> Any:
    """Escape what cannot be encoded as UTF-8 in all texts of a record, except for the path of a file."""
    if isinstance(value, str):
        return value if key == "path" else value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item, name) for name, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value


def last_seq(folder: Path) -> int:
    """Return the `seq` of the last record in a sweep's folder, 0 if there is none. Safe while a driver writes."""
    path = folder / SPOOL
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return _last_record(file.fileno(), path)[1]


def is_held(folder: Path, lock: str = LOCK) -> bool:
    """Return whether a process (a driver or `ferhpo sync`) has locked a sweep's spool, or another file of its folder.

    lock: name of the lock file in `folder`
    Raises TrackingError if the file cannot be opened.
    """
    path = folder / lock
    if not path.exists():
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a named pipe would block
    except OSError as error:
        raise TrackingError(f"{path} cannot be read ({error.strerror}); make it a file that you can read") from None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _last_record(fd: int, path: Path) -> tuple[int, int]:
    """Return the offset after the last complete line, and its `seq`. Raises TrackingError if it is not a record."""
    end, tail = os.fstat(fd).st_size, b""
    size = end
    while end > 0 and tail.count(b"\n") < 2:  # back to the start of the last complete line
        start = max(0, end - 65536)
        tail = os.pread(fd, end - start, start) + tail
        end = start
    keep = tail.rfind(b"\n") + 1
    if keep == 0:
        return 0, 0
    last_line = tail[:keep].rstrip(b"\n").rsplit(b"\n", 1)[-1]
    try:
        return size - len(tail) + keep, int(parse_json(last_line)["seq"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise TrackingError(f"{path}: the last line is not a record of ferhpo; delete this line") from error


def _lock(path: Path) -> int:
    """Lock a file for this process and return its descriptor. Raises StillRunning if another process has it."""
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        flock_soon(lock_fd)
    except BlockingIOError:
        os.close(lock_fd)
        raise StillRunning(
            f"{path.parent} is in use by a running sweep or ferhpo sync, which uploads its records; wait until it ends"
        ) from None
    return lock_fd
