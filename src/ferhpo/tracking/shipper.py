"""The shipper: a thread that uploads a spool to MLflow. An unreachable store causes one warning, never an exception."""

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferhpo.errors import TrackingError
from ferhpo.tracking.secrets import redact_error
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import Record, Shipped, Spool
from ferhpo.tracking.store import connect, open_experiment, outages, reason_of

if TYPE_CHECKING:
    from ferhpo.tracking.runs import RunWriter

log = logging.getLogger("ferhpo.tracking")

_FIRST_BATCH, _MAX_BATCH = 250, 1000  # records
_LONG_SECONDS = 20.0  # a batch that takes longer halves the next one
_NUM_TRIES, _RETRY_SECONDS = 5, 0.5  # of upload_now, without any record uploaded in between
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 60.0  # between uploads; doubled with each failure in a row
_PATIENCE_SECONDS = 15.0  # how long flush waits for a store that does not respond: enough for a server to restart
_WAKE_SECONDS = 2.0  # how often flush wakes the thread


class Shipper:
    """Read a spool from the position of the last upload and write it to the store."""

    def __init__(self, spool: Spool, settings: TrackingSettings) -> None:
        self.spool = spool
        self.settings = settings
        self.shipped = Shipped.load(spool.folder, settings.shown_uri, settings.experiment)
        if self.shipped.seq > spool.last_seq:  # the position belongs to another spool
            self.shipped = Shipped(self.shipped.path, settings.shown_uri, settings.experiment)
        self.last_error: str | None = None
        self._batch_size = _FIRST_BATCH
        self._num_failures = 0  # since the last upload
        self._warned = False
        self._writer: RunWriter | None = None
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
        if self._writer is None:
            client = connect(self.settings)
            from ferhpo.tracking.runs import RunWriter  # imports MLflow

            self.shipped.experiment_id = open_experiment(client, self.settings)
            self._writer = RunWriter(client, self.shipped.experiment_id, self.shipped)
        while not self._stop.is_set():
            records, offset = self.spool.read(self.shipped.offset, self._batch_size)
            if not records:
                return
            began = time.monotonic()
            self.spool.sync_to_disk()  # before the upload, so that after a power failure the store is never ahead
            try:
                if not self._writer.write(records, self._stop.is_set):
                    return
            except outages():
                # A store that fails at every tenth call accepts a batch of a few records, but never one of hundreds.
                self._batch_size = max(self._batch_size // 8, 1)
                self.shipped.save()  # with the runs that were created
                raise
            self._save_position(records, offset)
            self._adapt_batch_size(time.monotonic() - began)

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
                self._on_failure(reason_of(error), f"{reason_of(error)}; records are kept in {self.spool.path}")
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
    num_records = shipper.unshipped
    num_tries, seq = 0, shipper.shipped.seq
    while True:
        try:
            shipper.upload()
        except outages() as error:
            if isinstance(error, TrackingError):
                raise
            num_tries = num_tries + 1 if shipper.shipped.seq == seq else 1
            seq = shipper.shipped.seq
            if num_tries < _NUM_TRIES:
                time.sleep(_RETRY_SECONDS)
                continue
            raise TrackingError(
                f"{spool.path}: {num_records - shipper.unshipped} of {num_records} records uploaded; "
                f"{settings.shown_uri}: {reason_of(error)}; start the server, then run this again"
            ) from None  # the error's text may contain the password
        return num_records
