"""End what is left of Ray when the driver was killed.

Linux ends Ray's servers together with the driver (PR_SET_PDEATHSIG), but two agents of the node stay for a minute,
because they try to report to the server that is gone. Note: nothing runs in a process that gets SIGKILL, so a small
process of its own waits for the driver's end.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

# Run by a bare interpreter, so it imports only what starts at once. It notes the children of the raylet, because the
# kernel forgets whose children they were; what they started has the raylet's process id in its environment, which a
# process that sets its title may have overwritten.
_CODE = """
import os, signal, sys, time
driver, raylets = int(sys.argv[1]), sys.argv[2:]
marks = {b"RAY_RAYLET_PID=" + pid.encode() for pid in raylets}
noted = {}

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""

def started(pid):  # tells a process from a later one with the same id
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19:20]

def note():
    for raylet in raylets:
        try:
            threads = os.listdir(f"/proc/{raylet}/task")
        except OSError:
            continue
        for thread in threads:
            for pid in map(int, read(f"/proc/{raylet}/task/{thread}/children").split()):
                noted.setdefault(pid, started(pid))

def left():
    found = {pid for pid, begun in noted.items() if begun and started(pid) == begun}
    for name in os.listdir("/proc"):
        if name.isdecimal() and marks & set(read(f"/proc/{name}/environ").split(b"\\0")):
            found.add(int(name))
    return found

signal.signal(signal.SIGPIPE, signal.SIG_IGN)
ticks = 0
while os.getppid() == driver:
    if ticks % 10 == 0:
        note()
    if ticks == 0:
        try:
            os.write(1, b"noted\\n")  # nobody reads it, except tests
        except OSError:
            pass
    ticks += 1
    time.sleep(0.5)
time.sleep(1.0)  # for those that end by themselves
for _ in range(10):
    for pid in left():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.2)
"""


class Reaper:
    """Kill the processes of these raylets about a second after this process has ended without `close`."""

    def __init__(self, raylets: Sequence[int]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not raylets or not Path("/proc/self").is_dir():
            return
        command = [sys.executable, "-I", "-S", "-c", _CODE, str(os.getpid()), *map(str, raylets)]
        quiet = subprocess.DEVNULL
        # In a session of its own: Ctrl-C reaches every process of the terminal's.
        with suppress(OSError):
            self._process = subprocess.Popen(
                command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, start_new_session=True, cwd="/"
            )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def child_raylets() -> list[int]:
    """Return the process ids of the raylets that this process has started."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if process.name() == "raylet":
                found.append(process.pid)
    return found
