"""The environment of the rounds: a warm interpreter, a Ray cluster and an MLflow server, shared by all rounds.

Note: everything that is started here is killed by its process id. Ray processes of other users on this machine are not
touched.
"""

import os
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests import warm
from tests.processes import Interpreter, cold, end, is_worker, wait
from tests.servers import Server, free_port


class Place:
    """Start each of the three when it is first needed."""

    def __init__(self):
        # The cluster requires this place's own token.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        self.warm = Interpreter(**token)
        self._token = token
        self._head = self._server = self._restart = None
        self._starter = ThreadPoolExecutor(1)  # a server ends with the thread that started it
        self._port = 0

    def driver(self, arguments, log, *, is_cold=False):
        """Start `ferhpo`: as a fork of the warm interpreter, or as a new process with its own Ray."""
        if is_cold:
            return cold(arguments, log, {**os.environ, **self._token})
        return self.warm.start(*arguments, log=log)

    def address(self):
        """Return the cluster's address, for compute.address."""
        folder, environment = self.warm.folder, {**os.environ, **self.warm.environment}
        if self._head is None:
            self._port = free_port()
            command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
            command += [f"--port={self._port}", f"--temp-dir={folder / 'ray'}", "--num-cpus=2", "--num-gpus=0"]
            command += ["--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats"]
            log = folder / "ray.txt"
            with log.open("w") as file:
                self._head = subprocess.Popen(
                    command, env=environment, stdout=file, stderr=file, start_new_session=True
                )
            wait(lambda: "Ray runtime started" in log.read_text(), self._head, log)
        return f"127.0.0.1:{self._port}"

    def workers(self, driver):
        """Return the processes in which trials run now."""
        if isinstance(driver, warm.Fork):
            return self.warm.workers()
        return [process for process in psutil.Process(driver.pid).children(recursive=True) if is_worker(process)]

    def server(self):
        """Return the URL of the MLflow server; start it if it is down."""
        if self._server is None:
            folder = self.warm.folder / "server"
            folder.mkdir()
            self._server = Server(folder)
        self.wait_for_server()
        if self._server.process is None:
            self._server.start()
        return self._server.url

    def kill_server(self, pause_seconds):
        """Kill the server now and restart it after a pause, while the round continues."""
        self.wait_for_server()
        self._server.stop()
        self._restart = self._starter.submit(lambda: (time.sleep(pause_seconds), self._server.start()))

    def freeze_server(self, pause_seconds):
        """Suspend the server for a while with open connections, like an overloaded machine."""
        self.wait_for_server()
        server = psutil.Process(self._server.process.pid)
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            process.suspend()
        self._restart = self._starter.submit(
            lambda: (time.sleep(pause_seconds), [process.resume() for process in processes])
        )

    def wait_for_server(self):
        """Wait until a server that was killed or suspended runs again."""
        if self._restart is not None:
            restart, self._restart = self._restart, None
            restart.result()

    def close(self):
        """Kill everything, by process id."""
        self.wait_for_server()
        self._starter.shutdown()
        if self._server is not None:
            self._server.stop()
        if self._head is not None:
            end([*psutil.Process(self._head.pid).children(recursive=True), psutil.Process(self._head.pid)])
            self._head.wait()
        self.warm.close()
