"""The verb `plan`: what a sweep would do and cost, before it costs anything.

Sizes are exact for every sample looked at; times and bytes are estimates.
"""

import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ferhpo.config import Composed, ComputeSettings
from ferhpo.config.compose import compose
from ferhpo.config.folds import num_folds
from ferhpo.config.model_section import is_estimator
from ferhpo.data.dataset import TRAIN
from ferhpo.errors import Infeasible
from ferhpo.seeds import derive_seed
from ferhpo.space import Sample
from ferhpo.storage.checkpoints import num_kept
from ferhpo.storage.study import random_sample
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.trial.run import build_network


def plan(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> "Plan":
    """What a sweep would do: size of its space, cost of its networks, disk, time. Raises ConfigError, DataError."""
    from ferhpo.config import validate

    composed = compose(name, overrides, config_dir)
    validate.check_composed(composed)
    data = load_data(composed)
    if num_folds(composed.config) is not None:  # all parts are of one size, but for a few groups
        data = fold_data(data, composed.config["data"], 0)
    num_train = int((data.split == TRAIN).sum())
    return make_plan(composed, num_train, data.image_size, data.channels, data.num_classes)


NUM_SAMPLES = 200
# A hand-written training loop reached half the rate of plain matrix products on two CPU cores, and a training step
# costs three forward passes.
SHARE_OF_RATE = 0.5
PASSES = 3
OPTIMIZER_STATES = {"Adam": 2, "AdamW": 2, "RMSprop": 1, "SGD": 1}


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest over the samples of a space."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Plan:
    """What a sweep would do, in bytes and seconds.

    checkpoint_bytes: of a training, in the mean; disk_bytes: the most that the checkpoints which stay take together,
        while MLflow takes what it is sent; largest: the sample with the most parameters
    """

    name: str
    num_points: int
    num_continuous: int
    num_trials: int | None
    num_folds: int | None
    num_slots: int
    where: str
    num_samples: int
    num_infeasible: int
    parameters: Spread | None
    macs: Spread | None
    memory_bytes: Spread | None
    mean_macs: float
    checkpoint_bytes: float
    disk_bytes: float
    free_bytes: int
    seconds: float
    macs_per_second: float
    largest: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(composed: Composed, num_train: int, image_size: int, num_channels: int, num_classes: int) -> Plan:
    """Plan a sweep over data of this shape, from samples of its space built on the meta device.

    num_train: images that train in each epoch, be it of a trial or of a fold
    """
    config, space = composed.config, composed.space()
    compute = ComputeSettings(**config["compute"])
    rows: list[tuple[int, int, int, Sample]] = []
    num_infeasible = num_fitted_once = 0
    for number in range(NUM_SAMPLES):
        sample = random_sample(space, derive_seed(int(config["seed"]), number, "plan"))
        applied = space.apply(sample)
        if is_estimator(applied["model"]):
            num_fitted_once += 1
            continue
        try:
            rows.append((*_cost(applied, image_size, num_channels, num_classes), sample))
        except Infeasible:
            num_infeasible += 1
    size, num_continuous = space.size()
    num_slots, where = _slots(compute)
    num_trials, epochs = config["num_trials"], int(config["trainer"]["max_epochs"])
    count = num_trials if num_trials is not None else size
    folds = num_folds(config)
    num_trainings = count * (folds or 1)
    rate = measure_macs_per_second()
    mean_macs = statistics.fmean(macs for _, macs, _, _ in rows) if rows else 0.0
    num_networks = num_trainings * (NUM_SAMPLES - num_fitted_once) / NUM_SAMPLES
    seconds = num_networks * epochs * num_train * mean_macs * PASSES / (rate * SHARE_OF_RATE)
    seconds /= num_slots if where.startswith("GPU") else 1  # CPU slots share the cores that the rate was taken on
    parameters = [row[0] for row in rows]
    states = OPTIMIZER_STATES.get(config["optim"]["_target_"].rpartition(".")[2], 2)
    mean_weights = 4.0 * statistics.fmean(parameters) if rows else 0.0
    # best and each kept epoch: weights; last: weights and the optimiser's states
    num_weights = 2 + states + len(config["trainer"].get("keep_epochs") or ())
    checkpoint_bytes = mean_weights * num_weights
    disk_bytes = num_networks * checkpoint_bytes
    kept = num_kept(config)
    if kept is not None and rows:  # those of the best and of what runs, however large
        most = (kept + num_slots) * (folds or 1) * 4.0 * max(parameters) * num_weights
        disk_bytes = min(disk_bytes, most)
    if config["tracking"]["uri"] != "none":
        disk_bytes += num_networks * mean_weights  # MLflow has a copy of each best
    output = Path(config["output_dir"])
    free = shutil.disk_usage(next(p for p in [output, *output.absolute().parents] if p.exists())).free
    warnings = []
    if disk_bytes > 0.9 * free:
        warnings.append(f"checkpoints may take {disk_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    if num_infeasible:
        warnings.append(f"{num_infeasible} of {NUM_SAMPLES} samples make no network")
    if num_fitted_once:
        warnings.append(
            f"{num_fitted_once} of {NUM_SAMPLES} samples are scikit-learn's estimators, whose time, memory and size "
            "only a fit tells: the numbers leave them out"
        )
    return Plan(
        name=str(config["name"]),
        num_points=size,
        num_continuous=num_continuous,
        num_trials=num_trials,
        num_folds=folds,
        num_slots=num_slots,
        where=where,
        num_samples=NUM_SAMPLES,
        num_infeasible=num_infeasible,
        parameters=Spread.of(parameters) if rows else None,
        macs=Spread.of([row[1] for row in rows]) if rows else None,
        memory_bytes=Spread.of([row[2] for row in rows]) if rows else None,
        mean_macs=mean_macs,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=disk_bytes,
        free_bytes=free,
        seconds=seconds,
        macs_per_second=rate,
        largest=max(rows, key=lambda row: row[0])[3] if rows else {},
        warnings=warnings,
    )


def _cost(config: Mapping[str, Any], image_size: int, num_channels: int, num_classes: int) -> tuple[int, int, int]:
    """(parameters, multiply-accumulates of an image, bytes of memory in training) of one configuration."""
    import torch

    from ferhpo.models.count import count_macs, count_parameters, training_memory_bytes
    from ferhpo.trial.run import input_size

    with torch.device("meta"):
        network = build_network(config, num_channels, num_classes, image_size)
    size = input_size(config, image_size)
    states = OPTIMIZER_STATES.get(config["optim"]["_target_"].rpartition(".")[2], 2)
    batch_size = int(config["trainer"]["batch_size"])
    shape = (num_channels, size, size)
    memory = training_memory_bytes(network, shape, batch_size, states)
    return count_parameters(network), count_macs(network, shape), memory


def _slots(compute: ComputeSettings) -> tuple[int, str]:
    """How many trials at a time, and where, as far as can be told without starting Ray."""

    import torch

    if compute.address is not None:
        return compute.max_concurrent or 1, f"Ray cluster at {compute.address} (its size shows when it is joined)"
    num_gpus = compute.num_gpus if compute.num_gpus is not None else torch.cuda.device_count()
    num_cpus = compute.num_cpus or os.cpu_count() or 1
    gpus = compute.gpus_per_trial if compute.gpus_per_trial is not None else float(num_gpus >= 1)
    limits = [num_cpus] + ([compute.max_concurrent] if compute.max_concurrent else [])
    limits += [int(num_gpus / gpus + 1e-9)] if gpus else []
    limits += [int(num_cpus / compute.cpus_per_trial + 1e-9)] if compute.cpus_per_trial else []
    num_slots = max(min(limits), 1)
    if gpus:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "not present"
        return num_slots, f"GPU: {num_gpus} ({name}), {gpus:g} a trial"
    return num_slots, f"CPU: {num_cpus} cores, {compute.cpus_per_trial or max(num_cpus // num_slots, 1):g} a trial"


def measure_macs_per_second(seconds: float = 0.5) -> float:
    """Multiply-accumulates a second of the fastest of some plain matrix products on the device that would train."""
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
