"""What a worker tells the driver about its trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferhpo.states import TrialState

# What a worker knows before the first epoch: parameters, MACs, device. Sent with every message.
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Epoch:
    """An epoch ended. `number` counts from 1."""

    facts: Facts
    number: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Fold:
    """A fold of a cross-validated trial ended.

    number: of folds that are done
    metrics: the means over these folds; epochs: the metrics of each epoch of the last of them
    """

    facts: Facts
    number: int
    metrics: Mapping[str, float]
    epochs: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Alive:
    """An epoch of a fold ended; `num_epochs` counts those of all folds so far."""

    facts: Facts
    num_epochs: int


@dataclass(frozen=True)
class Ended:
    """The trial ended by itself."""

    facts: Facts
    state: TrialState
    reason: str = ""


@dataclass(frozen=True)
class DiskRefused:
    """A disk refused the trial's checkpoints: not the trial's fault, so the driver ends the sweep."""

    facts: Facts
    reason: str


Message = Epoch | Fold | Alive | Ended | DiskRefused
KEY = "message"  # of the message in the result that Ray Tune carries
