"""A callback of your own: a subclass of pytorch_lightning.Callback, called during the training of every network.

state_dict and load_state_dict keep its state in last.ckpt, so that a resumed trial continues where it stopped; they may
hold numbers, text, tensors, lists and dictionaries of them.
"""

import logging
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer

# `ferhpo train` shows what is logged on the screen; in a sweep, it is in the log files of Ray's workers.
log = logging.getLogger(__name__)


class Starter(pl.Callback):
    """Record the largest norm of the gradients, and log it at the end of the training.

    every: measure at every n-th step
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self.largest = 0.0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if trainer.global_step % self.every == 0:
            gradients = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            self.largest = max([self.largest, *map(float, gradients)])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        log.warning("largest gradient norm: %.3g", self.largest)

    def state_dict(self) -> dict[str, Any]:
        return {"largest": self.largest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.largest = state_dict["largest"]
