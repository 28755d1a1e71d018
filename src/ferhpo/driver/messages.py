"""Messages that a worker sends to the driver about its trial."""

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

    number: folds done so far
    metrics: the means over these folds; epochs: the metrics of each epoch of the last one
    """

    facts: Facts
    number: int
    metrics: Mapping[str, float]
    epochs: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Alive:
    """An epoch within a fold ended. `num_epochs` counts the epochs of all folds so far."""

    facts: Facts
    num_epochs: int


@dataclass(frozen=True)
class Ended:
    """The trial ended in `state`, other than by the scheduler."""

    facts: Facts
    state: TrialState
    reason: str = ""


@dataclass(frozen=True)
class Crowded:
    """Other processes hold the GPU memory that belongs to the trial, so the driver retries it."""

    facts: Facts
    reason: str


@dataclass(frozen=True)
class DiskRefused:
    """The disk refused the trial's checkpoints. This is not the trial's fault, so the driver ends the sweep."""

    facts: Facts
    reason: str


Message = Epoch | Fold | Alive | Ended | Crowded | DiskRefused
KEY = "message"  # under which a result of Ray Tune holds the message
