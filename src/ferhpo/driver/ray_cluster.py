"""Start Ray or join a cluster, and compute how many trials fit into it.

Note: Ray reads some of its settings at import. This module sets them first, so every module of ferhpo that imports Ray
imports this one before.
"""

import atexit
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferhpo.addresses.trust import cluster_fault
from ferhpo.config import ComputeSettings
from ferhpo.config.settings import job_cpus
from ferhpo.driver.processes.mps import VARIABLES as MPS_VARIABLES
from ferhpo.errors import ConfigError, FerhpoError, first_line
from ferhpo.training.settings import PRETEND_GPU

# Ray reads these at import, so they are set before it.
_ENVIRONMENT = {
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # time for a stopped trial to leave `report`; the default of 2 s hangs fit
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals.py handles it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",  # Ray's message about a dead worker is colored even in a file
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # Tune's trials never use processes that Ray starts in advance
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for deterministic sums; cuBLAS reads it at its first call
}
os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})

import ray  # noqa: E402
from ray.job_config import JobConfig  # noqa: E402

NUM_START_ATTEMPTS = 3  # ray.init waits 30 s for its node, which has been too short on a loaded machine
ABANDON_SECONDS = 3.0


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and the resources of each."""

    num_slots: int
    cpus: float
    gpus: float

    @property
    def num_threads(self) -> int:
        """The CPU threads that a trial can use."""
        return max(int(self.cpus), 1)


def start_ray(compute: ComputeSettings) -> bool:
    """Join the cluster at `compute.address`, or start Ray on this machine. Returns False if Ray was running already.

    Raises FerhpoError if the cluster cannot be reached or Ray does not start.
    """
    if ray.is_initialized():
        return False
    _silence_worker_losses()
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": worker_environment()},
        "job_config": _job_config(),
    }
    if compute.address is not None:
        if fault := cluster_fault(compute.address):
            raise FerhpoError(fault)
        _check_reachable(compute.address)
        options["address"] = compute.address
    else:
        # "local": without an address Ray would join a cluster that `ray start` left on this machine.
        options.update(
            address="local", num_cpus=compute.num_cpus or job_cpus(), num_gpus=compute.num_gpus, include_dashboard=False
        )
    for attempt in range(1, NUM_START_ATTEMPTS + 1):
        try:
            ray.init(**options)
            return True
        except ConnectionError as error:
            raise _no_cluster(compute.address, first_line(error).partition(". ")[0]) from None
        except Exception as error:  # Ray raises a bare Exception if a node is slow to start
            ray.shutdown()
            if attempt == NUM_START_ATTEMPTS:
                raise FerhpoError(f"Ray did not start in {attempt} attempts: {error}") from error
    raise AssertionError  # the last attempt returns or raises


class _ImportPaths(list[str]):
    """The folders from which workers import: only those from which the driver imports.

    Ray adds the current folder, whatever is in it.
    """

    def extend(self, paths: Iterable[str]) -> None:
        super().extend(path for path in paths if path in {os.path.abspath(place) for place in sys.path})  # noqa: PTH100


def _job_config() -> JobConfig:
    config = JobConfig()
    config._py_driver_sys_path = _ImportPaths()
    return config


def _silence_worker_losses() -> None:
    """Keep Ray from printing a paragraph of identifiers for each lost worker: the ledger logs one line instead."""
    from ray._private import worker

    original = worker.print_to_stdstream
    if original.__module__ == worker.__name__:  # not replaced yet

        def filtered(data: dict[str, Any], ignore_prefix: bool) -> None:
            if not str(data["lines"][0]).startswith("A worker died or was killed while executing a task"):
                original(data, ignore_prefix)

        worker.print_to_stdstream = filtered


def _check_reachable(address: str) -> None:
    """Raise FerhpoError if nothing listens at HOST:PORT. Ray itself would try for more than ten minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str | None, reason: str) -> FerhpoError:
    # With an explicit address Ray sends no token unless RAY_AUTH_MODE is set, and clusters require one by default.
    token = "" if os.environ.get("RAY_AUTH_MODE") else ", set RAY_AUTH_MODE=token if it requires a token"
    return FerhpoError(
        f"compute.address is {address}: cannot connect to a Ray cluster there ({reason}); "
        f"start one with `ray start --head`{token}, or set compute.address=null"
    )


def stop_ray() -> None:
    """Stop the Ray that `start_ray` started, or leave the cluster that it joined."""
    ray.shutdown()


def abandon_ray() -> None:
    """Leave a Ray whose head is gone. Its own shutdown would wait for the head, and then abort this process."""
    atexit.unregister(ray.shutdown)
    leaving = threading.Thread(target=ray.shutdown, daemon=True, name="ray-abandoned")
    leaving.start()
    leaving.join(ABANDON_SECONDS)


def head_address() -> str:
    """Return HOST:PORT of the control server of the Ray that this process uses."""
    return str(ray.get_runtime_context().gcs_address)


def worker_environment() -> dict[str, str]:
    """Return the environment variables that worker processes need, on other nodes too."""
    names = [*_ENVIRONMENT, "PYTHONPYCACHEPREFIX", "FERHPO_CACHE_DIR", PRETEND_GPU, *MPS_VARIABLES]
    return {name: os.environ[name] for name in names if name in os.environ}


def find_slots(compute: ComputeSettings) -> Slots:
    """Divide the cluster's CPUs and GPUs into slots. Raises ConfigError if not even one trial fits."""
    return share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], compute)  # type: ignore[no-untyped-call]


def share_out(nodes: Sequence[Mapping[str, float]], compute: ComputeSettings) -> Slots:
    """Return the slots on nodes with these "CPU" and "GPU" counts.

    A trial runs on one node: resources that are left over on two nodes do not add up to a slot.
    """
    num_cpus, num_gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    gpus = compute.share if compute.share is not None else float(num_gpus >= 1)

    def fitting(cpus: float) -> int:
        """Return how many trials with this many CPUs run at a time."""
        limits = [int(num_cpus), *([compute.max_concurrent] if compute.max_concurrent is not None else [])]
        needs = [(kind, amount) for kind, amount in (("CPU", cpus), ("GPU", gpus)) if amount]
        if needs:
            limits.append(
                sum(min(int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs) for node in nodes)
            )
        return max(min(limits), 0)

    fewest = 1.0 if compute.cpus_per_trial is None else compute.cpus_per_trial
    num_slots = fitting(fewest)
    if num_slots < 1:
        per_node = sorted({f"{node.get('CPU', 0.0):g} CPUs and {node.get('GPU', 0.0):g} GPUs" for node in nodes})
        available = per_node[0] if len(nodes) == 1 else f"{', or '.join(per_node)} per node"
        raise ConfigError(
            "compute",
            [
                f"not enough resources for one trial: needs {fewest:g} CPUs and {gpus:g} GPUs, available: {available}; "
                "lower compute.cpus_per_trial or compute.gpus_per_trial"
            ],
        )
    if compute.cpus_per_trial is not None:
        return Slots(num_slots, compute.cpus_per_trial, gpus)
    most = int(max(node.get("CPU", 0.0) for node in nodes))
    return Slots(num_slots, float(next(n for n in range(most, 0, -1) if fitting(n) == num_slots)), gpus)
