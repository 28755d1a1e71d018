"""A learning rate schedule of your own: a function that returns a Schedule.

ferhpo passes the optimizer, num_epochs and steps_per_epoch; the other arguments are settings of the YAML file. The
learning rate of the optimizer is the largest one.
"""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ferhpo.training.schedules import Schedule


def starter(optimizer: Optimizer, *, num_epochs: int, steps_per_epoch: int, power: float = 1.0) -> Schedule:
    """Decrease the learning rate to zero, by a polynomial of the steps."""
    if power <= 0:
        raise ValueError(f"power is {power}; it must be above 0")
    num_steps = num_epochs * steps_per_epoch
    return Schedule(LambdaLR(optimizer, lambda step: max(0.0, 1 - step / num_steps) ** power), every="step")
