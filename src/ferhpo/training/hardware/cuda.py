"""What a trial gets of a GPU: the device, its share of the memory, and whose fault a lack of memory is.

Note: several trials may share a card, and a process that has just ended still holds its memory for a moment.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ferhpo.errors import FerhpoError
from ferhpo.scoring.device_data import default_device
from ferhpo.training.settings import PRETEND_GPU

CONTEXT_BYTES = 600e6  # CUDA's own memory in each process, besides that of tensors
WAIT_SECONDS = 60.0
STEADY_SECONDS = 10.0  # without more free memory, waiting is in vain: another program holds it
POLL_SECONDS = 0.5
_FREE_FRACTION = 0.9  # of a share; drivers and displays take a little
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def device_of(num_gpus: float | None) -> torch.device:
    """Return the device of a trial to which `num_gpus` GPUs were assigned; None for one if this process sees any.

    Raises FerhpoError if a GPU was assigned that torch cannot use: a CPU would take far too long.
    """
    if num_gpus is None:
        return default_device()
    if num_gpus == 0:
        return torch.device("cpu")
    if os.environ.get(PRETEND_GPU) == "1":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        raise FerhpoError(
            f"GPU {given} was assigned, but torch cannot use it: {why_unusable()}; "
            "fix the driver or install a build of torch for it, or train on the CPU with compute.gpus_per_trial=0"
        )
    return torch.device("cuda", 0)


def why_unusable() -> str:
    """Return what torch is built for and what driver this machine has."""
    built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    driver = driver_version()
    return f"torch {torch.__version__} is built {built}, " + (
        f"the NVIDIA driver is {driver}" if driver else "and there is no NVIDIA driver"
    )


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return the version of the NVIDIA driver, or "" if there is none."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", path.read_text())
    except OSError:
        return ""
    return match[1] if match else "unknown"


def gpu_facts(device: torch.device) -> dict[str, object]:
    """Return what the results and the speed of a GPU depend on: its memory, driver, CUDA and cuDNN."""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "gpu_memory_gb": round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1),
        "gpu_software": f"driver {driver_version()}, CUDA {torch.version.cuda}, cuDNN {cudnn}",
    }


@dataclass(frozen=True)
class GpuShare:
    """The memory of a GPU that belongs to a trial.

    allowed_bytes: for tensors, besides the memory of CUDA itself
    others_bytes: what other processes may hold
    """

    device: torch.device
    allowed_bytes: float
    others_bytes: float

    def others_took(self, error: BaseException) -> bool:
        """Return whether memory ran out although this process stayed within its share, because others took more.

        torch's own message says how much was wanted; those of cuDNN and cuBLAS do not.
        """
        if match := re.search(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", str(error)):
            wanted = float(match[1]) * _UNITS[match[2]]
            return torch.cuda.max_memory_reserved(self.device) + wanted < self.allowed_bytes
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free - torch.cuda.memory_reserved(self.device) - CONTEXT_BYTES > self.others_bytes


def claim(device: torch.device, num_gpus: float) -> GpuShare:
    """Limit this process to its share of a GPU, and wait until this memory is free.

    num_gpus: the trial's share of a card, if it is below 1
    It waits a minute at most, and less if nothing becomes free: then another program holds the memory.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    share = min(num_gpus, 1.0)
    allowed = share * total - CONTEXT_BYTES
    torch.cuda.set_per_process_memory_fraction(max(allowed / total, 0.0) if share < 1 else 1.0, device)
    _wait_until_free(device, _FREE_FRACTION * allowed)
    torch.cuda.reset_peak_memory_stats(device)
    return GpuShare(device, _FREE_FRACTION * allowed, total - _FREE_FRACTION * share * total)


def memory_left(device: torch.device) -> float:
    """Return how many bytes this process may still allocate for tensors."""
    free, total = torch.cuda.mem_get_info(device)
    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)  # missing in torch 2.6
    available = min(free + torch.cuda.memory_reserved(device), fraction(device) * total)
    return float(available - torch.cuda.memory_allocated(device))


def _wait_until_free(device: torch.device, wanted_bytes: float) -> None:
    start = risen_at = time.monotonic()
    most = 0.0
    while True:
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        now = time.monotonic()
        if free > most:
            most, risen_at = free, now
        if free >= wanted_bytes or now - start > WAIT_SECONDS or now - risen_at > STEADY_SECONDS:
            return
        time.sleep(POLL_SECONDS)
