"""What the parts of gpu.py share: rows of results, timing, networks, images, CUDA graphs, MPS."""

import contextlib
import importlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferhpo.data.dataset import TRAIN, VAL, FaceData, face_data

NUM_FER2013 = 28_709  # training images
SMALL_RESNET = ["model=resnet", "model.stem_stride=2", "model.width=24", "model.num_stages=3"]  # 33 MMAC


@dataclass
class Rows:
    """The JSON lines of a part.

    small: sizes for a test on a CPU
    seconds: after these, a part begins no further measurement
    data: path of FER2013, if there is one
    """

    part: str
    out: Path
    small: bool
    seconds: float
    data: Path | None = None
    start: float = field(default_factory=time.perf_counter)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def has_time(self) -> bool:
        return time.perf_counter() - self.start < self.seconds

    def write(self, **row: Any) -> None:
        """Write a row, and print its single values."""
        row = {"part": self.part, **row, "at_s": round(time.perf_counter() - self.start, 1)}
        with (self.out / f"{self.part}.jsonl").open("a") as file:
            file.write(json.dumps(row, default=str) + "\n")
        single = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        shown = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in single.items()}
        print(" ".join(f"{key} {value}" for key, value in shown.items()), flush=True)

    def measure(self, measured: Callable[[], Mapping[str, Any]], **named: Any) -> None:
        """Write a row with what `measured` returns, or with the reason why it failed."""
        if not self.has_time:
            self.write(**named, skipped=f"{self.seconds:.0f} s have passed")
            return
        try:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            self.write(**named, **measured())
        except Exception as error:
            self.write(**named, failed=f"{type(error).__name__}: {str(error)[:300]}")


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return the seconds of a call: the median of three series after a warm-up."""

    def series() -> float:
        wait_for(device)
        start = time.perf_counter()
        for _ in range(calls):
            function()
        wait_for(device)
        return (time.perf_counter() - start) / calls

    series()
    return statistics.median(series() for _ in range(3))


def noise(num_train: int, num_val: int) -> FaceData:
    """Return random images of 48x48 pixels: what they show makes no difference to the time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_train + num_val, 48, 48), dtype=np.uint8)
    split = np.where(np.arange(len(images)) < num_train, TRAIN, VAL).astype(np.uint8)
    return face_data(images, rng.integers(0, 7, len(images)), split, tuple("abcdefg"), "noise", "random")


def use_data(verb: str, data: FaceData) -> None:
    """Let `ferhpo.train` or `ferhpo.sweep` train on these images, without the time to read or draw a data set."""
    module: Any = importlib.import_module(f"ferhpo.tuning.{verb}")
    module.load_data = lambda composed: data


def capture(step: Callable[[], Any], device: torch.device) -> Callable[[], object]:
    """Return a function that replays a step as a CUDA graph; on a CPU, the step itself."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Graphed:
    """A function of a batch that returns a tensor, as a CUDA graph: its arguments are copied to fixed places."""

    def __init__(self, function: Callable[..., Tensor], *batch: Tensor) -> None:
        self._batch = [values.clone(memory_format=torch.preserve_format) for values in batch]
        self._function = function
        self._replay = capture(self._run, batch[0].device)

    def _run(self) -> None:
        self.result = self._function(*self._batch)

    def __call__(self, *batch: Tensor) -> Tensor:
        torch._foreach_copy_(self._batch, list(batch))
        self._replay()
        return self.result


def mps_control() -> str | None:
    """Return the path of NVIDIA's program for MPS (several processes on a card at once), if it is installed."""
    return shutil.which("nvidia-cuda-mps-control", path=os.environ.get("PATH", "") + ":/usr/local/nvidia/bin")


@contextlib.contextmanager
def mps() -> Iterator[None]:
    """Run an MPS service with folders of its own; processes that start meanwhile use it."""
    control = mps_control()
    if control is None:
        raise FileNotFoundError("nvidia-cuda-mps-control is not on this machine")
    folder = tempfile.mkdtemp(prefix="mps_")
    names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    os.environ.update(names)
    try:
        subprocess.run([control, "-d"], check=True, timeout=20, stdout=subprocess.DEVNULL)
        yield
    finally:
        subprocess.run([control], input="quit\n", text=True, timeout=30, check=False, stdout=subprocess.DEVNULL)
        for name in names:
            del os.environ[name]
        shutil.rmtree(folder, ignore_errors=True)
