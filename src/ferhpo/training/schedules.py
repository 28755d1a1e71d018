"""Learning rates over the steps of a training. Each function is called as schedule(optimizer, num_epochs=,
steps_per_epoch=, and the settings of its file in conf/lr_schedule) and returns a Schedule.

constant, cosine and one_cycle move at every step, step and plateau at the end of an epoch; the rate of the optimiser is
the peak of all of them.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau


@dataclass
class Schedule:
    """A torch scheduler and when it moves: `every` is "step" or "epoch"."""

    scheduler: LRScheduler | ReduceLROnPlateau
    every: str

    def after_step(self) -> None:
        """Move on after a step of the optimiser."""
        if self.every == "step" and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        """Move on after an epoch; score is the objective, negated where small is good: larger is better."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(score)
        elif self.every == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


def constant(optimizer: Optimizer, *, num_epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0) -> Schedule:
    """Keep the rate, after a linear warm-up over warmup_epochs."""
    warmup_steps = _warmup_steps(warmup_epochs, num_epochs, steps_per_epoch)
    return Schedule(LambdaLR(optimizer, lambda step: _warmed_up(step, warmup_steps)), "step")


def step(
    optimizer: Optimizer, *, num_epochs: int, steps_per_epoch: int, every_epochs: int = 30, factor: float = 0.1
) -> Schedule:
    """Multiply the rate by factor after each every_epochs epochs."""
    if isinstance(every_epochs, bool) or not isinstance(every_epochs, int) or every_epochs < 1:
        raise ValueError(f"every_epochs is {every_epochs!r}; it must be a whole number of 1 or more")
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
    """Multiply the rate by factor when the objective has not improved by threshold for more than patience epochs."""
    _check_factor(factor)
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
        raise ValueError(f"patience is {patience!r}; it must be a whole number of 0 or more")
    for key, value in (("threshold", threshold), ("min_lr", min_lr)):
        if not value >= 0:
            raise ValueError(f"{key} is {value!r}; it must be 0 or more")
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
    """Warm up linearly, then go down half a cosine to final_fraction of the rate (Loshchilov, Hutter 2017, eq. 5)."""
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
    """Go up to the rate over warmup_fraction of all steps and down again, momentum the other way (Smith 2018).

    Begins at rate / start_divisor and ends at that / end_divisor. cycle_momentum moves momentum, or Adam's first beta,
    between 0.95 and 0.85; optimisers without either keep what they have.
    """
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"warmup_fraction is {warmup_fraction!r}; it must be in (0, 1)")
    for key, value in (("start_divisor", start_divisor), ("end_divisor", end_divisor)):
        if not value >= 1:
            raise ValueError(f"{key} is {value!r}; it must be 1 or more")
    has_momentum = bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)
    scheduler = OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        # torch counts the rate at which it is made as the first; one more leaves the last step its own.
        total_steps=max(2, num_epochs * steps_per_epoch + 1),
        pct_start=warmup_fraction,
        cycle_momentum=cycle_momentum and has_momentum,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
    )
    return Schedule(scheduler, "step")


def _warmup_steps(warmup_epochs: float, num_epochs: int, steps_per_epoch: int) -> int:
    if not 0 <= warmup_epochs < num_epochs:
        raise ValueError(f"warmup_epochs is {warmup_epochs!r}; it must be 0 or more and below max_epochs, {num_epochs}")
    return round(warmup_epochs * steps_per_epoch)


def _warmed_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor is {factor!r}; it must be in (0, 1)")


def _check_fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is {value!r}; it must be in [0, 1]")
