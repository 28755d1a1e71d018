"""The verb `plan`: estimate what a sweep or a training costs, without running it.

Note: the numbers of parameters and MACs are exact for every sampled network; memory, disk space and time are estimates.
The time is that of short trainings of two of the networks, on this machine (planning/).
"""

import copy
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ferhpo.components.kinds import is_estimator
from ferhpo.config import Composed, ComputeSettings, validate
from ferhpo.config.compose import compose
from ferhpo.config.folds import num_folds
from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.disk import existing_part
from ferhpo.errors import FerhpoError, Infeasible
from ferhpo.keys import Overrides
from ferhpo.seeds import derive_seed
from ferhpo.space import Sample
from ferhpo.storage.study.sweep_study import random_sample
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.tuning.planning import forecast as forecasts
from ferhpo.tuning.planning.costs import Network, disk, measure, network_key
from ferhpo.tuning.planning.machine import find_device, find_slots, measure_macs_per_second
from ferhpo.tuning.preflight import make_paths_absolute

NUM_SAMPLES = 100


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
    seconds: time without early stopping; from short trainings of two networks if `epoch_seconds` is not None, else from
        `macs_per_second`
    epoch_seconds: of the timed networks, with as many of them at a time as there are slots
    gpu_hours: of all trials; None without GPUs
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
    epoch_seconds: Spread | None
    gpu_hours: float | None
    macs_per_second: float
    largest: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(name: str, overrides: Overrides = (), config_dir: Path | None = None, *, timed: bool = True) -> Plan:
    """Return what the sweep or training `name` would cost. Raises ConfigError, DataError.

    timed: train two of the networks for some seconds, for an estimate of the time that knows this machine
    Without a search space (`space: null`) it is the cost of one training, as `train` runs it.
    """
    composed = compose(name, overrides, config_dir)
    validate.check_composed(composed, for_sweep=composed.is_sweep)
    data = load_data(composed)
    if num_folds(composed.config) is not None:  # all folds have about the same size
        data = fold_data(data, composed.config["data"], 0)
    num_train = int((data.split == TRAIN).sum())
    return make_plan(composed, num_train, data.image_size, data.channels, data.num_classes, data if timed else None)


def make_plan(
    composed: Composed,
    num_train: int,
    image_size: int,
    num_channels: int,
    num_classes: int,
    data: FaceData | None = None,
) -> Plan:
    """Return the plan for data of this shape, from networks that are built on torch's meta device.

    num_train: training images per epoch, of a trial or of a fold
    data: for timing networks; None if they are not to be timed
    """
    config, is_sweep = composed.config, composed.is_sweep
    space, compute = composed.space(), ComputeSettings(**config["compute"])
    samples: list[Sample] = [{}]
    if is_sweep:
        seeds = [derive_seed(int(config["seed"]), number, "plan") for number in range(NUM_SAMPLES)]
        samples = [random_sample(space, seed) for seed in seeds]
    networks: list[Network] = []
    measured: dict[str, Network] = {}
    infeasible: list[str] = []
    num_estimators = 0
    for sample in samples:
        applied = space.apply(sample)
        if is_estimator(applied["model"]):
            num_estimators += 1
            continue
        key = network_key(applied)
        try:
            if key not in measured:
                measured[key] = measure(applied, sample, image_size, num_channels, num_classes)
            networks.append(replace(measured[key], config=applied, sample=sample))
        except Infeasible as error:
            infeasible.append(str(error))
    size, num_continuous = space.size()
    num_slots, where = find_slots(compute) if is_sweep else (1, find_device(config["trainer"].get("num_threads")))
    num_trials = config["num_trials"] if is_sweep else 1
    folds, epochs = num_folds(config), int(config["trainer"]["max_epochs"])
    num_trainings = (num_trials if num_trials is not None else size) * (folds or 1)
    num_networks = num_trainings * (len(samples) - num_estimators) / len(samples)  # without those of scikit-learn
    rate = measure_macs_per_second()
    mean_macs = statistics.fmean(network.macs for network in networks) if networks else 0.0
    is_gpu = where.startswith("GPU")
    warnings = []
    forecast = None
    if data is not None and networks and compute.address is None:
        of_sweep = compute if is_sweep else None
        try:
            forecast = forecasts.make_forecast(config, networks, data, rate, num_slots, of_sweep, is_gpu)
        except FerhpoError as error:
            warnings.append(f"the networks could not be timed: {error}")
    if forecast is not None:
        mean_seconds = statistics.fmean(forecast.trial(network.macs, epochs) for network in networks)
        seconds = forecast.start_seconds + num_networks * mean_seconds / num_slots
        forecasts.save(forecast, _absolute(config))
    else:
        batch_size = int(config["trainer"]["batch_size"])
        each = [forecasts.untimed(network, num_train, batch_size, rate, is_gpu) for network in networks]
        seconds = num_networks * epochs * statistics.fmean(each or [0.0])
        seconds /= num_slots if is_gpu else 1  # CPU slots share the cores that the rate was measured on
    checkpoint_bytes, disk_bytes = disk(config, networks, num_networks, num_slots if is_sweep else None)
    output = Path(config["output_dir"])
    free = shutil.disk_usage(existing_part(output)).free
    models = list(composed.options.get("model", ())) or [composed.groups.get("model", "model")]
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
        epoch_seconds=Spread.of([forecast.epoch(network.macs) for network in networks]) if forecast else None,
        gpu_hours=_gpu_hours(seconds * num_slots, compute) if is_gpu else None,
        macs_per_second=rate,
        largest=max(networks, key=lambda network: network.num_parameters).sample if networks else {},
        warnings=warnings,
    )


def _gpu_hours(slot_seconds: float, compute: ComputeSettings) -> float:
    return slot_seconds / 3600 * (1.0 if compute.share is None else compute.share)


def _absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    absolute = copy.deepcopy(dict(config))
    make_paths_absolute(absolute)
    return absolute
