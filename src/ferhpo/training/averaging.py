"""Averages of the weights of a network over its training, which are validated and kept instead of the last weights.

Note: buffers (the running statistics of batch norm) are averaged too, so no second pass over the data is needed.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second network with the average of the weights of the first.

    kind: "ema" (exponential, updated at each step) or "swa" (mean of the weights at the ends of epochs; Izmailov et al.
        2018)
    ema_decay: the weight of the old average at a step
    swa_epoch: the first epoch whose weights are averaged
    """

    def __init__(self, network: nn.Module, kind: str, *, ema_decay: float, swa_epoch: int) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._kind = kind
        self._ema_decay = ema_decay
        self._swa_epoch = swa_epoch
        self._num_averaged = 0

    def after_step(self, network: nn.Module) -> None:
        """Update the exponential average.

        The decay is smaller during the first steps; otherwise the random initial weights would stay in the average for
        1 / (1 - ema_decay) steps.
        """
        if self._kind == "ema":
            self._num_averaged += 1
            decay = min(self._ema_decay, (1 + self._num_averaged) / (10 + self._num_averaged))
            self._move(network, 1 - decay)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Add the weights at the end of an epoch to the mean; before swa_epoch, the average equals the network."""
        if self._kind == "swa":
            self._num_averaged += epoch >= self._swa_epoch
            self._move(network, 1 / max(1, self._num_averaged))

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "num_averaged": self._num_averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._num_averaged = state["num_averaged"]

    @torch.no_grad()
    def _move(self, network: nn.Module, weight: float) -> None:
        """Move every value of the average toward that of the network by `weight`; integers are copied."""
        floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        for average, current in pairs:
            if average.is_floating_point():
                floats[0].append(average)
                floats[1].append(current)
            else:
                average.copy_(current)
        torch._foreach_lerp_(floats[0], floats[1], weight)
