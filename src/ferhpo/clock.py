"""Tell the time of events such that it never runs backward."""

import threading
import time
from collections.abc import Callable


class Clock:
    """Return the system's time, but never an earlier one than before.

    If the system's clock is set back, time continues from the last event by what has passed since.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns, self._steady_ns = wall_ns, steady_ns
        self._last_ns, self._last_steady_ns = 0, steady_ns()
        self._lock = threading.Lock()

    def not_before(self, ns: int) -> None:
        """Start from the time of an earlier event, e.g. one that another machine recorded."""
        with self._lock:
            if ns > self._last_ns:
                self._last_ns, self._last_steady_ns = ns, self._steady_ns()

    def now_ns(self) -> int:
        """Return the nanoseconds since 1970."""
        with self._lock:
            steady_ns = self._steady_ns()
            self._last_ns = max(self._wall_ns(), self._last_ns + steady_ns - self._last_steady_ns)
            self._last_steady_ns = steady_ns
            return self._last_ns
