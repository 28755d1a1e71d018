"""One round: a sweep that its number draws, faults at moments that its number draws, resumes until the sweep is whole.

What a reader would get wrong: the number decides what is done and when, but not how far each process then is: the same
round played twice kills at the same point of the sweep's record, and perhaps some milliseconds beside it.
"""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field

import psutil
import yaml

import ferhpo
from ferhpo.errors import FerhpoError
from ferhpo.study import TrialRecord
from tests.faults.place import end

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
STOPPED = 130


@dataclass(frozen=True)
class Fault:
    """What is done, and when.

    what: kill, term, int (of the driver), worker, workers, raylet, server (killed, and started again), freeze
    since: what is counted from the start of the driver: seconds, or the lines of journal or spool, or the records
        shipped; or `closing`, seconds after the sweep's run was closed in the spool
    share: of the lines that are still to come; or seconds
    pause_seconds: after the moment was seen, before the fault; pause of a server, for a fault of the server
    """

    what: str
    since: str
    share: float
    pause_seconds: float


@dataclass(frozen=True)
class Round:
    """What is played.

    kind: tiny (networks whose epochs take milliseconds), real (about a second), cold (tiny; each driver is a fresh
        process with a Ray of its own)
    """

    number: int
    kind: str
    sampler: str
    scheduler: str
    num_trials: int
    num_epochs: int
    num_slots: int
    folds: int | None
    store: str
    finish: bool
    faults: tuple[Fault, ...]


@dataclass
class Played:
    """What was seen of a round: the moments of its faults, the trials after each driver, the exit statuses."""

    faults: list[dict] = field(default_factory=list)
    seen: list[list[TrialRecord]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def draw(number):
    """The round with this number."""
    rng = random.Random(number)
    kind = "real" if number % 4 == 3 else "cold" if number % 10 == 4 else "tiny"
    store = "server" if number % 3 == 2 else "file"
    num_trials, num_epochs = (rng.randint(4, 5), rng.randint(2, 4)) if kind == "real" else _size(rng)
    folds = 2 if kind == "tiny" and rng.random() < 0.2 else None
    whats = ["kill", "kill", "kill", "term", "int", "worker", "workers"]
    whats += ["server", "server", "freeze"] if store == "server" else []
    whats += ["raylet"] if kind == "cold" else []
    faults = []
    for _ in range(rng.randint(1, 2 if kind == "cold" else 4)):
        faults.append(_fault(rng, rng.choice(whats)))
        if faults[-1].what == "kill" and rng.random() < 0.25:  # and again, while it resumes
            faults.append(Fault("kill", "seconds", rng.uniform(0, 4), 0.0))
    return Round(
        number=number,
        kind=kind,
        sampler=rng.choice(["random", "tpe", "cmaes", "grid"]),
        scheduler=rng.choice(["none", "asha", "hyperband", "median"]),
        num_trials=num_trials,
        num_epochs=num_epochs,
        num_slots=rng.randint(1, 2),
        folds=folds,
        store=store,
        finish=rng.random() < 0.3,
        faults=tuple(faults[:4]),
    )


def _size(rng):
    return rng.randint(4, 12), rng.randint(2, 5)


def _fault(rng, what):
    if what in ("server", "freeze"):
        return Fault(what, rng.choice(["journal", "spool", "shipped"]), rng.random(), rng.uniform(1, 8))
    if what in ("worker", "workers"):
        return Fault(what, rng.choice(["journal", "journal", "spool"]), rng.random(), rng.uniform(0, 0.3))
    since = rng.choice(["seconds", "journal", "journal", "spool", "shipped", "closing"])
    share = rng.uniform(0, 6) if since == "seconds" else rng.uniform(0, 1.5) if since == "closing" else rng.random()
    return Fault(what, since, share, rng.uniform(0, 0.3))


def write_config(played, folder):
    """The round's sweep as a user's own configuration."""
    spaces = {
        "random": {"model": _blocks(), "optim": {"lr": _lr(), "weight_decay": None}},
        "tpe": {"model": _blocks(), "optim": {"lr": _lr(), "weight_decay": None}},
        "cmaes": {"model": _unvaried(), "optim": {"lr": _lr(), "weight_decay": {"low": 1e-6, "high": 1e-2}}},
        "grid": {
            "model": _unvaried() | {"activation": {"choices": ["relu", "gelu", "elu"]}},
            "trainer": {"label_smoothing": {"choices": [0.0, 0.05, 0.1, 0.2]}},
            "optim": {"lr": None, "weight_decay": None},
        },
    }
    size = {"num_train": 1400, "num_val": 140} if played.kind == "real" else {"num_train": 70, "num_val": 35}
    data = {**size, "num_test": 7, "image_size": 48 if played.kind == "real" else 24}
    channels = {"block_channels": 16, "dense_units": 32} if played.kind == "real" else {"block_channels": 4}
    config = {
        "defaults": [
            "config",
            {"override sampler": played.sampler},
            {"override scheduler": played.scheduler},
            "_self_",
        ],
        "seed": played.number,
        "num_trials": played.num_trials,
        "data": data | ({} if played.folds is None else {"folds": played.folds}),
        "model": {"stem_channels": 0, "num_blocks": 2, "dense_units": 8, **channels},
        "trainer": {"max_epochs": played.num_epochs, "batch_size": 64},
        "compute": {"max_concurrent": played.num_slots, "cpus_per_trial": 1, "gpus_per_trial": 0, "max_retries": 20},
        "tracking": {
            "required": False,
            "models": "best" if played.finish else "none",
            "report": played.finish,
            # One server is there for many rounds.
            "experiment": f"round-{played.number}",
            "registered_model_name": f"round-{played.number}",
        },
        "space": spaces[played.sampler],
    }
    if played.sampler in ("tpe", "cmaes"):
        config["sampler"] = {"n_startup_trials": 3}
    (folder / "round.yaml").write_text(f"# Round {played.number}\n{yaml.safe_dump(config, sort_keys=False)}")


def _lr():
    return {"low": 1e-4, "high": 1e-1, "log": True}


def _unvaried():
    return dict.fromkeys(("stem_channels", "num_blocks", "block_channels", "conv_dropout", "dense_dropout"))


def _blocks():
    """A space with conditions: the second block is drawn where there is one."""
    repeated = {"low": 4, "high": 12, "step": 4, "repeat": "model.num_blocks"}
    return _unvaried() | {"num_blocks": {"low": 1, "high": 2}, "block_channels": repeated}


class Player:
    """Plays a round in a folder."""

    def __init__(self, round_, place, folder):
        self.round, self.place, self.folder = round_, place, folder
        self.sweep_folder = folder / "mlruns" / "round"
        self.log = folder / "log.txt"
        self.played = Played()
        self.children: list[psutil.Process] = []
        self.driver = None
        self.limit_seconds = 400 if round_.kind == "cold" else 240
        reports = round_.folds or round_.num_epochs
        # How many lines an undisturbed sweep writes, about: where shares of them lie.
        self.expected = {"journal": round_.num_trials * (4 + 2 * reports), "spool": round_.num_trials * (11 + reports)}
        self.expected["shipped"] = self.expected["spool"] + 10

    def play(self):
        """The faults, one after the other, then resumes until the sweep has ended by itself."""
        write_config(self.round, self.folder)
        try:
            for fault in self.round.faults:
                if not self.played.complaints:
                    self._commit(fault)
            while not self.played.complaints and (self.driver is not None or self.played.statuses[-1:] != [0]):
                if self.driver is None:
                    self._start()
                self._wait_for_end((0,))
        finally:
            if self.driver is not None:
                self._note_children()
                os.kill(self.driver.pid, signal.SIGKILL)
                self.driver.wait(60)
            end(self.children)
            if self.round.store == "server":
                self.place.wait_for_server()
        return self.played

    def _start(self):
        """A driver: of a new sweep, or where there is one to go on with, a resume."""
        output = f"output_dir={self.folder / 'mlruns'}"
        if (self.sweep_folder / "sweep.json").exists():
            arguments = ["sweep", "--resume", "round", output]
        else:
            arguments = ["sweep", "round", "--config-dir", str(self.folder), output]
            if self.round.store == "server":
                arguments += [f"tracking.uri={self.place.server()}"]
            if self.round.kind == "cold":
                arguments += ["compute.num_cpus=2"]
            else:
                arguments += [f"compute.address={self.place.address()}"]
        self.driver = self.place.driver(arguments, self.log, is_cold=self.round.kind == "cold")
        self.started_seconds = time.monotonic()
        self.base = {what: self._count(what) for what in self.expected}

    def _commit(self, fault):
        if self.driver is None:
            self._start()
        came = self._await(fault)
        at = {what: self._count(what) for what in self.expected}
        noted = {**asdict(fault), "start": len(self.played.statuses), "came": came, **at}
        noted["seconds"] = round(time.monotonic() - self.started_seconds, 2)
        self.played.faults.append(noted)
        if not came:
            self._wait_for_end((0,))
            return
        self._note_children()
        if fault.what in SIGNALS:
            self._signal(fault)
        elif fault.what in ("worker", "workers"):
            workers = self.place.workers(self.driver)
            noted["num_workers"] = len(workers)
            end(workers if fault.what == "workers" else workers[:1])
        elif fault.what == "raylet":
            raylets = [process for process in self.children if process.is_running() and process.name() == "raylet"]
            noted["num_raylets"] = len(raylets)
            end(raylets)
            self._wait_for_end(None)
        elif fault.what == "server":
            self.place.kill_server(fault.pause_seconds)
        else:
            self.place.freeze_server(fault.pause_seconds)

    def _signal(self, fault):
        """Signal the driver, and wait for its end."""
        sent = SIGNALS[fault.what]
        try:
            os.kill(self.driver.pid, sent)
        except ProcessLookupError:  # just ended
            self._wait_for_end((0,))
            return
        allowed = {0, -sent} if sent == signal.SIGKILL else {0, STOPPED}
        if sent == signal.SIGTERM and not self._held_by_driver():
            allowed.add(-sent)  # before it has a handler
        self._wait_for_end(allowed)

    def _held_by_driver(self):
        """Whether the driver has come to its sweep."""
        try:
            return json.loads((self.sweep_folder / "driver.lock").read_text())["pid"] == self.driver.pid
        except (OSError, ValueError):
            return False

    def _await(self, fault):
        """Wait for the fault's moment; False where the driver ended before it came."""
        deadline = time.monotonic() + self.limit_seconds
        if fault.since in self.base:
            left = max(self.expected[fault.since] - self.base[fault.since], 1)
            wanted = self.base[fault.since] + 1 + int(fault.share * left)
        while self.driver.poll() is None and time.monotonic() < deadline:
            if fault.since == "seconds":
                come = time.monotonic() - self.started_seconds >= fault.share
            elif fault.since == "closing":
                come = self._is_closing()
            else:
                come = self._count(fault.since) >= wanted
            if come:
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
        """Whether this driver has closed the sweep's run."""
        try:
            lines = (self.sweep_folder / "spool.jsonl").read_text().splitlines()[self.base["spool"] :]
        except OSError:
            return False
        return any('"op":"close"' in line and '"number"' not in line for line in lines)

    def _note_children(self):
        """Whatever the driver started, so that it can be ended where a kill of the driver leaves it."""
        if isinstance(self.driver, subprocess.Popen):
            try:
                self.children += psutil.Process(self.driver.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                return

    def _wait_for_end(self, allowed):
        """Wait for the driver; complain of an exit status that is not allowed, and of what it says."""
        try:
            status = self.driver.wait(self.limit_seconds)
        except subprocess.TimeoutExpired:
            self.played.complaints.append(f"the driver, process {self.driver.pid}, did not end")
            os.kill(self.driver.pid, signal.SIGABRT)  # shows where it is
            status = self.driver.wait(60)
        self.driver = None
        self.played.statuses.append(status)
        with self.log.open("a") as file:
            file.write(f"--- exit status {status}\n")
        if allowed is not None and status not in allowed:
            self.played.complaints.append(f"driver {len(self.played.statuses)} ended with exit status {status}")
        try:
            self.played.seen.append(ferhpo.load_sweep("round", self.folder / "mlruns").trials())
        except FerhpoError:  # it did not come to a sweep
            return
