"""Learning rate schedules: functions of (optimizer, num_epochs=, steps_per_epoch=, **settings) that return a Schedule.

The settings are those of the file in conf/lr_schedule. constant, cosine and one_cycle change the learning rate at every
step, step and plateau at the end of an epoch. The learning rate of the optimizer is the maximum of each schedule.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau


@dataclass
class Schedule:
    """A torch scheduler, and whether to call it every "step" or every "epoch"."""

    scheduler: LRScheduler | ReduceLROnPlateau
    every: str

    def after_step(self) -> None:
        """Update the learning rate after a step of the optimizer."""
        if self.every == "step" and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        """Update the learning rate after an epoch; `score` is the objective, negated if it is minimized."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(score)
        elif self.every == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


def constant(optimizer: Optimizer, *, num_epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0) -> Schedule:
    """Keep the learning rate constant after a linear warmup over warmup_epochs."""
    warmup_steps = _warmup_steps(warmup_epochs, num_epochs, steps_per_epoch)
    return Schedule(LambdaLR(optimizer, lambda step: _warmed_up(step, warmup_steps)), "step")


def step(
    optimizer: Optimizer, *, num_epochs: int, steps_per_epoch: int, every_epochs: int = 30, factor: float = 0.1
) -> Schedule:
    """Multiply the learning rate by `factor` every `every_epochs` epochs."""
    if isinstance(every_epochs, bool) or not isinstance(every_epochs, int) or every_epochs < 1:
        raise ValueError(f"every_epochs is {every_epochs!r}; it must be an integer of at least 1")
    _check_factor(factor)
    return Schedule(LambdaLR(optimizer, lambda epoch: factor ** (epoch // every_epochs)), "epoch")


def plateau(
    optimizer: Optimizer,
    *,
    num_epochs: int,
    steps_per_epoch: int,
    factor: float = 0.5,
    patience: int = 3,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> Schedule:
    """Multiply the learning rate by `factor` if the objective has not improved by `threshold` for `patience` epochs."""
    _check_factor(factor)
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
        raise ValueError(f"patience is {patience!r}; it must be an integer of at least 0")
    for key, value in (("threshold", threshold), ("min_lr", min_lr)):
        if not value >= 0:
            raise ValueError(f"{key} is {value!r}; it must be at least 0")
    scheduler = ReduceLROnPlateau(
        optimizer, "max", factor=factor, patience=patience, threshold=threshold, threshold_mode="abs", min_lr=min_lr
    )
    return Schedule(scheduler, "epoch")


def cosine(
    optimizer: Optimizer,
    *,
    num_epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    final_fraction: float = 0.0,
) -> Schedule:
    """Warm up linearly, then decay by half a cosine to final_fraction of the learning rate.

    Source: Loshchilov and Hutter 2017, eq. 5.
    """
    warmup_steps = _warmup_steps(warmup_epochs, num_epochs, steps_per_epoch)
    _check_fraction("final_fraction", final_fraction)
    decay_steps = max(1, num_epochs * steps_per_epoch - warmup_steps)

    def rate(step: int) -> float:
        if step < warmup_steps:
            return _warmed_up(step, warmup_steps)
        done = min(1.0, (step - warmup_steps) / decay_steps)
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * done))

    return Schedule(LambdaLR(optimizer, rate), "step")


def one_cycle(
    optimizer: Optimizer,
    *,
    num_epochs: int,
    steps_per_epoch: int,
    warmup_fraction: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
    cycle_momentum: bool = True,
) -> Schedule:
    """Increase to the learning rate over warmup_fraction of all steps, then decrease; momentum does the opposite.

    The first learning rate is divided by start_divisor, and the last is the first divided by end_divisor. With
    cycle_momentum, momentum or Adam's first beta is between 0.85, at the highest learning rate, and 0.95; optimizers
    without either are not changed. Source: Smith 2018.
    """
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"warmup_fraction is {warmup_fraction!r}; it must be in (0, 1)")
    for key, value in (("start_divisor", start_divisor), ("end_divisor", end_divisor)):
        if not value >= 1:
            raise ValueError(f"{key} is {value!r}; it must be at least 1")
    has_momentum = bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)
    scheduler = OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        # torch takes the learning rate at construction as the first; one more gives the last step its own.
        total_steps=max(2, num_epochs * steps_per_epoch + 1),
        pct_start=warmup_fraction,
        cycle_momentum=cycle_momentum and has_momentum,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
    )
    return Schedule(scheduler, "step")


def _warmup_steps(warmup_epochs: float, num_epochs: int, steps_per_epoch: int) -> int:
    if not 0 <= warmup_epochs < num_epochs:
        rule = f"it must be at least 0 and below max_epochs, {num_epochs}"
        raise ValueError(f"warmup_epochs is {warmup_epochs!r}; {rule}")
    return round(warmup_epochs * steps_per_epoch)


def _warmed_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor is {factor!r}; it must be in (0, 1)")


def _check_fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is {value!r}; it must be in [0, 1]")
