"""Where rounds are played: the warm interpreter, one Ray cluster and one MLflow server, kept up from round to round.

What a reader would get wrong: whatever is started here is ended by its process number; other people's Ray on this
machine is left alone.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.faults import warm
from tests.servers import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180
WORKER = "ray::ImplicitFu"  # what a process that runs trials is called; 15 characters are kept


class Place:
    """Starts each of the three when it is first asked for."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fr-"))  # short: a socket's path has 107 characters at most
        self._warm = self._head = self._server = self._restart = None
        self._hand = ThreadPoolExecutor(1)  # a server ends with the thread that started it
        self._port = 0
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            # Ray asks for a token that is this place's own.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def driver(self, arguments, log, *, is_cold=False):
        """Start `ferhpo`: as a fork of the warm interpreter, or as a fresh process with a Ray of its own."""
        command = ["-m", "ferhpo.cli", *arguments]
        with log.open("a") as file:
            if is_cold:
                return subprocess.Popen(
                    [sys.executable, *command],
                    env=self.environment,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                )
            hooked = {**self._warm_environment(), "RAY_RUNTIME_ENV_HOOK": warm.HOOK}
            return warm.Fork(hooked[warm.ADDRESS], command, hooked, self.folder, [0, file.fileno(), file.fileno()])

    def address(self):
        """The cluster's address, for compute.address."""
        environment = self._warm_environment()
        if self._head is None:
            self._port = free_port()
            command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
            command += [f"--port={self._port}", f"--temp-dir={self.folder / 'ray'}", "--num-cpus=2", "--num-gpus=0"]
            command += ["--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats"]
            log = self.folder / "ray.txt"
            with log.open("w") as file:
                self._head = subprocess.Popen(
                    command, env=environment, stdout=file, stderr=file, start_new_session=True
                )
            _wait(lambda: "Ray runtime started" in log.read_text(), self._head, log)
        return f"127.0.0.1:{self._port}"

    def workers(self, driver):
        """The processes in which trials run now."""
        above = driver.pid if isinstance(driver, subprocess.Popen) else self._warm.pid
        return [process for process in psutil.Process(above).children(recursive=True) if _name(process) == WORKER]

    def server(self):
        """The MLflow server, started where it is not up."""
        if self._server is None:
            folder = self.folder / "server"
            folder.mkdir()
            self._server = Server(folder)
        self.wait_for_server()
        if self._server.process is None:
            self._server.start()
        return self._server.url

    def kill_server(self, pause_seconds):
        """Kill the server now and start it again after a pause, while the round goes on."""
        self.wait_for_server()
        self._server.stop()
        self._restart = self._hand.submit(lambda: (time.sleep(pause_seconds), self._server.start()))

    def freeze_server(self, pause_seconds):
        """Stop the server for a while, connections open, as an overloaded machine does."""
        self.wait_for_server()
        server = psutil.Process(self._server.process.pid)
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            process.suspend()
        self._restart = self._hand.submit(
            lambda: (time.sleep(pause_seconds), [process.resume() for process in processes])
        )

    def wait_for_server(self):
        """Wait until a server that was killed or stopped is back."""
        if self._restart is not None:
            restart, self._restart = self._restart, None
            restart.result()

    def close(self):
        """End everything, by its number."""
        self.wait_for_server()
        self._hand.shutdown()
        if self._server is not None:
            self._server.stop()
        for process in (self._head, self._warm):
            if process is not None:
                end([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _warm_environment(self):
        path = str(self.folder / "warm")
        if self._warm is None:
            log = self.folder / "warm.txt"
            with log.open("w") as file:
                self._warm = subprocess.Popen(
                    [sys.executable, warm.__file__, path],
                    env=self.environment,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            _wait(lambda: log.read_text().endswith("warm\n"), self._warm, log)
        return {**self.environment, warm.ADDRESS: path}


def end(processes):
    """Kill processes that are still there."""
    for process in processes:
        if process.is_running():  # knows its process from a later one of the same number
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def _wait(holds, process, log):
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _name(process):
    try:
        return process.name()[: len(WORKER)]
    except psutil.NoSuchProcess:
        return ""
