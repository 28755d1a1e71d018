"""A Ray cluster whose head dies ends the sweep within seconds; Ray's processes end with a driver that was killed."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import psutil
import pytest

import ferhpo
from ferhpo.driver.processes.head import NUM_MISSES, HeadLost, HeadWatch, unreachable
from ferhpo.driver.processes.reaper import Reaper
from ferhpo.errors import FerhpoError
from tests.faults.place import Place
from tests.processes import cold, end, wait

QUICK = {"interval_seconds": 0.02}


def test_a_head_that_is_gone_raises_in_the_thread_that_watches():
    with pytest.raises(HeadLost), HeadWatch("there", pytest.fail, lambda address: "Connection refused", **QUICK) as it:
        time.sleep(20)
    assert it.reason == "Connection refused"
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_it_raises_in_another_thread_too():
    caught = []

    def work():
        try:
            with HeadWatch("there", pytest.fail, lambda address: "down", **QUICK):
                for _ in range(2000):
                    time.sleep(0.01)
        except HeadLost as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert caught


def test_a_head_that_comes_back_in_time_is_not_lost():
    answers = iter(["down"] * (NUM_MISSES - 1) + [""] + ["down"] * (NUM_MISSES - 1))
    asked = []
    with HeadWatch("there", pytest.fail, lambda address: asked.append(1) or next(answers, ""), **QUICK):
        while len(asked) < 3 * NUM_MISSES:
            time.sleep(0.01)


def test_a_thread_that_hangs_in_a_call_is_ended_by_the_last_resort(monkeypatch):
    monkeypatch.setattr("ferhpo.driver.processes.head.STUCK_SECONDS", 0.1)
    monkeypatch.setattr(HeadWatch, "_interrupt", lambda watch: None)  # as for a call that no signal ends
    called = threading.Event()
    with HeadWatch("there", called.set, lambda address: "down", **QUICK) as watch:
        assert called.wait(20)
    assert watch.reason == "down"


def test_an_address_that_answers_and_one_that_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"127.0.0.1:{server.getsockname()[1]}") == ""
    assert unreachable("127.0.0.1:9") == "Connection refused"
    assert unreachable("no-such-host.invalid:6379")


DRIVER = """
import os, subprocess, sys, time
from ferhpo.driver.processes.reaper import Reaper
raylet = 4194300 + int(sys.argv[1])  # a process id that no process has
child = subprocess.Popen(["sleep", "60"], env={**os.environ, "RAY_RAYLET_PID": str(raylet)}, start_new_session=True)
other = subprocess.Popen(["sleep", "60"], start_new_session=True)
code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
agent = int(parent.stdout.readline())
reaper = Reaper([raylet, parent.pid])  # `parent` ends with the driver, as a raylet does; its child does not
reaper._process.stdout.readline()
print(child.pid, agent, other.pid, reaper._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.full
def test_what_a_killed_driver_leaves_of_ray_ends_soon_and_nothing_else(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, "1"], stdout=subprocess.PIPE, text=True)
    child, agent, other, reaper = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
    try:
        assert is_alive(child)
        assert is_alive(agent)
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 30
        while any(map(is_alive, (child, agent, reaper))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert is_alive(other)
    finally:
        end([child, agent, other, reaper])


def test_the_reaper_ends_with_its_close_and_needs_no_raylet():
    Reaper([]).close()
    reaper = Reaper([4194303])
    process = psutil.Process(reaper._process.pid)
    reaper.close()
    assert not is_alive(process)
    assert is_alive(psutil.Process(os.getpid()))


def is_alive(process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.full
def test_a_sweep_whose_cluster_loses_its_head_ends_soon_with_its_message(tmp_path):
    place, log = Place(), tmp_path / "log.txt"
    arguments = [
        "num_trials=4",
        "trainer.max_epochs=500",
        "data.num_train=64",
        "data.num_val=32",
        "compute.num_cpus=null",
    ]
    try:
        arguments += [f"output_dir={tmp_path}", f"compute.address={place.address()}"]
        driver = place.driver(["sweep", "demo", *arguments], log, is_cold=True)
        wait(lambda: has_epochs(tmp_path), driver, log)
        head = psutil.Process(place._head.pid)
        processes = [*head.children(recursive=True), head]
        end(processes)
        assert driver.wait(30) == 4, log.read_text()
    finally:
        place.close()
    assert log.read_text().count("the head of the Ray cluster no longer answers at") == 1
    assert "restart the cluster, then resume with `ferhpo sweep --resume demo" in log.read_text()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        runs = store.execute("SELECT status, end_time IS NOT NULL FROM runs").fetchall()
    assert len(runs) >= 2
    assert set(runs) == {("FAILED", 1)}


@pytest.mark.full
def test_no_process_of_ray_outlives_a_killed_driver_by_more_than_seconds(tmp_path):
    log = tmp_path / "log.txt"
    arguments = ["num_trials=4", "trainer.max_epochs=500", "data.num_train=64", "data.num_val=32", "tracking=none"]
    driver = cold(["sweep", "demo", *arguments, f"output_dir={tmp_path}"], log)
    left = []
    try:
        wait(lambda: has_epochs(tmp_path), driver, log)
        left = psutil.Process(driver.pid).children(recursive=True)
        assert {"ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= {process.name() for process in left}
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 8
        while any(map(is_alive, left)):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    finally:
        driver.kill()
        end(left)


def has_epochs(folder) -> bool:
    try:
        return any(trial.epochs for trial in ferhpo.load_sweep("demo", folder).trials())
    except FerhpoError:
        return False
