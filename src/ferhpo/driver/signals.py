"""Handle a request to stop: Ctrl-C, or the SIGTERM that a cluster sends some time before SIGKILL.

The first signal lets running epochs finish, within a grace period. A second one, or the end of the grace period, stops
at once. Note: Python runs signal handlers in the main thread only. A sweep that a program runs in another thread
handles no signals here.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interrupt() -> None:
    raise KeyboardInterrupt


class StopNotice:
    """Handle SIGINT and SIGTERM within a `with` block.

    grace_seconds: between the first signal and `at_once`; 0 for no grace period
    on_notice: called at the first signal; at_once: at the second, or when the grace period is over
    Both are called in the main thread, between two of its instructions. A third signal raises KeyboardInterrupt.
    """

    def __init__(
        self,
        grace_seconds: float,
        on_notice: Callable[[], None] = lambda: None,
        at_once: Callable[[], None] = interrupt,
    ) -> None:
        self.grace_seconds, self.on_notice, self.at_once = grace_seconds, on_notice, at_once
        self.num_heard = 0
        # At the end of the grace period, the signal is sent again.
        self._timer = threading.Timer(grace_seconds, os.kill, (os.getpid(), signal.SIGTERM))
        self._timer.daemon = True

    @property
    def is_given(self) -> bool:
        return self.num_heard > 0

    def __enter__(self) -> "StopNotice":
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        if self._is_main:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.num_heard += 1
        if self.num_heard == 1:
            self.on_notice()
        if self.num_heard == 1 and self.grace_seconds > 0:
            text = (
                f"stopping: waiting up to {self.grace_seconds:g} s for running epochs; press Ctrl-C again to stop now\n"
            )
            os.write(2, text.encode())  # not print: the handler may interrupt another write
            self._timer.start()
        elif self.num_heard <= 2:
            self._timer.cancel()
            self.at_once()
        else:
            interrupt()
