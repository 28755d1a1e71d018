"""Notice within seconds that the head of the Ray cluster is gone.

Ray itself waits a minute without a word, and then aborts the process, so that nothing is recorded. Note: only the
connection is tested, so a head that is overloaded and slow is not taken for a lost one.
"""

import ctypes
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

INTERVAL_SECONDS = 1.0
CONNECT_SECONDS = 3.0
STUCK_SECONDS = 2.0  # for the thread to leave a call of Ray's
NUM_MISSES = 4  # in a row; a head that is restarted by its supervisor may be back before


class HeadLost(BaseException):
    """The head is gone. Not an Exception: Ray Tune would catch it, and then wait for the head."""


def unreachable(address: str) -> str:
    """Return why nothing answers at HOST:PORT; empty if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


class HeadWatch:
    """Raise HeadLost in the thread that entered the `with` block when the head no longer answers.

    address: HOST:PORT of Ray's control server
    last_resort: called in a thread of the watch if that does not end the block, because the thread waits for the head
        in a call of Ray's that no signal ends; it must end the process
    reason: why the head was given up
    """

    def __init__(
        self,
        address: str,
        last_resort: Callable[[], None],
        unreachable: Callable[[str], str] = unreachable,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self.address, self.unreachable, self.interval_seconds = address, unreachable, interval_seconds
        self.last_resort, self.reason = last_resort, ""
        self._is_ending = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="ray-head")

    def __enter__(self) -> "HeadWatch":
        self._watched = threading.current_thread()
        self._is_main = self._watched is threading.main_thread()
        if self._is_main:
            self._before = signal.signal(signal.SIGUSR2, self._raise)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if self._is_main:
            signal.signal(signal.SIGUSR2, self._before)

    def _watch(self) -> None:
        num_misses = 0
        while not self._done.wait(self.interval_seconds):
            reason = self.unreachable(self.address)
            num_misses = num_misses + 1 if reason else 0
            if num_misses == NUM_MISSES and not self._done.is_set():
                self.reason = reason
                self._interrupt()
                if not self._done.wait(STUCK_SECONDS):
                    self._is_ending = True
                    self.last_resort()
                return

    def _interrupt(self) -> None:
        ident = self._watched.ident
        assert ident is not None
        if self._is_main:
            signal.pthread_kill(ident, signal.SIGUSR2)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(HeadLost))

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._is_ending:  # nothing else may run now
            threading.Event().wait()
        if self.reason:
            raise HeadLost
