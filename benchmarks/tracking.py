"""What tracking costs a trial, and whether shipping keeps up: two measurements, each one command.

    python benchmarks/tracking.py cost [--pairs 11]        epoch time with the MLflow server running against stopped
    python benchmarks/tracking.py shipping [--seconds 60]  20 trial epochs a second into the embedded (SQLite) store

cost: each round trains the same small network three times, with the server running, running again, and stopped, in an
order that rotates. The first two are the A/A noise. An epoch's time is that between two reports to the driver, so that
what recording takes is in it.

shipping: a producer records trials as a sweep does: open one, 20 epochs of ten metrics each, its checkpoint, close it.
The backlog is what was recorded and is not in the store yet.
"""

import argparse
import itertools
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

EPOCHS_A_SECOND, EPOCHS_A_TRIAL, NUM_CONCURRENT = 20, 20, 8
METRICS = (
    "train_loss", "train_acc", "val_loss", "val_acc", "val_acc_dedup", "val_macro_f1", "lr", "epoch_seconds",
    "images_per_second", "device_memory_mb",
)  # fmt: skip
CHECKPOINT_BYTES = 500_000
START_SECONDS = 90


class Server:
    """An `mlflow server` on loopback over SQLite."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None:
            return
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
        ]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise SystemExit((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: itself and its worker
            self.process.wait()
            self.process = None


def epoch_seconds(folder: Path, name: str, uri: str, num_epochs: int, num_train: int) -> float:
    """Train one network with tracking at `uri`; the median time between two of its reports."""
    from ferhpo.driver.ledger import Ledger
    from ferhpo.tuning import finish
    from ferhpo.tuning.train import train

    seen: list[float] = []

    def listener(ledger: Ledger) -> None:
        if ledger.running.get(0, 0) > len(seen):
            seen.append(time.perf_counter())

    finish.SHIP_SECONDS = 0.5  # what is shipped after the training is not measured
    options = [f"output_dir={folder}", f"name={name}", f"tracking.uri={uri}", "tracking.required=false"]
    options += ["tracking.report=false", "tracking.models=none", f"data.num_train={num_train}", "data.num_val=350"]
    train("demo", [*options, f"trainer.max_epochs={num_epochs}"], listener=listener)
    assert len(seen) == num_epochs
    return statistics.median(after - before for before, after in itertools.pairwise(seen))


def measure_cost(num_pairs: int, num_epochs: int, num_train: int) -> None:
    conditions = ["running", "running again", "stopped"]
    seconds: dict[str, list[float]] = {condition: [] for condition in conditions}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        server = Server(folder)
        try:
            for number in range(-1, num_pairs):  # the first round warms up
                shift = number % 3
                for condition in conditions[shift:] + conditions[:shift]:
                    server.stop() if condition == "stopped" else server.start()
                    name = f"{condition.replace(' ', '-')}-{number + 1}"
                    median = epoch_seconds(folder / "mlruns", name, server.url, num_epochs, num_train)
                    if number >= 0:
                        seconds[condition].append(median)
                        print(f"round {number + 1}: {condition} {median:.4f} s an epoch", file=sys.stderr, flush=True)
        finally:
            server.stop()
    command = f"python benchmarks/tracking.py cost --pairs {num_pairs} --epochs {num_epochs} --train {num_train}"
    print(f"\n{command}\n{_machine()}; medians of {num_pairs} pairs of {num_epochs} epochs\n")
    print("| pair | first, s an epoch | second, s an epoch | median difference | quartiles of it |")
    print("|---|---|---|---|---|")
    ranges = {}
    for label, first, second in (
        ("server running, running (A/A)", "running", "running again"),
        ("server stopped, running", "stopped", "running"),
    ):
        pairs = zip(seconds[first], seconds[second], strict=True)
        differences = [100 * (b - a) / a for a, b in pairs]
        low, middle, high = _quartiles(differences)
        ranges[label] = (low, middle, high)
        medians = statistics.median(seconds[first]), statistics.median(seconds[second])
        print(f"| {label} | {medians[0]:.4f} | {medians[1]:.4f} | {middle:+.1f} % | {low:+.1f} to {high:+.1f} % |")
    (low, _, high), (_, middle, _) = ranges.values()
    noise = max(abs(low), abs(high))
    print(f"\nThe difference of {middle:+.1f} % is {'within' if abs(middle) <= noise else 'beyond'} the A/A noise "
          f"of {noise:.1f} % (its wider quartile).")  # fmt: skip


def record_trials(tracker, folder: Path, num_trials: int) -> Iterator[None]:
    """Record trials as a sweep does, eight at a time; yields after each epoch."""
    epochs: dict[int, int] = {}
    next_trial = 0
    while next_trial < num_trials or epochs:
        while len(epochs) < NUM_CONCURRENT and next_trial < num_trials:
            open_trial(tracker, folder, next_trial)
            # Trials that begin together would end together.
            epochs[next_trial] = EPOCHS_A_TRIAL * next_trial // NUM_CONCURRENT if next_trial < NUM_CONCURRENT else 0
            next_trial += 1
        for number in list(epochs):
            epochs[number] += 1
            tracker.log_epoch(number, epochs[number], dict.fromkeys(METRICS, epochs[number] / 100 + number))
            if epochs[number] >= EPOCHS_A_TRIAL:
                close_trial(tracker, folder, number)
                del epochs[number]
            yield


def open_trial(tracker, folder: Path, number: int) -> None:
    params = {f"section.parameter_{i}": i * 0.123456 for i in range(40)}
    tags = {f"ferhpo.version.package_{i}": "1.2.3" for i in range(12)}
    tracker.open_trial(number, params, {"ferhpo.seed": str(number)})
    tracker.set_tags(number, tags)
    tracker.log_text(number, "\n".join(f"parameter_{i}: {i}" for i in range(80)), "config.yaml")
    profile = {"split": "published", "counts": {"train": 28709, "val": 3589, "test": 3589}}
    tracker.log_dataset(number, "fer2013", "d" * 64, "fer2013.csv", profile, "training")
    tracker.log_metrics(number, {"num_parameters": 1e6, "macs": 1e8})


def close_trial(tracker, folder: Path, number: int) -> None:
    tracker.log_metrics(number, {"best_val_acc": 0.5, "best_epoch": 7})
    tracker.log_artifact(number, folder / "best.ckpt", "checkpoint")
    tracker.log_text(number, "[" + "0, " * 49 + "]", "confusion.json")
    tracker.close_trial(number, "PRUNED" if number % 3 else "COMPLETE", {"ferhpo.reason": ""})


@contextmanager
def tracker_in(folder):
    """A tracker of a sweep in a new embedded store, its tables made."""
    from ferhpo.tracking import Tracker, TrackingSettings

    sweep = folder / "sweep"
    tracker = Tracker(sweep, TrackingSettings(output_dir=folder))
    (sweep / "best.ckpt").write_bytes(os.urandom(CHECKPOINT_BYTES))
    tracker.open_sweep("benchmark", {}, {}, "")
    tracker.start()
    assert tracker.flush(600) == 0, tracker.last_error
    try:
        yield tracker, sweep
    finally:
        tracker.close(5)


def measure_shipping(num_seconds: int) -> None:
    samples = []
    with tempfile.TemporaryDirectory() as scratch, tracker_in(Path(scratch)) as (tracker, folder):
        begin = time.perf_counter()
        num_epochs = 0
        for _ in record_trials(tracker, folder, num_trials=10**9):
            num_epochs += 1
            late = begin + num_epochs / EPOCHS_A_SECOND - time.perf_counter()
            if late > 0:
                time.sleep(late)
            if num_epochs % EPOCHS_A_SECOND == 0:
                samples.append(tracker.unshipped)
            if time.perf_counter() - begin >= num_seconds:
                break
        produced = num_epochs / (time.perf_counter() - begin)
        begin = time.perf_counter()
        left = tracker.flush(120)
        drained = time.perf_counter() - begin
    maximum = measure_rate(num_trials=num_seconds)
    print(f"\npython benchmarks/tracking.py shipping --seconds {num_seconds}")
    print(f"{_machine()}; {EPOCHS_A_TRIAL} epochs a trial, {len(METRICS)} metrics each, {NUM_CONCURRENT} at a time\n")
    third = max(len(samples) // 3, 1)
    thirds = [max(part) for part in (samples[:third], samples[third : 2 * third], samples[2 * third :]) if part]
    print("| | |\n|---|---|")
    print(f"| recorded | {produced:.1f} trial epochs a second |")
    print(f"| largest backlog in the first, second, last third | {', '.join(map(str, thirds))} records |")
    print(f"| backlog at the end | {samples[-1]} records, shipped in {drained:.1f} s, then {left} |")
    print(f"| most that can be shipped | {maximum:.0f} trial epochs a second |")
    bounded = thirds[-1] <= 2 * max(thirds[:-1] or thirds)
    print(f"\nThe backlog {'stays bounded' if bounded else 'grows'}.")


def measure_rate(num_trials: int) -> float:
    """Trial epochs a second that go into the store when all are there at once."""
    with tempfile.TemporaryDirectory() as scratch, tracker_in(Path(scratch)) as (tracker, folder):
        begin = time.perf_counter()
        num_epochs = sum(1 for _ in record_trials(tracker, folder, num_trials))
        assert tracker.flush(600) == 0
        return num_epochs / (time.perf_counter() - begin)


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _machine() -> str:
    python = platform.python_version()
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}, Python {python})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    cost = what.add_parser("cost")
    cost.add_argument("--pairs", type=int, default=11)
    cost.add_argument("--epochs", type=int, default=8)
    cost.add_argument("--train", type=int, default=1400, help="training images: how long an epoch is")
    shipping = what.add_parser("shipping")
    shipping.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    if args.what == "cost":
        measure_cost(args.pairs, args.epochs, args.train)
    else:
        measure_shipping(args.seconds)


if __name__ == "__main__":
    main()
