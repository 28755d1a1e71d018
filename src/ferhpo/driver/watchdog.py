"""Where a hanging trial stands: its worker writes that beside the checkpoints, then the driver ends the worker.

faulthandler writes from a thread of C, so also of a call that never gives Python's lock back. What a reader would get
wrong: the worker only writes; one that is stopped or stuck in the kernel writes nothing, and is ended all the same.
"""

import faulthandler
import re
from pathlib import Path
from typing import IO

TRACE = "hanging.txt"


class Watch:
    """Writes where this process stands when `timeout_seconds` pass between `start` and `stop`; None: never."""

    def __init__(self, folder: Path, timeout_seconds: float | None) -> None:
        self.path, self.timeout_seconds = folder / TRACE, timeout_seconds
        self._file: IO[str] | None = None

    def start(self) -> None:
        if self.timeout_seconds is None:
            return
        if self._file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w")
            except OSError:  # a disk that refuses this refuses the checkpoint too, which says what to do
                return
        faulthandler.dump_traceback_later(self.timeout_seconds, file=self._file)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.stop()
        if self._file is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)


def trace_of(folder: Path) -> str:
    """What a watch wrote of the thread that trains, innermost call first; empty where there is nothing."""
    path = folder / TRACE
    if not path.exists():
        return ""
    threads = re.split(r"^(?:Current thread|Thread) 0x.*\n", path.read_text(), flags=re.MULTILINE)
    return next((thread.strip() for thread in threads if " in worker_trial" in thread), "")
