"""An interpreter that has imported torch, Lightning and MLflow, and forks: a driver or a worker starts in no time.

A sweep and its resume start half a dozen processes, each of which would import for ten seconds. What runs in a fork is
what would run in a fresh process, argument by argument. What a reader would get wrong: Ray is not among the imports,
because it reads the environment while it is imported; and this program has no threads and has initialised nothing, or
a fork of it would be no clean start. So each request gets a process of its own that waits for the fork's end.
"""

import array
import contextlib
import faulthandler
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ADDRESS = "FERHPO_WARM_INTERPRETER"  # the path of the socket, in the environment of drivers and of the cluster
HOOK = "tests.warm.warm_workers"  # for RAY_RUNTIME_ENV_HOOK
IMPORTS = ("ferhpo.config.validate", "ferhpo.cli.tables", "ferhpo.tuning.sweep", "ferhpo.tracking.upload.runs", "ferhpo.training.fit",
           "optuna.samplers", "cmaes", "pandas", "pyarrow.fs", "pyarrow.parquet", "requests", "aiohttp")  # fmt: skip


def serve(path):
    """Import, then fork for every request until the process is ended."""
    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries who has ended
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("warm", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()


def _answer(connection):
    """Start what is asked for, tell its process number, wait for it, and tell its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(message), files)
    connection.sendall(b"%d\n" % child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(b"%d\n" % status)
    os._exit(0)


def _become(request, files):
    """Do what a fresh Python would do with these arguments, this environment and this folder."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    faulthandler.enable()  # SIGABRT shows where a process that hangs has come to
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    status = 1
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Fork:
    """A program in a fork of the warm interpreter; has what is needed here of the interface of Popen."""

    def __init__(self, path, arguments, environment, folder, files):
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(path)
        request = {"arguments": arguments, "environment": environment, "folder": str(folder)}
        message = json.dumps(request).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        sent = self._connection.sendmsg([message], rights)
        self._connection.sendall(message[sent:])
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.returncode = None

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(self._answers.readline())
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def warm_workers(runtime_env):
    """Ray's runtime environment hook: a worker is a fork too, for which the process that Ray starts only waits."""
    return {**(runtime_env or {}), "py_executable": f"{sys.executable} -S -E {__file__} --in-a-fork"}


if __name__ == "__main__":
    if sys.argv[1] == "--in-a-fork":
        fork = Fork(os.environ[ADDRESS], sys.argv[2:], dict(os.environ), Path.cwd(), [0, 1, 2])
        sys.exit(fork.wait() % 256)
    serve(sys.argv[1])
