"""Ships a spool to MLflow, in a thread of its own. A store that is away is one warning, and never an exception."""

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

_FIRST_RECORDS, _MAX_RECORDS = 250, 1000  # that go together
_LONG_SECONDS = 20.0  # for what goes together: then less does
_NUM_TRIES, _TRY_AGAIN_SECONDS = 5, 0.5  # of `ferhpo sync`, without getting any further
_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 1.0, 60.0  # records of a second go together; doubled while the store is away
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
        self._num_at_once = _FIRST_RECORDS
        self._num_failures = 0  # since something was shipped
        self._warned = False
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
                if self._num_failures > 1 and passed > _PATIENCE_SECONDS:
                    break
                if not asked or time.monotonic() - asked > _ASK_AGAIN_SECONDS:
                    self._wanted.set()
                    asked = time.monotonic()
                self._progress.wait(min(timeout_seconds - passed, 0.5))
        return self.unshipped

    def close(self, timeout_seconds: float) -> None:
        """Ask the thread to end, and wait for it; whichever comes last, it or this, lets go of the spool."""
        self._stop.set()
        self._wanted.set()
        if self._thread is None:
            self.spool.close()
        else:
            self._thread.join(timeout_seconds)

    def ship(self) -> None:
        """Ship everything that stands in the spool. Raises what the store raises."""
        if self._writer is None:
            client = connect(self.settings)
            from ferhpo.tracking.runs import RunWriter  # imports MLflow

            self.shipped.experiment_id = open_experiment(client, self.settings)
            self._writer = RunWriter(client, self.shipped.experiment_id, self.shipped)
        while not self._stop.is_set():
            records, offset = self.spool.read(self.shipped.offset, self._num_at_once)
            if not records:
                return
            began = time.monotonic()
            self.spool.sync_to_disk()  # before the store has them: a loss of power never leaves it ahead of the file
            try:
                if not self._writer.write(records, self._stop.is_set):
                    return
            except outages():
                # Less at once: a store that fails at every tenth call takes a few records, and never hundreds.
                self._num_at_once = max(self._num_at_once // 8, 1)
                self.shipped.save()  # the runs that were made meanwhile
                raise
            self._note(records, offset)
            self._suit_pace(time.monotonic() - began)

    def _note(self, records: Sequence[Record], offset: int) -> None:
        self.last_error, self._num_failures = None, 0
        self.shipped.offset, self.shipped.seq = offset, records[-1]["seq"]
        self.shipped.save()
        with self._progress:
            self._progress.notify_all()

    def _suit_pace(self, seconds: float) -> None:
        """As many at once as go within seconds: what was shipped is noted behind them, and a kill repeats the rest."""
        if seconds > _LONG_SECONDS:
            self._num_at_once = max(self._num_at_once // 2, 1)
        elif seconds < _LONG_SECONDS / 4:
            self._num_at_once = min(2 * self._num_at_once, _MAX_RECORDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.ship()
            except outages() as error:
                self._failed(reason_of(error), f"{reason_of(error)}; records wait in {self.spool.path}")
            except Exception as error:
                # The thread's boundary: a fault of ours must not end it, and Python's own traceback shows passwords.
                self._failed(reason_of(error), redact_error(traceback.format_exc()))
            else:
                self._answered()
            self._wanted.wait(min(_PAUSE_SECONDS * 2 ** min(self._num_failures, 10), _LAST_PAUSE_SECONDS))
            self._wanted.clear()
        self.spool.close()

    def _answered(self) -> None:
        self.last_error, self._num_failures = None, 0
        if self._warned:
            log.warning("tracking: %s answers again", self.settings.shown_uri)
            self._warned = False

    def _failed(self, reason: str, words: str) -> None:
        self.last_error = reason
        self._num_failures += 1
        if self._num_failures > 1 and not self._warned:  # one call that fails is no outage
            log.warning("tracking: %s: %s", self.settings.shown_uri, words)
            self._warned = True


def ship_now(spool: Spool, settings: TrackingSettings) -> int:
    """Ship a spool in the calling thread, return how many records went. Raises TrackingError if the store is away."""
    shipper = Shipper(spool, settings)
    num_waiting = shipper.unshipped
    num_tries, seq = 0, shipper.shipped.seq
    while True:
        try:
            shipper.ship()
        except outages() as error:
            if isinstance(error, TrackingError):
                raise
            num_tries = num_tries + 1 if shipper.shipped.seq == seq else 1
            seq = shipper.shipped.seq
            if num_tries < _NUM_TRIES:
                time.sleep(_TRY_AGAIN_SECONDS)
                continue
            raise TrackingError(
                f"{spool.path}: {num_waiting - shipper.unshipped} records shipped, {shipper.unshipped} wait; "
                f"{settings.shown_uri}: {reason_of(error)}; start the server and run this again"
            ) from None  # its text shows the password
        return num_waiting
