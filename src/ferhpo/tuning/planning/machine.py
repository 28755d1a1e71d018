"""What this machine has for the trials of a sweep, as far as it is known without starting Ray."""

import time

from ferhpo.config import ComputeSettings
from ferhpo.config.settings import job_cpus


def find_slots(compute: ComputeSettings) -> tuple[int, str]:
    """Return how many trials run at a time, and where, as far as it is known without starting Ray."""
    import torch

    if compute.address is not None:
        return (
            compute.max_concurrent or 1,
            f"Ray cluster at {compute.address} (its size is not known before connecting)",
        )
    num_gpus = compute.num_gpus if compute.num_gpus is not None else torch.cuda.device_count()
    num_cpus = compute.num_cpus or job_cpus()
    gpus = compute.share if compute.share is not None else float(num_gpus >= 1)
    limits = [num_cpus] + ([compute.max_concurrent] if compute.max_concurrent else [])
    limits += [int(num_gpus / gpus + 1e-9)] if gpus else []
    limits += [int(num_cpus / compute.cpus_per_trial + 1e-9)] if compute.cpus_per_trial else []
    num_slots = max(min(limits), 1)
    if gpus:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "not present"
        return num_slots, f"GPU: {num_gpus} ({name}), {gpus:g} per trial"
    return num_slots, f"CPU: {num_cpus} cores, {compute.cpus_per_trial or max(num_cpus // num_slots, 1):g} per trial"


def find_device(num_threads: int | None) -> str:
    """Return the device that `train` uses."""
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}"
    return f"CPU: {num_threads or torch.get_num_threads()} threads"


def measure_macs_per_second(seconds: float = 0.5) -> float:
    """Return the multiply-accumulates per second of matrix products on the training device, the fastest of several."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = 4096 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    float((a @ a).sum())
    best_seconds, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        best_seconds = min(best_seconds, time.perf_counter() - begin)
    return float(size**3 / best_seconds)
