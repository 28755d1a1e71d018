"""The precision and memory format for a device, and torch's global switches.

Note: the switches are restored after each training, because many trials share a process.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ferhpo.scoring.exact import exact_float32
from ferhpo.training.hardware.cpu_precision import cpu_precision
from ferhpo.training.settings import TrainerSettings

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic sums; cuBLAS reads it at its first call


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


def memory_format_of(settings: TrainerSettings, device: torch.device, network: nn.Module) -> torch.memory_format:
    """Return the memory format.

    "auto" is channels last, with which a CPU is a quarter to a third faster and a GPU needs no transpositions. Group
    normalization on a GPU works on contiguous tensors only, so such a network stays contiguous there. So does a network
    on a CPU with a convolution for which torch 2.15 writes past the end of its memory, whatever the settings say.
    """
    if device.type == "cpu" and any(map(_breaks_channels_last, network.modules())):
        return torch.contiguous_format
    auto = device.type != "cuda" or not any(isinstance(module, nn.GroupNorm) for module in network.modules())
    channels_last = auto if settings.channels_last == "auto" else settings.channels_last
    return torch.channels_last if channels_last else torch.contiguous_format


def _breaks_channels_last(module: nn.Module) -> bool:
    """Return whether torch's backward pass of a module corrupts memory on a CPU without AVX-512."""
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
        return False
    return max(module.stride) > 1 and 1 < module.in_channels // module.groups < 8


@contextlib.contextmanager
def torch_switches(settings: TrainerSettings, device: torch.device) -> Iterator[None]:
    """Set threads, determinism and exact float32 for one training, and restore them afterwards.

    Note: `warn_only` would leave the backward pass of attention nondeterministic, without an error. With deterministic
    algorithms, torch also fills all new memory, to expose reads of memory that nobody wrote. That is hundreds of
    launches per step, so it is switched off.
    """
    threads = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    # cuDNN's choice by timing costs seconds per trial, because every trial has other shapes.
    cudnn.deterministic, cudnn.benchmark = settings.deterministic, False
    debugging: Any = torch.utils.deterministic
    fills = debugging.fill_uninitialized_memory
    if settings.deterministic and device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        debugging.fill_uninitialized_memory = False
    try:
        with exact_float32():
            yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = before
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        debugging.fill_uninitialized_memory = fills
