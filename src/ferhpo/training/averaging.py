"""Averages of a network's weights over its training, which are then validated and kept instead of the last weights.

Buffers (the running statistics of batch norm) are averaged with the weights: no second pass over the data is needed.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second network that holds the average of the first one's weights.

    kind: "ema" (exponential, moved at each step) or "swa" (equal shares of the ends of epochs; Izmailov et al. 2018)
    ema_decay: the share of the old average that stays at a step
    swa_epoch: the first epoch whose end is averaged in
    """

    def __init__(self, network: nn.Module, kind: str, *, ema_decay: float, swa_epoch: int) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._kind = kind
        self._ema_decay = ema_decay
        self._swa_epoch = swa_epoch
        self._num_averaged = 0

    def after_step(self, network: nn.Module) -> None:
        """Move the exponential average. Early on the decay is smaller, or the first, random weights would stay in it
        for 1 / (1 - ema_decay) steps."""
        if self._kind == "ema":
            self._num_averaged += 1
            decay = min(self._ema_decay, (1 + self._num_averaged) / (10 + self._num_averaged))
            self._move(network, 1 - decay)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Add an epoch's end to the equal average; before swa_epoch the average is the network itself."""
        if self._kind == "swa":
            self._num_averaged += epoch >= self._swa_epoch
            self._move(network, 1 / max(1, self._num_averaged))

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "num_averaged": self._num_averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._num_averaged = state["num_averaged"]

    @torch.no_grad()
    def _move(self, network: nn.Module, share: float) -> None:
        """Move every value of the average by `share` towards the network's; whole numbers are copied."""
        floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        for average, current in pairs:
            if average.is_floating_point():
                floats[0].append(average)
                floats[1].append(current)
            else:
                average.copy_(current)
        torch._foreach_lerp_(floats[0], floats[1], share)
