"""The verb `plan`: estimate what a sweep or a training costs, without running it.

Note: the numbers of parameters and MACs are exact for every sampled network; memory, disk space and time are estimates.
"""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ferhpo.components.kinds import component, is_estimator
from ferhpo.config import Composed, ComputeSettings, validate
from ferhpo.config.compose import compose
from ferhpo.config.folds import num_folds
from ferhpo.config.settings import job_cpus
from ferhpo.data.dataset import TRAIN
from ferhpo.disk import existing_part
from ferhpo.errors import Infeasible
from ferhpo.keys import Overrides
from ferhpo.seeds import derive_seed
from ferhpo.space import Sample
from ferhpo.storage.checkpoints import num_kept
from ferhpo.storage.study.sweep_study import random_sample
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.trial.run import build_network

NUM_SAMPLES = 200
# A hand-written training loop reached half the rate of plain matrix products on two CPU cores, and a training step
# costs three forward passes.
SHARE_OF_RATE = 0.5
PASSES = 3
OPTIMIZER_STATES = {"Adam": 2, "AdamW": 2, "RMSprop": 1, "SGD": 1}  # values per parameter
WEIGHT_BYTES = 4.0


@dataclass(frozen=True)
class Spread:
    """The smallest, median and largest value over the sampled networks; all equal for a single network."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Plan:
    """What a sweep or a training costs, in bytes and seconds.

    kind: "sweep", or "training" for a configuration without a search space
    model: option of the config group `model`, or several joined by " or "
    num_points, num_continuous: size of the discrete part of the space, and number of continuous draws
    num_train: training images per epoch, of a trial or of a fold
    num_samples: sampled configurations that the numbers are based on
    parameters, macs (per image), memory_bytes (in training): None if no sampled network can be built or measured
    checkpoint_bytes: mean size of the checkpoints of one training
    disk_bytes: maximum size of all checkpoints that are kept, and of the models in MLflow
    seconds: time without early stopping, at `macs_per_second`
    largest: the sample with the most parameters
    """

    name: str
    kind: str
    model: str
    num_points: int
    num_continuous: int
    num_trials: int | None
    num_folds: int | None
    max_epochs: int
    num_train: int
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


@dataclass(frozen=True)
class _Network:
    """What one network costs: MACs are per image, bytes of memory in training."""

    sample: Sample
    num_parameters: int
    macs: int
    memory_bytes: int


def plan(name: str, overrides: Overrides = (), config_dir: Path | None = None) -> Plan:
    """Return what the sweep or training `name` would cost. Raises ConfigError, DataError.

    Without a search space (`space: null`) it is the cost of one training, as `train` runs it.
    """
    composed = compose(name, overrides, config_dir)
    validate.check_composed(composed, for_sweep=composed.is_sweep)
    data = load_data(composed)
    if num_folds(composed.config) is not None:  # all folds have about the same size
        data = fold_data(data, composed.config["data"], 0)
    num_train = int((data.split == TRAIN).sum())
    return make_plan(composed, num_train, data.image_size, data.channels, data.num_classes)


def make_plan(composed: Composed, num_train: int, image_size: int, num_channels: int, num_classes: int) -> Plan:
    """Return the plan for data of this shape, from networks that are built on torch's meta device.

    num_train: training images per epoch, of a trial or of a fold
    """
    config, is_sweep = composed.config, composed.is_sweep
    space, compute = composed.space(), ComputeSettings(**config["compute"])
    samples: list[Sample] = [{}]
    if is_sweep:
        seeds = [derive_seed(int(config["seed"]), number, "plan") for number in range(NUM_SAMPLES)]
        samples = [random_sample(space, seed) for seed in seeds]
    networks: list[_Network] = []
    infeasible: list[str] = []
    num_estimators = 0
    for sample in samples:
        applied = space.apply(sample)
        if is_estimator(applied["model"]):
            num_estimators += 1
            continue
        try:
            networks.append(_measure(applied, sample, image_size, num_channels, num_classes))
        except Infeasible as error:
            infeasible.append(str(error))
    size, num_continuous = space.size()
    num_slots, where = _slots(compute) if is_sweep else (1, _device(config["trainer"].get("num_threads")))
    num_trials = config["num_trials"] if is_sweep else 1
    folds, epochs = num_folds(config), int(config["trainer"]["max_epochs"])
    num_trainings = (num_trials if num_trials is not None else size) * (folds or 1)
    num_networks = num_trainings * (len(samples) - num_estimators) / len(samples)  # without those of scikit-learn
    rate = measure_macs_per_second()
    mean_macs = statistics.fmean(network.macs for network in networks) if networks else 0.0
    seconds = num_networks * epochs * num_train * mean_macs * PASSES / (rate * SHARE_OF_RATE)
    seconds /= num_slots if where.startswith("GPU") else 1  # CPU slots share the cores that the rate was measured on
    checkpoint_bytes, disk_bytes = _disk(config, networks, num_networks, num_slots if is_sweep else None)
    output = Path(config["output_dir"])
    free = shutil.disk_usage(existing_part(output)).free
    models = list(composed.options.get("model", ())) or [composed.groups.get("model", "model")]
    warnings = []
    if disk_bytes > 0.9 * free:
        warnings.append(f"checkpoints may take {disk_bytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")
    if infeasible:
        warnings.append(
            f"{len(infeasible)} of {len(samples)} sampled networks cannot be built" if is_sweep else infeasible[0]
        )
    if num_estimators and is_sweep:
        warnings.append(
            f"{num_estimators} of {len(samples)} samples are scikit-learn estimators, whose parameters, memory and "
            "time are known only after fitting; they are not included"
        )
    elif num_estimators:
        warnings.append(
            f"{models[0]} is a scikit-learn estimator, fitted once; its parameters, memory and time are known only "
            "after fitting and are not estimated"
        )
    return Plan(
        name=str(config["name"]),
        kind="sweep" if is_sweep else "training",
        model=" or ".join(models),
        num_points=size,
        num_continuous=num_continuous,
        num_trials=num_trials,
        num_folds=folds,
        max_epochs=epochs,
        num_train=num_train,
        num_slots=num_slots,
        where=where,
        num_samples=len(samples),
        num_infeasible=len(infeasible),
        parameters=Spread.of([network.num_parameters for network in networks]) if networks else None,
        macs=Spread.of([network.macs for network in networks]) if networks else None,
        memory_bytes=Spread.of([network.memory_bytes for network in networks]) if networks else None,
        mean_macs=mean_macs,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=disk_bytes,
        free_bytes=free,
        seconds=seconds,
        macs_per_second=rate,
        largest=max(networks, key=lambda network: network.num_parameters).sample if networks else {},
        warnings=warnings,
    )


def _measure(
    config: Mapping[str, Any], sample: Sample, image_size: int, num_channels: int, num_classes: int
) -> _Network:
    """Return the cost of the network of one configuration. Raises Infeasible if it cannot be built."""
    from ferhpo.models.count import count_macs, count_parameters, training_memory_bytes
    from ferhpo.models.meta import without_weights
    from ferhpo.trial.run import input_size

    with without_weights():
        network = build_network(config, num_channels, num_classes, image_size)
    side = input_size(config, image_size)
    shape = (num_channels, side, side)
    batch_size = int(config["trainer"]["batch_size"])
    memory = training_memory_bytes(network, shape, batch_size, _num_optimizer_states(config))
    return _Network(sample, count_parameters(network), count_macs(network, shape), memory)


def _disk(
    config: Mapping[str, Any], networks: Sequence[_Network], num_trainings: float, num_slots: int | None
) -> tuple[float, float]:
    """Return (mean bytes of the checkpoints of a training, maximum bytes on disk in all).

    num_slots: trials at a time in a sweep; None for a single training, whose checkpoints are all kept
    """
    if not networks:
        return 0.0, 0.0
    parameters = [network.num_parameters for network in networks]
    mean_weights = WEIGHT_BYTES * statistics.fmean(parameters)
    # best.ckpt and each kept epoch have the weights, last.ckpt the weights and the optimizer's states.
    num_copies = 2 + _num_optimizer_states(config) + len(config["trainer"].get("keep_epochs") or ())
    disk_bytes = num_trainings * mean_weights * num_copies
    kept = num_kept(config)
    if kept is not None and num_slots is not None:  # those of the best trials and of the running ones
        num_kept_trainings = (kept + num_slots) * (num_folds(config) or 1)
        disk_bytes = min(disk_bytes, num_kept_trainings * WEIGHT_BYTES * max(parameters) * num_copies)
    if config["tracking"]["uri"] != "none":
        disk_bytes += num_trainings * mean_weights  # MLflow has a copy of the weights of each training
    return mean_weights * num_copies, disk_bytes


def _num_optimizer_states(config: Mapping[str, Any]) -> int:
    """Return how many values per parameter the optimizer stores; 2 for an optimizer that is not known."""
    found = component(config["optim"], "optim")
    names = [base.__name__ for base in found.__mro__] if isinstance(found, type) else []
    return next((OPTIMIZER_STATES[name] for name in names if name in OPTIMIZER_STATES), 2)


def _slots(compute: ComputeSettings) -> tuple[int, str]:
    """Return how many trials run at a time, and where, as far as it is known without starting Ray."""
    import torch

    if compute.address is not None:
        return (
            compute.max_concurrent or 1,
            f"Ray cluster at {compute.address} (its size is not known before connecting)",
        )
    num_gpus = compute.num_gpus if compute.num_gpus is not None else torch.cuda.device_count()
    num_cpus = compute.num_cpus or job_cpus()
    gpus = compute.gpus_per_trial if compute.gpus_per_trial is not None else float(num_gpus >= 1)
    limits = [num_cpus] + ([compute.max_concurrent] if compute.max_concurrent else [])
    limits += [int(num_gpus / gpus + 1e-9)] if gpus else []
    limits += [int(num_cpus / compute.cpus_per_trial + 1e-9)] if compute.cpus_per_trial else []
    num_slots = max(min(limits), 1)
    if gpus:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "not present"
        return num_slots, f"GPU: {num_gpus} ({name}), {gpus:g} per trial"
    return num_slots, f"CPU: {num_cpus} cores, {compute.cpus_per_trial or max(num_cpus // num_slots, 1):g} per trial"


def _device(num_threads: int | None) -> str:
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
