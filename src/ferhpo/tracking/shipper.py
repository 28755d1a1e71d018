"""Ships a spool to MLflow, in a thread of its own. A store that is away is one warning, and never an exception."""

import logging
import threading
import time
from typing import TYPE_CHECKING

from ferhpo.errors import TrackingError
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import Shipped, Spool
from ferhpo.tracking.store import connect, open_experiment, reason_of

if TYPE_CHECKING:
    from ferhpo.tracking.runs import RunWriter

log = logging.getLogger("ferhpo.tracking")

_CHUNK_RECORDS = 1000
_PAUSE_SECONDS = 1.0  # records of a second go together
_FIRST_BACK_OFF_SECONDS, _LAST_BACK_OFF_SECONDS = 1.0, 60.0
_PATIENCE_SECONDS = 15.0  # of flush with a store that does not answer: enough for a server that is started again
_ASK_AGAIN_SECONDS = 2.0


class Shipper:
    """Reads a spool from where shipping came and writes it to the store."""

    def __init__(self, spool: Spool, settings: TrackingSettings) -> None:
        self.spool = spool
        self.settings = settings
        self.shipped = Shipped.load(spool.folder, settings.shown_uri, settings.experiment)
        if self.shipped.seq > spool.last_seq:  # not the spool that this note was written for
            self.shipped = Shipped(self.shipped.path, settings.shown_uri, settings.experiment)
        self.last_error: str | None = None
        self._writer: RunWriter | None = None
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._progress = threading.Condition()

    @property
    def unshipped(self) -> int:
        """Records that are not in the store yet."""
        return self.spool.last_seq - self.shipped.seq

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once is enough."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ferhpo-shipper", daemon=True)
            self._thread.start()

    def flush(self, timeout_seconds: float) -> int:
        """Ship now, wait until all is shipped or the time is over; returns what is left. A store that is away is asked
        again every two seconds, and for 15 seconds at most."""
        begin = time.monotonic()
        asked = 0.0
        with self._progress:
            while self.unshipped and self.alive and (passed := time.monotonic() - begin) < timeout_seconds:
                if self.last_error is not None and passed > _PATIENCE_SECONDS:
                    break
                if not asked or time.monotonic() - asked > _ASK_AGAIN_SECONDS:
                    self._wanted.set()
                    asked = time.monotonic()
                self._progress.wait(min(timeout_seconds - passed, 0.5))
        return self.unshipped

    def stop(self, timeout_seconds: float) -> bool:
        """Ask the thread to end, wait for it; returns whether it did."""
        self._stop.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        return not self.alive

    def ship(self) -> None:
        """Ship everything that stands in the spool. Raises what the store raises."""
        if self._writer is None:
            from ferhpo.tracking.runs import RunWriter  # imports MLflow

            client = connect(self.settings)
            self.shipped.experiment_id = open_experiment(client, self.settings)
            self._writer = RunWriter(client, self.shipped.experiment_id, self.shipped)
        while not self._stop.is_set():
            records, offset = self.spool.read(self.shipped.offset, _CHUNK_RECORDS)
            if not records:
                return
            self._writer.write(records)
            self.spool.sync_to_disk()
            self._answered()
            self.shipped.offset, self.shipped.seq = offset, records[-1]["seq"]
            self.shipped.save()
            with self._progress:
                self._progress.notify_all()

    def _answered(self) -> None:
        if self.last_error is not None:
            log.warning("tracking: %s answers again", self.settings.shown_uri)
            self.last_error = None

    def _run(self) -> None:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._loop((MlflowException, SQLAlchemyError, OSError, TrackingError, ImportError))
        finally:
            if not self._stop.is_set():  # a fault of ours: Python prints its traceback
                self.last_error = "shipping ended with an error; `ferhpo sync NAME` tries again"

    def _loop(self, outages: tuple[type[Exception], ...]) -> None:
        back_off_seconds = _FIRST_BACK_OFF_SECONDS
        while not self._stop.is_set():
            try:
                self.ship()
            except outages as error:
                if self.last_error is None:
                    log.warning(
                        "tracking: %s: %s; records wait in %s",
                        self.settings.shown_uri,
                        reason_of(error),
                        self.spool.path,
                    )
                self.last_error = reason_of(error)
                pause_seconds = back_off_seconds
                back_off_seconds = min(2 * back_off_seconds, _LAST_BACK_OFF_SECONDS)
            else:
                self._answered()
                pause_seconds, back_off_seconds = _PAUSE_SECONDS, _FIRST_BACK_OFF_SECONDS
            self._wanted.wait(pause_seconds)
            self._wanted.clear()


def ship_now(spool: Spool, settings: TrackingSettings) -> int:
    """Ship a spool in the calling thread, return how many records went. Raises TrackingError if the store is away."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    shipper = Shipper(spool, settings)
    num_waiting = shipper.unshipped
    try:
        shipper.ship()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"{spool.path}: {num_waiting - shipper.unshipped} records shipped, {shipper.unshipped} wait; "
            f"{settings.shown_uri}: {reason_of(error)}; start the server and run this again"
        ) from error
    return num_waiting
