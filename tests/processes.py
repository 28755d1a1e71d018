"""The processes that tests start: `ferhpo` commands and Ray's workers, as forks of a warm interpreter (warm.py).

What a reader would get wrong: whatever is started here is ended by its process number; other people's Ray on this
machine is left alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests import warm

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180
WORKER = "ray::ImplicitFu"  # what a process that runs trials is called; 15 characters are kept


def cold(arguments, log, environment=None):
    """Start `ferhpo` as a fresh process, as a user does."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ferhpo.cli", *map(str, arguments)],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
            # Where the tests run in the background of a shell, SIGINT is ignored, and a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


class Interpreter:
    """The warm interpreter, which starts when it is first needed.

    environment: what hands workers to it, for every process that starts or joins a Ray
    """

    def __init__(self, **given):
        self.folder = Path(tempfile.mkdtemp(prefix="fr-"))  # short: a socket's path has 107 characters at most
        self._process = None
        self._given = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            **given,
        }

    @property
    def environment(self):
        address = str(self.folder / "warm")
        if self._process is None:
            log = self.folder / "warm.txt"
            with log.open("w") as file:
                self._process = subprocess.Popen(
                    [sys.executable, warm.__file__, address],
                    env={**os.environ, **self._given},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            wait(lambda: log.read_text().endswith("warm\n"), self._process, log)
        return {**self._given, warm.ADDRESS: address, "RAY_RUNTIME_ENV_HOOK": warm.HOOK}

    def start(self, *arguments, log, **environment):
        """Start `ferhpo` as a fork; its output is added to the file `log`."""
        hooked = {**os.environ, **self.environment, **environment}
        with log.open("a") as file:
            command = ["-m", "ferhpo.cli", *map(str, arguments)]
            return warm.Fork(hooked[warm.ADDRESS], command, hooked, Path.cwd(), [0, file.fileno(), file.fileno()])

    def run(self, *arguments, log, timeout=300, **environment):
        """Start `ferhpo` as a fork and wait for its end; returns its exit status."""
        driver = self.start(*arguments, log=log, **environment)
        try:
            return driver.wait(timeout)
        finally:
            driver.kill()

    def workers(self):
        """The processes in which trials run now."""
        assert self._process is not None
        return [process for process in psutil.Process(self._process.pid).children(recursive=True) if is_worker(process)]

    def close(self):
        if self._process is not None:
            end([*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)])
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_worker(process):
    try:
        return process.name()[: len(WORKER)] == WORKER
    except psutil.NoSuchProcess:
        return False


def end(processes):
    """Kill processes that are still there."""
    for process in processes:
        if process.is_running():  # knows its process from a later one of the same number
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def wait(holds, process, log):
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
