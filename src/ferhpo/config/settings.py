"""The `compute` and `objective` sections."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ComputeSettings:
    """Where trials run.

    address: null for this machine, auto for a running Ray cluster, or its address
    num_cpus, num_gpus: what this machine offers to trials; null finds out
    cpus_per_trial: CPU cores of a slot; null shares the cores among the slots
    gpus_per_trial: GPUs of a slot, 0.5 puts two trials on one; null is 1 where there is a GPU, else 0
    max_concurrent: the most trials at a time; null is as many as fit
    isolate_trials: a fresh process for every trial, at the cost of its imports
    max_retries: how often a trial whose worker died goes on from its checkpoint without an epoch in between
    trial_timeout: seconds without an epoch after which a trial counts as hanging; null is never
    stop_after_failures: the sweep stops when its first so many trials all fail for one reason; null is never
    stop_grace_seconds: from ctrl-C or SIGTERM on, for running epochs to come to their end
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
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
            if value is not None and not (_is_finite(value) and value >= 0):
                raise ValueError(f"{key} is {value}; it must be 0 or more")
        if self.trial_timeout is not None and not (_is_finite(self.trial_timeout) and self.trial_timeout > 0):
            raise ValueError(
                f"trial_timeout is {self.trial_timeout}; it must be more than 0 seconds, or null for never"
            )
        if self.gpus_per_trial is not None and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial is {self.gpus_per_trial}; above 1 it must be a whole number")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
