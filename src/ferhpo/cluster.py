"""The Ray that a sweep runs in: started here or joined, and how many trials fit into it.

What a reader would get wrong: Ray reads some of its settings while it is imported, so this module sets them first, and
nothing else of ferhpo may import Ray before it.
"""

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

from ferhpo.config import ComputeSettings
from ferhpo.errors import ConfigError, FerhpoError, first_line

# Set before Ray is imported: it reads them at import.
_ENVIRONMENT = {
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # time for a stopped trial to leave `report`; the default of 2 s hangs fit
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours hears it (stopping.py)
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",  # what Ray says of a dead worker is coloured even in a file
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # the processes that Ray starts ahead of work never get a trial of Tune's
}
os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})

import ray  # noqa: E402

NUM_START_ATTEMPTS = 3  # ray.init waits 30 s for its node, and on a loaded machine that has been too little


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and what each one gets."""

    num_slots: int
    cpus: float
    gpus: float


def start_ray(compute: ComputeSettings) -> bool:
    """Join the cluster that `compute.address` names, or start Ray on this machine. False where Ray ran already.

    Raises FerhpoError where the cluster cannot be reached or Ray does not start.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": worker_environment()},
    }
    if compute.address is not None:
        _knock(compute.address)
        options["address"] = compute.address
    else:
        # "local": without an address Ray would join a cluster that `ray start` left on this machine.
        options.update(address="local", num_cpus=compute.num_cpus, num_gpus=compute.num_gpus, include_dashboard=False)
    for attempt in range(1, NUM_START_ATTEMPTS + 1):
        try:
            ray.init(**options)
            return True
        except ConnectionError as error:
            raise _no_cluster(compute.address, first_line(error).partition(". ")[0]) from None
        except Exception as error:  # Ray raises bare Exception for a node that is slow to start
            ray.shutdown()
            if attempt == NUM_START_ATTEMPTS:
                raise FerhpoError(f"Ray did not start in {attempt} attempts: {error}") from error
    raise AssertionError  # the last attempt returns or raises


def _knock(address: str) -> None:
    """FerhpoError where nobody listens at HOST:PORT: Ray tries for more than ten minutes before it says so."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str | None, reason: str) -> FerhpoError:
    # With an explicit address Ray shows no token by itself, and a cluster asks for one by default.
    token = "" if os.environ.get("RAY_AUTH_MODE") else ", set RAY_AUTH_MODE=token where it asks for one"
    return FerhpoError(
        f"compute.address is {address}: no Ray cluster lets us in there ({reason}); "
        f"start one with `ray start --head`{token}, or set compute.address=null"
    )


def stop_ray() -> None:
    """End, or leave, what `start_ray` started or joined."""
    ray.shutdown()


def worker_environment() -> dict[str, str]:
    """What the workers' processes need in their environment, also on other nodes."""
    names = [*_ENVIRONMENT, "PYTHONPYCACHEPREFIX", "FERHPO_CACHE_DIR"]
    return {name: os.environ[name] for name in names if name in os.environ}


def find_slots(compute: ComputeSettings) -> Slots:
    """Share the cluster's CPUs and GPUs out to trials. Raises ConfigError where not one trial fits."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_cpus, num_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = compute.gpus_per_trial if compute.gpus_per_trial is not None else float(num_gpus >= 1)
    limits = [compute.max_concurrent] if compute.max_concurrent is not None else []
    limits += [int(num_gpus / gpus + 1e-9)] if gpus else []
    limits += [int(num_cpus / compute.cpus_per_trial + 1e-9)] if compute.cpus_per_trial else []
    num_slots = max(min([*limits, int(num_cpus)]), 0)
    if num_slots < 1:
        raise ConfigError(
            "compute",
            [
                f"no trial fits: a trial wants {compute.cpus_per_trial or 1:g} CPUs and {gpus:g} GPUs, and there are "
                f"{num_cpus:g} CPUs and {num_gpus:g} GPUs; lower compute.cpus_per_trial or compute.gpus_per_trial"
            ],
        )
    cpus = compute.cpus_per_trial if compute.cpus_per_trial is not None else float(max(num_cpus // num_slots, 1))
    return Slots(num_slots, cpus, gpus)
