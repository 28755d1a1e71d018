"""What the networks of a sweep cost, without training them."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferhpo.components.kinds import component
from ferhpo.config.folds import num_folds
from ferhpo.space import Sample
from ferhpo.storage.checkpoints import num_kept
from ferhpo.trial.run import build_network, input_size

OPTIMIZER_STATES = {"Adam": 2, "AdamW": 2, "RMSprop": 1, "SGD": 1}  # values per parameter
WEIGHT_BYTES = 4.0


@dataclass(frozen=True)
class Network:
    """What one network costs: MACs are per image, bytes of memory in training."""

    config: Mapping[str, Any]
    sample: Sample
    num_parameters: int
    num_modules: int
    macs: int
    memory_bytes: int


def network_key(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for configurations whose networks cost the same."""
    parts = [
        config["model"],
        config["augment"].get("crop"),
        config["trainer"]["batch_size"],
        config["optim"]["_target_"],
    ]
    return json.dumps(parts, sort_keys=True, default=str)


def measure(config: Mapping[str, Any], sample: Sample, image_size: int, num_channels: int, num_classes: int) -> Network:
    """Return the cost of the network of one configuration. Raises Infeasible if it cannot be built."""
    from ferhpo.models.count import count_macs, count_parameters, training_memory_bytes
    from ferhpo.models.meta import without_weights

    with without_weights():
        network = build_network(config, num_channels, num_classes, image_size)
    side = input_size(config, image_size)
    shape = (num_channels, side, side)
    batch_size = int(config["trainer"]["batch_size"])
    memory = training_memory_bytes(network, shape, batch_size, _num_optimizer_states(config))
    modules = sum(1 for module in network.modules() if not list(module.children()))
    return Network(config, sample, count_parameters(network), modules, count_macs(network, shape), memory)


def disk(
    config: Mapping[str, Any], networks: Sequence[Network], num_trainings: float, num_slots: int | None
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
