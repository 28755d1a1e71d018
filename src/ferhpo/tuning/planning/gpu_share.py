"""The share of a GPU that each trial gets with `compute.gpus_per_trial=auto`: the one with which most is trained.

Small networks leave most of a card idle. Whether several at a time train more in all is measured: a network of the
space is trained for some seconds by 1, 2, 4 and 8 processes on one card.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from ferhpo.components.kinds import is_estimator
from ferhpo.config import ComputeSettings
from ferhpo.config.settings import job_cpus
from ferhpo.data.dataset import TRAIN, VAL, FaceData
from ferhpo.errors import ConfigError, FerhpoError, Infeasible
from ferhpo.seeds import derive_seed
from ferhpo.storage.study.sweep_study import random_sample
from ferhpo.storage.sweep import Sweep
from ferhpo.text import STEPS, plural, size
from ferhpo.training.settings import Hardware
from ferhpo.tuning.planning.costs import Network, measure
from ferhpo.tuning.planning.timing import time_networks

log = logging.getLogger(STEPS)

NUM_SAMPLES = 20
COUNTS = (2, 4, 8)  # trials on a card
WORTH = 1.15  # the gain for which twice as many trials share a card
CONTEXT_BYTES = 0.7e9  # of each process on a card, besides its tensors
USABLE = 0.9  # of a card's memory
GUESS = 10_000.0  # images per second, for the number of images that are timed


def with_share(sweep: Sweep, data: FaceData, compute: ComputeSettings) -> ComputeSettings:
    """Return the settings with a number for `gpus_per_trial: auto`; a resume keeps that of the same kind of card.

    Raises ConfigError for a cluster, whose cards are not here.
    """
    if compute.gpus_per_trial != "auto":
        return compute
    if compute.address is not None:
        raise ConfigError(
            "compute",
            [
                f"compute.gpus_per_trial is auto, which is measured on this machine, and compute.address is "
                f"{compute.address}; set a number, e.g. compute.gpus_per_trial=0.25"
            ],
        )
    import torch

    num_gpus = torch.cuda.device_count() if compute.num_gpus is None else compute.num_gpus
    if num_gpus == 0 or not torch.cuda.is_available():
        return compute
    card = torch.cuda.get_device_properties(0)
    known = sweep.meta.get("gpu_share")
    if not isinstance(known, dict) or known.get("card") != card.name:
        log.info("measuring how many trials share a GPU")
        num_trials = _num_on_card(sweep, data, card.total_memory, job_cpus() // num_gpus)
        known = sweep.meta["gpu_share"] = {"card": card.name, "num_trials": num_trials}
    log.info("%s on each GPU", plural(int(known["num_trials"]), "trial"))
    return replace(compute, gpus_per_trial=1 / int(known["num_trials"]))


def _num_on_card(sweep: Sweep, data: FaceData, card_bytes: float, most: int) -> int:
    """Return how many trials share a card; most: the processor cores for each card."""
    networks = sorted(_networks(sweep, data), key=lambda network: network.macs)
    if not networks:  # of scikit-learn, or none that can be built
        return 1
    needed = max(network.memory_bytes for network in networks) + CONTEXT_BYTES
    most = min(most, int(USABLE * card_bytes / needed))
    median = networks[len(networks) // 2]

    def rate(num_processes: int) -> float:
        """Return the epochs per second of a card that so many processes share."""
        hardware = Hardware(1, num_gpus=1 / num_processes)
        try:
            _, (timing,) = time_networks([median.config], data, [GUESS / num_processes], hardware, num_processes)
        except FerhpoError as error:
            log.info("%s on a GPU could not be timed: %s", plural(num_processes, "trial"), error)
            return 0.0
        counts = (int((data.split == part).sum()) for part in (TRAIN, VAL))
        return num_processes / timing.epoch(*counts)

    found = most_productive(rate, most)
    log.info("the largest of %d sampled networks takes about %s of memory", len(networks), size(needed))
    return found


def most_productive(rate: Callable[[int], float], most: int) -> int:
    """Return the number of trials on a card that train most in all, doubled only while that is worth it."""
    best, best_rate = 1, rate(1)
    for count in COUNTS:
        if count > most or (count_rate := rate(count)) < WORTH * best_rate:
            break
        best, best_rate = count, count_rate
    return best


def _networks(sweep: Sweep, data: FaceData) -> list[Network]:
    config, space = sweep.config, sweep.run_config.space
    networks = []
    for number in range(NUM_SAMPLES):
        sample = random_sample(space, derive_seed(int(config["seed"]), number, "plan"))
        applied = space.apply(sample)
        if is_estimator(applied["model"]):
            continue
        try:
            networks.append(measure(applied, sample, data.image_size, data.channels, data.num_classes))
        except Infeasible:
            continue
    return networks
