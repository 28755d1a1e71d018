"""The precision and memory format for a device, and torch's global switches.

Note: the switches are restored after each training, because many trials share a process.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

from ferhpo.training.hardware.cpu_precision import cpu_precision
from ferhpo.training.settings import TrainerSettings


def precision_of(settings: TrainerSettings, device: torch.device) -> str:
    """Return "32", "bf16" or "16".

    "auto" is bf16 on GPUs that support it (Ampere and later), and what is measured to be faster on a CPU.
    Raises ValueError for 16 on a CPU.
    """
    if settings.precision == "16" and device.type == "cpu":
        raise ValueError("trainer.precision is 16; it must be 32, bf16 or auto on a CPU")
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "32"
    return cpu_precision(settings.num_threads)[0]


def memory_format_of(settings: TrainerSettings, device: torch.device) -> torch.memory_format:
    """Return the memory format. "auto" is channels last, with which a CPU is a quarter to a third faster."""
    channels_last = settings.channels_last is True or settings.channels_last == "auto"
    return torch.channels_last if channels_last else torch.contiguous_format


@contextlib.contextmanager
def torch_switches(settings: TrainerSettings, device: torch.device) -> Iterator[None]:
    """Set threads and determinism for one training, and restore them afterwards."""
    threads = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    cudnn.deterministic, cudnn.benchmark = settings.deterministic, not settings.deterministic
    if settings.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = before
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
