"""The shipper: a thread that uploads a spool to MLflow. An unreachable store causes one warning, never an exception."""

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ferhpo.addresses.secrets import redact_error
from ferhpo.errors import TrackingError
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import Record, Spool
from ferhpo.tracking.store import connect, open_experiment, outages, reason_of, remedy_of
from ferhpo.tracking.upload.keys import key_of
from ferhpo.tracking.upload.rejected import VALUES, Entry, Rejected
from ferhpo.tracking.upload.shipped import Shipped

if TYPE_CHECKING:
    from ferhpo.tracking.upload.runs import RunWriter

log = logging.getLogger("ferhpo.tracking")

_FIRST_BATCH, _MAX_BATCH = 250, 1000  # records
_LONG_SECONDS = 20.0  # a batch that takes longer halves the next one
_NUM_TRIES, _RETRY_SECONDS = 5, 0.5  # of upload_now, without any record uploaded in between
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 60.0  # between uploads; doubled with each failure in a row
_PATIENCE_SECONDS = 15.0  # how long flush waits for a store that does not respond: enough for a server to restart
_WAKE_SECONDS = 2.0  # how often flush wakes the thread
# Between the tries of a record that fails while the store accepts others; after the last one it is set aside.
_PAUSES_OF_A_RECORD = (0.5, 1.0, 2.0, 4.0)


class Shipper:
    """Read a spool from the position of the last upload and write it to the store."""

    def __init__(self, spool: Spool, settings: TrackingSettings) -> None:
        self.spool = spool
        self.settings = settings
        self.shipped = Shipped.load(spool.folder, settings.shown_uri, settings.experiment)
        if not spool.has_position(self.shipped.offset, self.shipped.seq):  # it belongs to another spool
            self.shipped = Shipped(self.shipped.path, settings.shown_uri, settings.experiment)
        self.rejected = Rejected(spool.folder)
        if self.shipped.seq == 0:  # everything is uploaded again, maybe to another store
            self.rejected.replace([])
        self.last_error: str | None = None
        self._batch_size = _FIRST_BATCH
        self._num_failures = 0  # since the last upload
        self._warned = False
        self._writer: RunWriter | None = None
        self._num_tries = 0  # of a single record, while the store accepts others
        self._set_aside: set[tuple[str, str]] = set()  # kinds and reasons, to try further records like these once
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._progress = threading.Condition()

    @property
    def unshipped(self) -> int:
        """The number of records that are not in MLflow yet."""
        return self.spool.last_seq - self.shipped.seq

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, if it was not started before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ferhpo-shipper", daemon=True)
            self._thread.start()

    def flush(self, timeout_seconds: float) -> int:
        """Wait until everything is uploaded, and return the number of records that are not.

        Ends after `timeout_seconds`, or after 15 seconds if the store does not respond; meanwhile the thread tries
        every two seconds.
        """
        begin = time.monotonic()
        woken = 0.0
        with self._progress:
            while self.unshipped and self.alive and (passed := time.monotonic() - begin) < timeout_seconds:
                if self._num_failures > 1 and passed > _PATIENCE_SECONDS:
                    break
                if not woken or time.monotonic() - woken > _WAKE_SECONDS:
                    self._wake.set()
                    woken = time.monotonic()
                self._progress.wait(min(timeout_seconds - passed, 0.5))
        return self.unshipped

    def close(self, timeout_seconds: float) -> None:
        """Stop the thread and wait for it at most `timeout_seconds`. It closes the spool when it ends."""
        self._stop.set()
        self._wake.set()
        if self._thread is None:
            self.spool.close()
        else:
            self._thread.join(timeout_seconds)

    def upload(self) -> None:
        """Upload every record of the spool. Raises the store's errors."""
        writer = self._connected()
        while not self._stop.is_set():
            records, offset = self.spool.read(self.shipped.offset, self._batch_size)
            if not records:
                return
            began = time.monotonic()
            self.spool.sync_to_disk()  # before the upload, so that after a power failure the store is never ahead
            try:
                if not writer.write(records, self._stop.is_set):
                    return
                self._set_aside -= {(kind, reason) for kind, reason in self._set_aside if kind == records[0]["op"]}
            except outages() as error:
                self.shipped.save()  # with the runs that were created
                if isinstance(error, TrackingError) or not writer.accepts_others():
                    # A store that fails at every tenth call accepts a batch of a few records, never one of hundreds.
                    self._batch_size = max(self._batch_size // 8, 1)
                    raise
                if len(records) > 1 or not self._is_last_try(records[0], reason_of(error)):
                    self._batch_size = 1
                    continue
                if not writer.write(records, self._stop.is_set, is_last_try=True):
                    return
            self._num_tries = 0
            self._save_position(records, offset)
            self._adapt_batch_size(time.monotonic() - began)

    def retry_rejected(self) -> int:
        """Try what was refused or set aside again; return how many records MLflow has now."""
        entries = self.rejected.entries()
        if not entries:
            return 0
        writer = self._connected()
        records, newest = self._find_rejected(entries)
        self.rejected.hold([entry for entry in entries if entry.get("seq") not in records])
        left = entries
        try:
            for seq, record in sorted(records.items()):
                of_record = [entry for entry in entries if entry["seq"] == seq]
                run = str(of_record[0].get("run"))
                ended = newest.get(("close", run), 0)
                # A later record has another value, or an outcome that must not be undone.
                old = newest.get((record["op"], run), seq) > seq or (
                    record["op"] == "open_trial" and ended > seq and ended not in records
                )
                keys = {(entry.get("run"), entry.get("key")) for entry in of_record if entry.get("kind") in VALUES}
                writer.write_values(record, {key for key in keys if newest.get(key, seq) <= seq})
                if not old and any(entry.get("kind") not in VALUES for entry in of_record):
                    writer.write([record], self._stop.is_set, is_last_try=True)
            left = self.rejected.entries()
        finally:
            self.rejected.replace(left)
            self.shipped.save()
        return len(set(records) - {entry.get("seq") for entry in left})

    def _find_rejected(self, entries: Sequence[Entry]) -> tuple[dict[int, Record], dict[tuple[Any, Any], int]]:
        """Return the records of entries by `seq`, and the last `seq` of tags (run, key) and of states (op, run)."""
        wanted = {entry.get("seq") for entry in entries}
        records: dict[int, Record] = {}
        newest: dict[tuple[Any, Any], int] = {}
        offset = 0
        while True:
            batch, offset = self.spool.read(offset, _MAX_BATCH)
            if not batch:
                return records, newest
            for record in batch:
                run = key_of(record.get("number"))
                newest.update({(run, key): record["seq"] for key in record.get("tags", ())})
                if record["op"] in ("open_trial", "close", "view"):
                    newest[(record["op"], run)] = record["seq"]
                if record["seq"] in wanted:
                    records[record["seq"]] = record

    def _connected(self) -> "RunWriter":
        """Return the writer; connect to the store first if there is none yet."""
        if self._writer is None:
            client = connect(self.settings)
            from ferhpo.tracking.upload.runs import RunWriter  # imports MLflow

            self.shipped.experiment_id = open_experiment(client, self.settings)
            self._writer = RunWriter(client, self.shipped.experiment_id, self.shipped, self.rejected)
        return self._writer

    def _is_last_try(self, record: Record, reason: str) -> bool:
        """Pause, and return whether the next try of a record that failed while others did not is its last one."""
        like_others = (record["op"], reason) in self._set_aside
        if like_others or self._num_tries >= len(_PAUSES_OF_A_RECORD):
            self._set_aside.add((record["op"], reason))
            return True
        self._stop.wait(_PAUSES_OF_A_RECORD[self._num_tries])
        self._num_tries += 1
        return False

    def _save_position(self, records: Sequence[Record], offset: int) -> None:
        self.last_error, self._num_failures = None, 0
        self.shipped.offset, self.shipped.seq = offset, records[-1]["seq"]
        self.shipped.save()
        with self._progress:
            self._progress.notify_all()

    def _adapt_batch_size(self, seconds: float) -> None:
        """Keep a batch within _LONG_SECONDS: the position is saved after each batch, so a kill repeats one batch."""
        if seconds > _LONG_SECONDS:
            self._batch_size = max(self._batch_size // 2, 1)
        elif seconds < _LONG_SECONDS / 4:
            self._batch_size = min(2 * self._batch_size, _MAX_BATCH)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.upload()
            except outages() as error:
                self._on_failure(reason_of(error), _outage_text(error, self.spool))
            except Exception as error:
                # The boundary of the thread: a bug must not end it, and an unhandled traceback would show passwords.
                self._on_failure(reason_of(error), redact_error(traceback.format_exc()))
            else:
                self._on_success()
            self._wake.wait(min(_PAUSE_SECONDS * 2 ** min(self._num_failures, 10), _MAX_PAUSE_SECONDS))
            self._wake.clear()
        self.spool.close()

    def _on_success(self) -> None:
        self.last_error, self._num_failures = None, 0
        if self._warned:
            log.warning("tracking: %s is available again", self.settings.shown_uri)
            self._warned = False

    def _on_failure(self, reason: str, message: str) -> None:
        self.last_error = reason
        self._num_failures += 1
        if self._num_failures > 1 and not self._warned:  # a single failed call is not an outage
            log.warning("tracking: %s: %s", self.settings.shown_uri, message)
            self._warned = True


def upload_now(spool: Spool, settings: TrackingSettings) -> int:
    """Upload a spool in the calling thread and return the number of records.

    Raises TrackingError if the store is unavailable.
    """
    shipper = Shipper(spool, settings)
    num_records, first_seq = shipper.unshipped, shipper.shipped.seq
    num_tries, seq = 0, first_seq
    while True:
        try:
            num_resolved = shipper.retry_rejected()
            shipper.upload()
        except outages() as error:
            if isinstance(error, TrackingError):
                raise
            num_tries = num_tries + 1 if shipper.shipped.seq == seq else 1
            seq = shipper.shipped.seq
            if num_tries < _NUM_TRIES:
                time.sleep(_RETRY_SECONDS)
                continue
            start = "make the store reachable" if settings.sqlite_path else "start the server"
            raise TrackingError(
                f"{spool.path}: {num_records - shipper.unshipped} of {num_records} records uploaded; "
                f"{settings.shown_uri}: {reason_of(error)}; {remedy_of(error) or start}, "
                "then run this again"
            ) from None  # the error's text may contain the password
        whole = {entry.get("seq") for entry in shipper.rejected.entries() if entry.get("kind") not in VALUES}
        return num_records + num_resolved - sum(isinstance(seq, int) and seq > first_seq for seq in whole)


def _outage_text(error: Exception, spool: Spool) -> str:
    remedy = remedy_of(error)
    return f"{reason_of(error)}{f'; {remedy}' if remedy else ''}; records are kept in {spool.path}"
