"""Play a round: cause its faults at their moments, then resume the sweep until it ends by itself.

Note: the moments are detected by polling the files of the sweep every five milliseconds, so a fault occurs where the
round says or slightly later.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field

import psutil

import ferhpo
from ferhpo.errors import FerhpoError
from ferhpo.storage.trial_record import TrialRecord
from tests.faults.rounds import write_config
from tests.processes import end

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
STOPPED = 130
LIMIT_SECONDS = 400  # a driver that runs longer is considered to hang


@dataclass
class Played:
    """What happened in a round: the moments of its faults, the trials after each driver, the exit statuses."""

    faults: list[dict] = field(default_factory=list)
    seen: list[list[TrialRecord]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Player:
    """Play a round in a folder."""

    def __init__(self, round_, place, folder):
        self.round, self.place, self.folder = round_, place, folder
        self.sweep_folder = folder / "mlruns" / "round"
        self.log = folder / "log.txt"
        self.played = Played()
        self.children: list[psutil.Process] = []
        self.driver = None
        # Approximately how many lines an undisturbed sweep writes; shares refer to these. A scheduler leaves at most half.
        reports = round_.folds or round_.num_epochs
        reports = reports if round_.scheduler == "none" else (reports + 1) // 2
        self.expected = {"journal": round_.num_trials * (4 + 2 * reports), "spool": round_.num_trials * (11 + reports)}
        self.expected["shipped"] = self.expected["spool"] + 10

    def play(self):
        """Cause the faults one after the other, then resume until the sweep ends by itself."""
        write_config(self.round, self.folder)
        try:
            for fault in self.round.faults:
                if not self.played.complaints:
                    self._cause(fault)
            while not self.played.complaints and (self.driver is not None or self.played.statuses[-1:] != [0]):
                self.resume()
        finally:
            if self.driver is not None:
                self._record_children()
                os.kill(self.driver.pid, signal.SIGKILL)
                self.driver.wait(60)
            end(self.children)
            if self.round.store == "server":
                self.place.wait_for_server()
        return self.played

    def resume(self):
        """Run one driver without further faults until it ends by itself."""
        if self.driver is None:
            self._start()
        self._wait_for_end((0,))

    def _start(self):
        """Start a driver, which resumes the sweep if it exists."""
        output_dir = f"output_dir={self.folder / 'mlruns'}"
        if (self.sweep_folder / "sweep.json").exists():
            arguments = ["sweep", "--resume", "round", output_dir]
        else:
            arguments = ["sweep", "round", "--config-dir", str(self.folder), output_dir]
            if self.round.store == "server":
                arguments += [f"tracking.uri={self.place.server()}"]
            if self.round.kind == "cold":
                arguments += ["compute.num_cpus=2"]
            else:
                arguments += [f"compute.address={self.place.address()}"]
        self.driver = self.place.driver(arguments, self.log, is_cold=self.round.kind == "cold")
        self.started_seconds = time.monotonic()
        self.base = {what: self._count(what) for what in self.expected}

    def _cause(self, fault):
        if self.driver is None:
            self._start()
        has_come = self._await(fault)
        counts = {what: self._count(what) for what in self.expected}
        entry = {**asdict(fault), "start": len(self.played.statuses), "came": has_come, **counts}
        entry["seconds"] = round(time.monotonic() - self.started_seconds, 2)
        self.played.faults.append(entry)
        if not has_come:
            self._wait_for_end((0,))
            return
        self._record_children()
        if fault.what in SIGNALS:
            self._signal(fault)
        elif fault.what in ("worker", "workers"):
            workers = self.place.workers(self.driver)
            entry["came"] = bool(workers)
            end(workers if fault.what == "workers" else workers[:1])
        elif fault.what == "raylet":
            raylets = [process for process in self.children if process.is_running() and process.name() == "raylet"]
            entry["came"] = bool(raylets)
            end(raylets)
            self._wait_for_end(None if raylets else (0,))
        elif fault.what == "server":
            self.place.kill_server(fault.pause_seconds)
        else:
            self.place.freeze_server(fault.pause_seconds)

    def _signal(self, fault):
        """Send a signal to the driver and wait for its end."""
        sent = SIGNALS[fault.what]
        try:
            os.kill(self.driver.pid, sent)
        except ProcessLookupError:  # just ended
            self._wait_for_end((0,))
            return
        allowed = {0, -sent} if sent == signal.SIGKILL else {0, STOPPED}
        if sent == signal.SIGTERM and (self._is_closing() or not self._is_locked_by_driver()):
            allowed.add(-sent)  # before it has a handler, or while the interpreter ends
        self._wait_for_end(allowed)

    def _is_locked_by_driver(self):
        """Return whether the driver has locked its sweep."""
        try:
            return json.loads((self.sweep_folder / "driver.lock").read_text())["pid"] == self.driver.pid
        except (OSError, ValueError):
            return False

    def _await(self, fault):
        """Wait for the fault's moment; return False if the driver ended before."""
        deadline = time.monotonic() + LIMIT_SECONDS
        if fault.since in self.base:
            left = max(self.expected[fault.since] - self.base[fault.since], 1)
            wanted = self.base[fault.since] + 1 + int(fault.share * left)
        while self.driver.poll() is None and time.monotonic() < deadline:
            if fault.since == "seconds":
                has_come = time.monotonic() - self.started_seconds >= fault.share
            elif fault.since == "closing":
                has_come = self._is_closing()
            else:
                has_come = self._count(fault.since) >= wanted
            if has_come:
                is_of_server = fault.what in ("server", "freeze")
                time.sleep(fault.share if fault.since == "closing" else 0.0 if is_of_server else fault.pause_seconds)
                return self.driver.poll() is None
            time.sleep(0.005)
        return False

    def _count(self, what):
        try:
            if what == "shipped":
                return json.loads((self.sweep_folder / "spool.shipped.json").read_text())["seq"]
            path = self.sweep_folder / ("study.jsonl" if what == "journal" else "spool.jsonl")
            return path.read_bytes().count(b"\n")
        except (OSError, ValueError):
            return 0

    def _is_closing(self):
        """Return whether this driver has closed the sweep's run."""
        try:
            lines = (self.sweep_folder / "spool.jsonl").read_text().splitlines()[self.base["spool"] :]
        except OSError:
            return False
        return any('"op":"close"' in line and '"number"' not in line for line in lines)

    def _record_children(self):
        """Record the processes that the driver started, to kill those that survive it."""
        if isinstance(self.driver, subprocess.Popen):
            try:
                self.children += psutil.Process(self.driver.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                return

    def _wait_for_end(self, allowed):
        """Wait for the driver to end; complain if it does not, or about an exit status that is not allowed."""
        try:
            status = self.driver.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.played.complaints.append(f"the driver, process {self.driver.pid}, did not end")
            os.kill(self.driver.pid, signal.SIGABRT)  # prints its stack traces
            status = self.driver.wait(60)
        self.driver = None
        self.played.statuses.append(status)
        with self.log.open("a") as file:
            file.write(f"--- exit status {status}\n")
        if allowed is not None and status not in allowed:
            self.played.complaints.append(f"driver {len(self.played.statuses)} ended with exit status {status}")
        try:
            self.played.seen.append(ferhpo.load_sweep("round", self.folder / "mlruns").trials())
        except FerhpoError:  # it did not create the sweep
            return
