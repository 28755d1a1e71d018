"""Real servers for tests: PostgreSQL, MLflow over it, and a proxy that injects faults between MLflow and its client.

Each listens on 127.0.0.1, on a port of its own, and stops at the end of the block `running`. `assert_whole_in_mlflow`
checks what must hold after any fault.
"""

import base64
import ctypes
import http.client
import http.server
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

START_SECONDS = 240  # 12 on a quiet machine
PASSWORD = "s3cret-4TwH"  # part of every password here, so that tests can search files and messages for it


def free_port():
    """Return a free port that stays free while its server is down: below Linux's range for outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition, seconds=60, pause_seconds=0.1):
    """Wait until `condition()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(pause_seconds)
    assert condition()


def _end_with_parent():
    """Called in a child process: Linux interrupts it when the thread that started it ends, e.g. if pytest is killed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


class Postgres:
    """A PostgreSQL cluster with a database `ml`, owned by the user `ann`, who connects with a password.

    Skips the test if PostgreSQL is not installed.
    """

    password = f"pg-{PASSWORD}"

    def __init__(self):
        self.bin = _postgres_bin()
        self.port = free_port()
        self.process = None
        # PostgreSQL does not run as root, and another user has no access to pytest's folders.
        self.user = "postgres" if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="ferhpo-postgres-"))
        self.uri = f"postgresql+psycopg2://ann:{self.password}@127.0.0.1:{self.port}/ml"

    def start(self):
        is_new = not (self.folder / "PG_VERSION").exists()
        if is_new:
            if self.user:
                account = pwd.getpwnam(self.user)
                os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._run("initdb", "-D", self.folder, "--auth-local=trust", "--auth-host=scram-sha-256", "-U", "postgres")
        command = [self.bin / "postgres", "-D", self.folder, "-p", self.port, "-k", self.folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*map(str, command)], user=self.user, stdout=log, stderr=log, cwd="/", preexec_fn=_end_with_parent
            )
        ready = [str(self.bin / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        wait_until(lambda: subprocess.run(ready).returncode == 0, START_SECONDS)
        if is_new:
            self.sql("postgres", f"CREATE USER ann PASSWORD '{self.password}'")
            self.sql("postgres", "CREATE DATABASE ml OWNER ann")

    def stop(self):
        """Stop immediately and close all connections, as a restart of the service does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def close(self):
        self.stop()
        shutil.rmtree(self.folder)

    def sql(self, database, statement):
        self._run("psql", "-h", self.folder, "-p", self.port, "-U", "postgres", "-d", database, "-qc", statement)

    def dump(self):
        """Return the whole database as text."""
        return self._run("pg_dump", "-h", self.folder, "-p", self.port, "-U", "postgres", "ml").stdout

    def _run(self, program, *arguments):
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, user=self.user, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        return done


def _postgres_bin():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = found or [Path(path).resolve() for path in [shutil.which("initdb")] if path]
    if not found:
        pytest.skip("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb)")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return found[-1].parent


class Server:
    """An `mlflow server` over `database`, by default a SQLite file in `folder`."""

    def __init__(self, folder, database=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self.process = None

    def start(self):
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--workers", "1"],
                env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self):
        """Kill the server and its worker, as a power failure would."""
        if self.process is not None:
            family = [self.process.pid, *(p.pid for p in psutil.Process(self.process.pid).children(recursive=True))]
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    close = stop


class Proxy:
    """An HTTP proxy on loopback in front of `server`, without faults until a test sets one.

    response: None, or the (status, content type, body) of every response; the server gets no request then
    delay_seconds: delay of each response
    hold: function of (method, path) that returns the delay of a request before the server gets it, in seconds
    refuse_trial: number of a trial whose metrics get MLflow's error for invalid values
    lose: ends of paths; the next response to each is lost after the server has done the work: the connection is reset
    max_body_bytes: larger requests get status 413
    user, password: for basic authentication, if they are set
    """

    def __init__(self, server):
        self.server = server
        self.response = self.refuse_trial = self.refused_run = self.user = self.password = self.max_body_bytes = None
        self.delay_seconds, self.hold, self.lose = 0.0, lambda method, path: 0.0, []
        self.requests = Counter()  # by the end of the path
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def url_for(self, user, password):
        return f"http://{user}:{password}@127.0.0.1:{self.port}"

    def is_lost(self, path):
        """Return whether the response to a request is lost, and remove its entry from `lose`."""
        with self._lock:
            for end in self.lose:
                if path.endswith(end):
                    self.lose.remove(end)
                    return True
        return False

    def close(self):
        self._http.shutdown()
        self._http.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *args):
        pass

    def _serve(self):
        proxy, path = self.proxy, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with proxy._lock:
            proxy.requests[path.rpartition("/")[2]] += 1
        time.sleep(proxy.hold(self.command, path))
        response = self._error_response(path, body)
        if response is None:
            try:
                response = self._forward(body)
                self._find_refused_run(path, body, response)
            except (OSError, http.client.HTTPException):
                response = 502, "text/plain", b"no server"
        time.sleep(proxy.delay_seconds)
        if proxy.is_lost(path):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, content_type, content = response
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has given up
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names that http.server requires

    def _error_response(self, path, body):
        """Return the response to a request that the server does not get, else None."""
        proxy = self.proxy
        if proxy.user is not None:
            expected = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                return 401, "text/plain", b"who are you?"
        if proxy.response is not None:
            return proxy.response
        if proxy.max_body_bytes is not None and len(body) > proxy.max_body_bytes:
            return 413, "text/html", b"<html>413 Request Entity Too Large</html>"
        if path.endswith("runs/log-batch") and proxy.refused_run is not None:
            sent = json.loads(body)
            if sent["run_id"] == proxy.refused_run and sent.get("metrics"):
                error = {"error_code": "INVALID_PARAMETER_VALUE", "message": "this run's metrics are refused"}
                return 400, "application/json", json.dumps(error).encode()
        return None

    def _find_refused_run(self, path, body, response):
        """Remember the run of the trial `refuse_trial` when the server creates it."""
        proxy = self.proxy
        if proxy.refuse_trial is not None and path.endswith("runs/create") and response[0] == 200:
            mark = next(tag["value"] for tag in json.loads(body)["tags"] if tag["key"] == "ferhpo.trial")
            if mark.endswith(f"/{proxy.refuse_trial}"):
                proxy.refused_run = json.loads(response[2])["run"]["info"]["run_id"]

    def _forward(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.server.port, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "authorization")}
        connection.request(self.command, self.path, body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers.get("Content-Type", "application/json"), content


@contextmanager
def running(*servers):
    """Start servers that are not running yet, and stop all of them at the end of the block, the last one first."""
    try:
        for server in servers:
            if getattr(server, "process", True) is None:
                server.start()
        yield
    finally:
        for server in reversed(servers):
            server.close()


def assert_whole_in_mlflow(client, sweep, experiment="ferhpo", missing=()):
    """Assert that the store has what the study has: a run for each trial, each metric of each epoch once, none RUNNING.

    client: an MlflowClient; sweep: from ferhpo.load_sweep; missing: trials whose metrics the store refused
    """
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=5000)
    names = Counter(run.data.tags.get("ferhpo.trial") for run in found)
    duplicates = {name: count for name, count in names.items() if count > 1}
    assert not duplicates
    sweep_id = next(
        run.data.tags["ferhpo.sweep_id"] for run in found if run.data.tags.get("ferhpo.sweep") == sweep.name
    )
    runs = {run.data.tags["ferhpo.trial"]: run for run in found}
    trials = sweep.trials()
    own = {name for name in names if name.startswith(f"{sweep_id}/")}
    killed = {trial.number for trial in trials if trial.state == "RUNNING"}
    required = {trial.number for trial in trials if trial.number not in killed or trial.reports}
    uploaded = {int(name.split("/")[1]) for name in own - {f"{sweep_id}/parent"}}
    assert f"{sweep_id}/parent" in own
    assert required <= uploaded <= {trial.number for trial in trials}
    assert [name for name in own if runs[name].info.status == "RUNNING"] == []
    for trial in (trial for trial in trials if trial.number in uploaded):
        run = runs[f"{sweep_id}/{trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == runs[f"{sweep_id}/parent"].info.run_id
        assert run.data.tags["ferhpo.state"] == ("STOPPED" if trial.number in killed else trial.state)
        if trial.number in missing:
            assert not run.data.metrics
            continue
        unit = "fold" if trial.folds else "epoch"
        for key in {key for row in trial.reports for key in row if key != unit}:
            points = client.get_metric_history(run.info.run_id, key)
            expected = [(row[unit], row[key]) for row in trial.reports if key in row]
            assert [(point.step, point.value) for point in points] == expected, (trial.number, key)
        if trial.value is not None and trial.number not in killed:
            (best,) = client.get_metric_history(run.info.run_id, f"best_{sweep.objective.metric}")
            assert best.value == float(f"{trial.value:.5g}")
