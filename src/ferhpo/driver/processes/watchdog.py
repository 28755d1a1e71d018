"""Write the stack trace of a hanging trial to a file next to its checkpoints, for the driver to report.

faulthandler writes from a C thread, so it works even if a call never releases the GIL. Note: the worker only writes the
trace; the driver kills the worker. A process that is stopped, or blocked in the kernel, writes nothing and is killed
all the same.
"""

import faulthandler
import re
from contextlib import suppress
from pathlib import Path
from typing import IO

TRACE = "hanging.txt"


class Watch:
    """Write a stack trace if `timeout_seconds` pass between `start` and `stop`; never if it is None."""

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
            except OSError:  # then the checkpoint cannot be written either, and that error says what to do
                return
        faulthandler.dump_traceback_later(self.timeout_seconds, file=self._file)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.stop()
        if self._file is not None:
            with suppress(OSError):  # the disk's refusal is reported with the checkpoint
                self._file.close()
                self.path.unlink(missing_ok=True)


def trace_of(folder: Path) -> str:
    """Return the stack trace of the thread that trains, innermost call first; empty if none was written."""
    path = folder / TRACE
    if not path.exists():
        return ""
    threads = re.split(r"^(?:Current thread|Thread) 0x.*\n", path.read_text(), flags=re.MULTILINE)
    return next((thread.strip() for thread in threads if " in worker_trial" in thread), "")
