"""Where rounds are played: the warm interpreter, one Ray cluster and one MLflow server, kept up from round to round.

What a reader would get wrong: whatever is started here is ended by its process number; other people's Ray on this
machine is left alone.
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
    """Starts each of the three when it is first asked for."""

    def __init__(self):
        # Ray asks for a token that is this place's own.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        self.warm = Interpreter(**token)
        self._token = token
        self._head = self._server = self._restart = None
        self._hand = ThreadPoolExecutor(1)  # a server ends with the thread that started it
        self._port = 0

    def driver(self, arguments, log, *, is_cold=False):
        """Start `ferhpo`: as a fork of the warm interpreter, or as a fresh process with a Ray of its own."""
        if is_cold:
            return cold(arguments, log, {**os.environ, **self._token})
        return self.warm.start(*arguments, log=log)

    def address(self):
        """The cluster's address, for compute.address."""
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
        """The processes in which trials run now."""
        if isinstance(driver, warm.Fork):
            return self.warm.workers()
        return [process for process in psutil.Process(driver.pid).children(recursive=True) if is_worker(process)]

    def server(self):
        """The MLflow server, started where it is not up."""
        if self._server is None:
            folder = self.warm.folder / "server"
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
        if self._head is not None:
            end([*psutil.Process(self._head.pid).children(recursive=True), psutil.Process(self._head.pid)])
            self._head.wait()
        self.warm.close()
