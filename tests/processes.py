"""Start processes for tests: `ferhpo` commands and Ray's workers, as forks of a warm interpreter (warm.py).

Note: everything that is started here is killed by its process id. Ray processes of other users on this machine are not
touched.
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
WORKER = "ray::ImplicitFu"  # the name of a process that runs trials; the kernel keeps 15 characters


def cold(arguments, log, environment=None):
    """Start `ferhpo` as a new process, as a user does."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ferhpo.cli", *map(str, arguments)],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
            # If the tests run in the background of a shell, SIGINT is ignored, and a child process would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


class Interpreter:
    """The warm interpreter, which starts when it is first needed.

    environment: variables that make Ray fork its workers from it, for every process that starts or joins a Ray
    """

    def __init__(self, **variables):
        self.folder = Path(tempfile.mkdtemp(prefix="fr-"))  # short: a socket's path has 107 characters at most
        self._process = None
        self._variables = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            **variables,
        }

    @property
    def environment(self):
        address = str(self.folder / "warm")
        if self._process is None:
            log = self.folder / "warm.txt"
            with log.open("w") as file:
                self._process = subprocess.Popen(
                    [sys.executable, warm.__file__, address],
                    env={**os.environ, **self._variables},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            wait(lambda: log.read_text().endswith("warm\n"), self._process, log)
        return {**self._variables, warm.ADDRESS: address, "RAY_RUNTIME_ENV_HOOK": warm.HOOK}

    def start(self, *arguments, log, **environment):
        """Start `ferhpo` as a fork; its output is appended to the file `log`."""
        variables = {**os.environ, **self.environment, **environment}
        with log.open("a") as file:
            command = ["-m", "ferhpo.cli", *map(str, arguments)]
            return warm.Fork(variables[warm.ADDRESS], command, variables, Path.cwd(), [0, file.fileno(), file.fileno()])

    def run(self, *arguments, log, timeout=300, **environment):
        """Start `ferhpo` as a fork, wait for its end and return its exit status."""
        driver = self.start(*arguments, log=log, **environment)
        try:
            return driver.wait(timeout)
        finally:
            driver.kill()

    def workers(self):
        """Return the processes in which trials run now."""
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
    """Kill those processes that still run."""
    for process in processes:
        if process.is_running():  # False if the process id was reused
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def wait(holds, process, log):
    """Wait until `holds` returns True. Fails with the content of `log` if the process ends or the time is up."""
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
