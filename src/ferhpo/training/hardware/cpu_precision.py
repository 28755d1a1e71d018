"""The precision that a CPU trains fastest in, measured: bf16 or float32.

Some CPUs multiply bf16 with units of their own (AMX, AVX512-BF16, Arm's BF16), others emulate it and lose. How much a
network gains depends on the whole machine, so a training step of two convolutions is timed in both.
"""

import json
import logging
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ferhpo.data.io.cache import cache_folder
from ferhpo.disk import write_json

log = logging.getLogger("ferhpo.sweep")

MIN_GAIN = 1.2  # bf16 rounds every product, so it must be worth it
_BATCH, _CHANNELS, _SIDE = 16, 32, 48
_NUM_ROUNDS = 5
_FILE = "cpu_precision.json"
# What torch says of a CPU that has instructions for bf16. Without one of them bf16 is emulated, and always slower.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


@dataclass(frozen=True)
class Timings:
    """The median seconds of a training step in each precision."""

    float32: float
    bf16: float

    @property
    def precision(self) -> str:
        """The precision to train in: "bf16" or "32"."""
        return "bf16" if self.bf16 * MIN_GAIN <= self.float32 else "32"

    def __str__(self) -> str:
        return f"a step took {1000 * self.float32:.1f} ms in float32, {1000 * self.bf16:.1f} ms in bf16"


def cpu_precision(num_threads: int | None = None) -> tuple[str, str]:
    """Return the precision in which this CPU trains fastest, "bf16" or "32", and why.

    num_threads: of a trial; None for torch's present number
    The measurement takes about half a second, and is kept for this machine in ferhpo's cache.
    """
    if not _may_gain():
        return "32", "this CPU has no instructions for bf16"
    num_threads = num_threads or torch.get_num_threads()
    timings = _read(num_threads)
    if timings is None:
        timings = measure(num_threads)
        _write(num_threads, timings)
    return timings.precision, str(timings)


def _capabilities() -> dict[str, object]:
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in torch 2.6
    return found


def has_amx() -> bool:
    """Return whether this CPU has matrix units for bf16 (AMX)."""
    return bool(_capabilities().get("amx_bf16"))


def _may_gain() -> bool:
    found = _capabilities()
    return not found or any(bool(found.get(name)) for name in _INSTRUCTIONS)


def measure(num_threads: int) -> Timings:
    """Time training steps in both precisions, in turn."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        steps = {name: _Step(name == "bf16") for name in ("float32", "bf16")}
        for step in steps.values():
            step.run()  # allocates memory, and lets oneDNN choose its kernels
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(_NUM_ROUNDS):
            for name, step in steps.items():
                start = time.perf_counter()
                step.run()
                seconds[name].append(time.perf_counter() - start)
        return Timings(**{name: statistics.median(values) for name, values in seconds.items()})
    finally:
        torch.set_num_threads(before)


class _Step:
    """A forward and backward pass of two convolutions, like those of a small CNN for faces."""

    def __init__(self, is_bf16: bool) -> None:
        self.is_bf16 = is_bf16
        generator = torch.Generator().manual_seed(0)  # leaves the global random state as it is
        images = torch.rand(_BATCH, _CHANNELS, _SIDE, _SIDE, generator=generator)
        self.images = images.to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            network = nn.Sequential(
                nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
            )
        self.network = network.to(memory_format=torch.channels_last)

    def run(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            output = self.network(self.images)
        output.float().mean().backward()
        self.network.zero_grad(set_to_none=True)


def _machine(num_threads: int) -> str:
    """Return what the measurement depends on."""
    capabilities = _capabilities()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    units = ",".join(sorted(key for key, value in capabilities.items() if value is True))
    return f"{platform.node()}; {name}; {units}; torch {torch.__version__}; {num_threads} threads"


def _read(num_threads: int) -> Timings | None:
    try:
        found = json.loads((cache_folder(None) / _FILE).read_text())[_machine(num_threads)]
        timings = Timings(float(found["float32"]), float(found["bf16"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return timings if timings.float32 > 0 and timings.bf16 > 0 else None


def _write(num_threads: int, timings: Timings) -> None:
    file: Path = cache_folder(None) / _FILE
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        known = {}
    known = known if isinstance(known, dict) else {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**known, _machine(num_threads): asdict(timings)})
    except OSError as error:  # another process measures again
        log.info("%s cannot be written (%s)", file, os.strerror(error.errno or 0))
