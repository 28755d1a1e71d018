"""Time the epochs of networks while as many processes train as a sweep has trials at a time on a device.

Each process is `python -m ferhpo.tuning.planning.timing`. Slots share memory, cores and GPUs, so that one training
alone would be faster than each of several.
"""

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.components.own_code import OwnCode, install, used
from ferhpo.data.dataset import TRAIN, VAL, FaceData
from ferhpo.errors import FerhpoError
from ferhpo.training.settings import Hardware

NUM_EPOCHS = 3  # the first one warms up and is not counted
EPOCH_SECONDS = 1.5  # of training, about
MIN_IMAGES, MAX_IMAGES = 8, 8192
TIMEOUT_SECONDS = 300.0  # for all networks
_MARK = "ferhpo-timing "  # own code may print too


@dataclass(frozen=True)
class Timing:
    """Seconds of one network's training: for each training image, each validation image, each epoch and each trial."""

    per_image: float
    per_val_image: float
    per_epoch: float
    per_trial: float

    def epoch(self, num_train: float, num_val: float) -> float:
        """Return the seconds of an epoch of so many images."""
        return num_train * self.per_image + num_val * self.per_val_image + self.per_epoch

    @classmethod
    def mean(cls, timings: "Sequence[Timing]") -> "Timing":
        """Return the means of several."""
        rows = [asdict(timing) for timing in timings]
        return cls(**{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]})


@dataclass(frozen=True)
class _Job:
    configs: list[dict[str, Any]]
    datas: list[FaceData]
    hardware: Hardware
    code: OwnCode


def time_networks(
    configs: Sequence[Mapping[str, Any]],
    data: FaceData,
    images_per_second: Sequence[float],
    hardware: Hardware,
    num_processes: int,
) -> tuple[float, list[Timing]]:
    """Return the seconds that a process takes for its imports, and the timing of each configuration.

    images_per_second: a guess for each configuration, which decides how many images of `data` are used
    Raises FerhpoError if a network cannot be trained.
    """
    subsets = [_subset(data, rate * EPOCH_SECONDS) for rate in images_per_second]
    job = pickle.dumps(_Job([_short(config) for config in configs], subsets, hardware, used()))
    command = [sys.executable, "-P", "-m", "ferhpo.tuning.planning.timing"]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        processes = [subprocess.Popen(command, **pipes) for _ in range(num_processes)]  # type: ignore[call-overload]
        try:
            for process in processes:
                process.stdin.write(job)
                process.stdin.flush()
            ready = [_answer(process) for process in processes]
            import_seconds = time.perf_counter() - start
            if all(ready):
                for process in processes:
                    process.stdin.write(b"all are ready\n")
                    process.stdin.flush()
            results = [[_answer(process) for _ in configs] for process in processes]
        except OSError:  # of a process that has ended
            results = [[None]]
        finally:
            for process in processes:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    pipe.close()
        if not all(all(answers) for answers in results):
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no reason was printed"]
            raise FerhpoError(lines[-1])
    by_config = zip(*results, strict=True)
    return import_seconds, [Timing.mean([Timing(**answer) for answer in answers if answer]) for answers in by_config]


def _answer(process: Any) -> dict[str, float] | None:
    """Return the next answer of a process; None if it has ended."""
    for line in process.stdout:
        if line.startswith(_MARK.encode()):
            return json.loads(line.removeprefix(_MARK.encode()))  # type: ignore[no-any-return]
    return None


def _subset(data: FaceData, num_images: float) -> FaceData:
    """Return about `num_images` training images of a data set, and as many validation images as belong to them."""
    train, val = np.flatnonzero(data.split == TRAIN), np.flatnonzero(data.split == VAL)
    num_train = int(min(max(num_images, MIN_IMAGES), MAX_IMAGES, len(train)))
    num_val = min(max(round(num_train * len(val) / len(train)), MIN_IMAGES), len(val))
    keep = np.concatenate([train[:num_train], val[:num_val]])

    def kept(array: Any) -> Any:
        return None if array is None else array[keep]

    arrays = {
        name: kept(getattr(data, name)) for name in ("images", "labels", "targets", "split", "groups", "features")
    }
    return replace(data, **arrays, parts=())


def _short(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration for a few epochs, none of them with frozen layers, in which no loss diverges."""
    short = deepcopy(dict(config))
    short["trainer"]["max_epochs"] = max(int(short["trainer"]["max_epochs"]), NUM_EPOCHS + 1)
    short["trainer"]["frozen_epochs"] = 0
    if "lr" in short["optim"]:
        short["optim"]["lr"] = 1e-5
    return short


def _time(config: dict[str, Any], data: FaceData, hardware: Hardware) -> Timing:
    """Train a network for NUM_EPOCHS epochs. Raises FerhpoError if that is not possible."""
    from ferhpo.trial.run import run_trial

    num_train, num_val = (int((data.split == part).sum()) for part in (TRAIN, VAL))
    config["trainer"]["batch_size"] = batch_size = min(int(config["trainer"]["batch_size"]), num_train)
    num_trained = num_train // batch_size * batch_size
    rows: list[dict[str, float]] = []
    ends: list[float] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        rows.append(metrics)
        ends.append(time.perf_counter())
        if epoch == NUM_EPOCHS:
            raise SystemExit

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = run_trial(config, data, Path(folder), 0, report, hardware=hardware)
            raise FerhpoError(outcome.reason or "the training ended early")
        except SystemExit:
            pass
    whole = (ends[-1] - ends[0]) / (NUM_EPOCHS - 1)
    counted = rows[1:]
    epoch = sum(row["epoch_seconds"] for row in counted) / len(counted)
    per_image = sum(1 / row["images_per_second"] for row in counted) / len(counted)
    return Timing(
        per_image=per_image,
        per_val_image=max(epoch - num_trained * per_image, 0.0) / num_val,
        per_epoch=max(whole - epoch, 0.0),
        per_trial=max(ends[0] - begin - whole, 0.0),
    )


def main() -> None:
    """Read a job from standard input, and print its timings once the other processes are ready too."""
    job: _Job = pickle.load(sys.stdin.buffer)  # of the process that started this one
    install(job.code)
    import ferhpo.training.fit  # noqa: F401 - imports Lightning

    print(_MARK + json.dumps({"ready": 1}), flush=True)
    sys.stdin.buffer.readline()
    for config, data in zip(job.configs, job.datas, strict=True):
        print(_MARK + json.dumps(asdict(_time(config, data, job.hardware))), flush=True)


if __name__ == "__main__":
    # pickle names the classes of this module by their full name
    from ferhpo.tuning.planning.timing import main as run

    try:
        run()
    except FerhpoError as error:
        sys.exit(str(error))
