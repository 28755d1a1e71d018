"""A notice to stop: ctrl-C, or the SIGTERM that a cluster sends some time before it kills.

The first signal lets what runs come to the end of its epoch, within a grace; a second one, or the end of the grace,
stops at once. What a reader would get wrong: handlers belong to the main thread and to the process; elsewhere, as in a
sweep that a program runs in a thread of its own, nothing is heard here.
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
    """While it is open, hears SIGINT and SIGTERM.

    grace_seconds: between the first signal and `at_once`; 0 has no grace
    on_notice: called at the first signal; at_once: at the second, or when the grace is over
    Both are called in the main thread, between two of its instructions. A third signal is a KeyboardInterrupt.
    """

    def __init__(
        self,
        grace_seconds: float,
        on_notice: Callable[[], None] = lambda: None,
        at_once: Callable[[], None] = interrupt,
    ) -> None:
        self.grace_seconds, self.on_notice, self.at_once = grace_seconds, on_notice, at_once
        self.num_heard = 0
        # When the time is over, the signal is sent once more.
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
            text = f"stopping: running epochs may end within {self.grace_seconds:g} s; ctrl-C again stops at once\n"
            os.write(2, text.encode())  # a handler may have come in the middle of another write
            self._timer.start()
        elif self.num_heard <= 2:
            self._timer.cancel()
            self.at_once()
        else:
            interrupt()
