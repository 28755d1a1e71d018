"""The settings of the sections `compute` and `budget`."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ferhpo.text import plural

_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")  # one entry for each GPU that the driver knows


@dataclass(frozen=True)
class ComputeSettings:
    """Where trials run, and when a trial or the sweep is given up. Raises ValueError for a value out of range.

    address: null: this machine; auto: a running Ray cluster; otherwise the cluster's HOST:PORT
    num_cpus, num_gpus: CPU cores and GPUs of this machine that trials may use; null: all that this process may use
    cpus_per_trial: CPU cores of a slot; null: the cores divided by the number of slots
    gpus_per_trial: GPUs of a slot, e.g. 0.5 for two trials per GPU; null: 1 if there is a GPU, else 0; auto: the share
        with which the trials of a sweep train most in all, which is measured
    max_concurrent: maximum number of trials at a time; null: as many as fit
    isolate_trials: whether each trial has its own process, which costs the time of the imports
    max_retries: how often a trial is continued from its checkpoint after its worker died, unless an epoch was completed
        in between
    trial_timeout: seconds without a completed epoch after which a trial is stopped as hanging; null: no limit
    stop_after_failures: stop the sweep if this many trials, the first ones, all fail for the same reason; null: never
    stop_grace_seconds: seconds that running epochs have to complete after Ctrl-C or SIGTERM
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | Literal["auto"] | None = None
    max_concurrent: int | None = None
    isolate_trials: bool = False
    max_retries: int = 2
    trial_timeout: float | None = 4 * 3600.0
    stop_after_failures: int | None = 3
    stop_grace_seconds: float = 20.0

    def __post_init__(self) -> None:
        for key in ("num_cpus", "max_concurrent", "stop_after_failures"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{key} is {value}; it must be 1 or more, or null")
        for key in ("num_gpus", "cpus_per_trial", "gpus_per_trial", "max_retries", "stop_grace_seconds"):
            value = getattr(self, key)
            is_auto = key == "gpus_per_trial" and value == "auto"
            if value is not None and not is_auto and not (_is_finite(value) and value >= 0):
                raise ValueError(f"{key} is {value}; it must be 0 or more")
        if self.trial_timeout is not None and not (_is_finite(self.trial_timeout) and self.trial_timeout > 0):
            raise ValueError(f"trial_timeout is {self.trial_timeout}; it must be above 0 seconds, or null for no limit")
        if self.share is not None and self.share > 1 and self.share % 1:
            raise ValueError(f"gpus_per_trial is {self.gpus_per_trial}; above 1 it must be a whole number")

    @property
    def share(self) -> float | None:
        """`gpus_per_trial` as a number; None if it is null, or auto and not measured yet."""
        return None if self.gpus_per_trial == "auto" else self.gpus_per_trial

    @property
    def uses_gpu(self) -> bool:
        """Whether trials get a GPU if there is one."""
        return self.gpus_per_trial != 0 and self.num_gpus != 0


@dataclass(frozen=True)
class BudgetSettings:
    """What one start of a sweep may use before it ends, to be resumed. Raises ValueError for a value out of range.

    hours: since the driver began; gpu_hours: of all trials; trials: that are started; null: no limit
    """

    hours: float | None = None
    gpu_hours: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        for key in ("hours", "gpu_hours"):
            value = getattr(self, key)
            if value is not None and not (_is_finite(value) and value > 0):
                raise ValueError(f"{key} is {value}; it must be above 0, or null for no limit")
        trials = self.trials
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
            raise ValueError(f"trials is {trials}; it must be a whole number of 1 or more, or null for no limit")


def job_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPU cores this process may use: by its affinity, the quota of its control group, and Slurm.

    A batch system or a container grants a job fewer cores than the machine has.
    """
    cores = len(os.sched_getaffinity(0))
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if granted.isdecimal() and int(granted) > 0:
        cores = min(cores, int(granted))
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (cgroup / quota_file).read_text().split()
            period = words[1] if period_file is None else (cgroup / period_file).read_text()
            quota = float(words[0]) / float(period)
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue  # "max": no quota
        if quota > 0:
            cores = min(cores, max(math.floor(quota), 1))
    return cores


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _num_present() -> int:
    """Return the number of GPUs that the driver knows and that CUDA_VISIBLE_DEVICES does not hide."""
    present = len(list(_GPU_FOLDER.glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    return min(present, len([name for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]))


def gpu_faults(compute: ComputeSettings) -> list[str]:
    """Return what is wrong with GPUs of this machine that were asked for, or exist, and that torch cannot use."""
    import torch

    if compute.address is not None:  # the GPUs of a cluster are not known here
        return []
    found = torch.cuda.device_count()
    present = _num_present()
    why = ""
    if present > found:
        built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        why = f" (the machine has {present}; torch is built {built}; see `ferhpo doctor`)"
    if compute.num_gpus is not None and compute.num_gpus > found:
        return [
            f"compute.num_gpus is {compute.num_gpus:g}, but torch finds {plural(found, 'GPU')} on this machine{why}; "
            f"trials that get one of the others fail; set compute.num_gpus={found}"
        ]
    if compute.num_gpus is None and (compute.share or 0) > found:
        return [
            f"compute.gpus_per_trial is {compute.share:g}, but torch finds {plural(found, 'GPU')} on this "
            f"machine{why}; the sweep can only start where there are enough; set compute.gpus_per_trial={found}"
        ]
    if why and compute.num_gpus != 0:
        return [
            f"torch finds {plural(found, 'GPU')} on this machine{why}; trials that get one of the others fail; fix the "
            f"driver or install a build of torch for it, or set compute.num_gpus={found}"
        ]
    return []
