"""The Ray that a sweep runs in: started here or joined, and how many trials fit into it.

What a reader would get wrong: Ray reads some of its settings while it is imported, so this module sets them first, and
nothing else of ferhpo may import Ray before it.
"""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
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
    _say_losses_once()
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


def _say_losses_once() -> None:
    """Keep Ray from printing each lost worker as a paragraph of identifiers: the ledger says it in a line."""
    from ray._private import worker

    shown = worker.print_to_stdstream
    if shown.__module__ == worker.__name__:  # not ours yet

        def show(data: dict[str, Any], ignore_prefix: bool) -> None:
            if not str(data["lines"][0]).startswith("A worker died or was killed while executing a task"):
                shown(data, ignore_prefix)

        worker.print_to_stdstream = show


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
    return share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], compute)  # type: ignore[no-untyped-call]


def share_out(nodes: Sequence[Mapping[str, float]], compute: ComputeSettings) -> Slots:
    """Slots on nodes of so many "CPU" and "GPU" each. A trial runs on one node: what is left on two is no slot."""
    num_cpus, num_gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    gpus = compute.gpus_per_trial if compute.gpus_per_trial is not None else float(num_gpus >= 1)

    def fitting(cpus: float) -> int:
        """How many trials of so many CPUs run at a time."""
        limits = [int(num_cpus), *([compute.max_concurrent] if compute.max_concurrent is not None else [])]
        wants = [(kind, amount) for kind, amount in (("CPU", cpus), ("GPU", gpus)) if amount]
        if wants:
            limits.append(
                sum(min(int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in wants) for node in nodes)
            )
        return max(min(limits), 0)

    fewest = 1.0 if compute.cpus_per_trial is None else compute.cpus_per_trial
    num_slots = fitting(fewest)
    if num_slots < 1:
        have = sorted({f"{node.get('CPU', 0.0):g} CPUs and {node.get('GPU', 0.0):g} GPUs" for node in nodes})
        there_are = f"there are {have[0]}" if len(nodes) == 1 else f"a node has {', or '.join(have)}"
        raise ConfigError(
            "compute",
            [
                f"no trial fits: a trial wants {fewest:g} CPUs and {gpus:g} GPUs, and {there_are}; "
                "lower compute.cpus_per_trial or compute.gpus_per_trial"
            ],
        )
    if compute.cpus_per_trial is not None:
        return Slots(num_slots, compute.cpus_per_trial, gpus)
    most = int(max(node.get("CPU", 0.0) for node in nodes))
    return Slots(num_slots, float(next(n for n in range(most, 0, -1) if fitting(n) == num_slots)), gpus)
