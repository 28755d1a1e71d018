"""The forecast of `ferhpo plan`, kept in the cache until the sweep says at its end how far it was off."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ferhpo.config import ComputeSettings
from ferhpo.config.settings import job_cpus
from ferhpo.data.dataset import TRAIN, VAL, FaceData
from ferhpo.data.io.cache import cache_folder
from ferhpo.disk import write_json
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import duration
from ferhpo.training.settings import Hardware
from ferhpo.tuning.planning.costs import Network
from ferhpo.tuning.planning.timing import time_networks

# A hand-written training loop reached half the rate of plain matrix products on two CPU cores, and a training step
# costs three forward passes.
SHARE_OF_RATE = 0.5
PASSES = 3
STEP_SECONDS_PER_MODULE = 6.3 * 7e-6  # on a GPU: a module starts about six operations, each of which takes 7 us
# What does not change the time of a trial
_OTHER_KEYS = ("name", "output_dir", "num_trials", "keep_checkpoints", "budget", "tracking", "objective", "sampler",
               "scheduler", "allowed_targets", "space")  # fmt: skip
RAY_SECONDS = 10.0  # to start and stop Ray, and to end the sweep; python benchmarks/trivial_trials.py shows them


@dataclass(frozen=True)
class Forecast:
    """What trials of a sweep take, by the multiply-accumulates of their networks.

    macs, epoch_seconds, trial_seconds: of the timed networks, smallest first; of one epoch, and of a trial besides its
        epochs
    start_seconds: of the sweep until trials train; num_slots: trials at a time
    """

    macs: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    trial_seconds: tuple[float, ...]
    start_seconds: float
    num_slots: int

    def epoch(self, macs: float) -> float:
        """Return the seconds of an epoch of a network with so many multiply-accumulates per image."""
        first, last = self.epoch_seconds[0], self.epoch_seconds[-1]
        width = self.macs[-1] - self.macs[0]
        slope = max(last - first, 0.0) / width if width else 0.0
        # Below the smaller network the line may go down to nothing.
        return max(first + slope * (macs - self.macs[0]), first * min(macs / self.macs[0], 1.0))

    def trial(self, macs: float, num_epochs: float) -> float:
        """Return the seconds of a trial."""
        return sum(self.trial_seconds) / len(self.trial_seconds) + num_epochs * self.epoch(macs)

    def sweep(self, trials: Iterable[tuple[float, float]]) -> float:
        """Return the seconds of a sweep, of trials given as (multiply-accumulates, number of epochs)."""
        return self.start_seconds + sum(self.trial(macs, num) for macs, num in trials) / self.num_slots


def untimed(network: Network, num_train: int, batch_size: int, macs_per_second: float, is_gpu: bool) -> float:
    """Return the seconds of an epoch as far as the rate of matrix products tells.

    On a GPU a step takes at least as long as its operations take to start.
    """
    seconds = num_train * network.macs * PASSES / (macs_per_second * SHARE_OF_RATE)
    starts = num_train / batch_size * network.num_modules * STEP_SECONDS_PER_MODULE
    return max(seconds, starts) if is_gpu else seconds


def make_forecast(
    config: Mapping[str, Any],
    networks: Sequence[Network],
    data: FaceData,
    macs_per_second: float,
    num_slots: int,
    compute: ComputeSettings | None,
    is_gpu: bool,
) -> Forecast:
    """Time the networks at the quartiles of the costs. Raises FerhpoError if they cannot be trained.

    compute: of a sweep; None for a single training
    """
    ordered = sorted(networks, key=lambda network: network.macs)
    quartiles = [ordered[len(ordered) // 4], ordered[len(ordered) * 3 // 4]]
    chosen = quartiles if quartiles[0].macs < quartiles[1].macs else quartiles[:1]
    threads, gpus, num_processes = int(config["trainer"].get("num_threads") or job_cpus()), None, 1
    if compute is not None:
        threads = max(int(compute.cpus_per_trial or (compute.num_cpus or job_cpus()) // num_slots), 1)
        gpus = (1.0 if compute.share is None else compute.share) if is_gpu else 0.0
        num_processes = (int(1 / gpus + 1e-9) or 1) if gpus else num_slots  # those that share a GPU, or the cores
    guesses = [macs_per_second * SHARE_OF_RATE / (PASSES * network.macs * num_processes) for network in chosen]
    hardware = Hardware(threads, num_gpus=gpus)
    start, timings = time_networks([network.config for network in chosen], data, guesses, hardware, num_processes)
    num_train, num_val = (int((data.split == part).sum()) for part in (TRAIN, VAL))
    batch_size = int(config["trainer"]["batch_size"])
    num_trained = num_train // batch_size * batch_size if num_train >= batch_size else num_train
    epochs = [timing.epoch(num_trained, num_val) for timing in timings]
    macs = tuple(float(network.macs) for network in chosen)
    start += RAY_SECONDS if compute is not None else 0.0
    return Forecast(macs, tuple(epochs), tuple(t.per_trial for t in timings), start, num_slots)


def save(forecast: Forecast, config: Mapping[str, Any]) -> None:
    """Keep the forecast of a configuration in the cache. A cache that cannot be written is no fault."""
    try:
        path = _path(config)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(forecast))
    except OSError:
        return


def load(config: Mapping[str, Any]) -> Forecast | None:
    """Return the forecast of a configuration, if `ferhpo plan` has made one."""
    try:
        return from_dict(json.loads(_path(config).read_text()))
    except (OSError, ValueError):
        return None


def from_dict(values: Any) -> Forecast | None:
    """Return the forecast that `asdict` made a dict of; None if it is something else."""
    try:
        lists = {key: tuple(map(float, values[key])) for key in ("macs", "epoch_seconds", "trial_seconds")}
        forecast = Forecast(**lists, start_seconds=float(values["start_seconds"]), num_slots=int(values["num_slots"]))
        is_whole = min(forecast.macs) > 0 and len({*map(len, lists.values())}) == 1 and forecast.num_slots > 0
    except (KeyError, TypeError, ValueError):
        return None
    return forecast if is_whole else None


def comparison(forecast: Forecast, trials: Sequence[TrialRecord], seconds: float) -> str:
    """Return how far a forecast was off for the trials of a sweep that took `seconds`; "" if it cannot be said."""
    ran = [(float(trial.extra.get("macs", 0)), float(_num_epochs(trial))) for trial in trials]
    if not ran or not all(macs > 0 for macs, _ in ran):
        return ""
    expected = forecast.sweep(ran)
    return (
        f"`ferhpo plan` forecast {duration(expected)} for these networks and epochs; the sweep took "
        f"{duration(seconds)} ({100 * (seconds / expected - 1):+.0f} %)"
    )


def _num_epochs(trial: TrialRecord) -> int:
    return sum(map(len, trial.fold_epochs)) or len(trial.epochs)


def _path(config: Mapping[str, Any]) -> Path:
    kept = {key: value for key, value in config.items() if key not in _OTHER_KEYS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    return cache_folder(None) / "forecasts" / f"{digest}.json"
