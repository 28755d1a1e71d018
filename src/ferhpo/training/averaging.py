"""Averages of the weights of a network over its training, which are validated and kept instead of the last weights.

Note: buffers (the running statistics of batch norm) are averaged too, so no second pass over the data is needed.
"""

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second network with the average of the weights of the first.

    network: its average is taken; its parameters must stay the same tensors
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
        self._steady, self._own = _pairs(self.network, network)

    def after_step(self) -> None:
        """Update the exponential average.

        The decay is smaller during the first steps; otherwise the random initial weights would stay in the average for
        1 / (1 - ema_decay) steps.
        """
        if self._kind == "ema":
            self._num_averaged += 1
            decay = min(self._ema_decay, (1 + self._num_averaged) / (10 + self._num_averaged))
            self._move(1 - decay)

    def after_epoch(self, epoch: int) -> None:
        """Add the weights at the end of an epoch to the mean; before swa_epoch, the average equals the network."""
        if self._kind == "swa":
            self._num_averaged += epoch >= self._swa_epoch
            self._move(1 / max(1, self._num_averaged))

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "num_averaged": self._num_averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._num_averaged = state["num_averaged"]

    @torch.no_grad()
    def _move(self, weight: float) -> None:
        """Move every value of the average toward that of the network by `weight`; integers are copied."""
        for pairs in (self._steady, _Pairs.of((own.buffers(False), other.buffers(False)) for own, other in self._own)):
            if pairs.floats[0]:
                torch._foreach_lerp_(*pairs.floats, weight)
            if pairs.others[0]:
                torch._foreach_copy_(*pairs.others)


class _Pairs:
    """Tensors of the average and, in the same order, of the network."""

    def __init__(self) -> None:
        self.floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.others: tuple[list[Tensor], list[Tensor]] = ([], [])

    @classmethod
    def of(cls, sources: Iterable[tuple[Iterable[Tensor], Iterable[Tensor]]]) -> "_Pairs":
        pairs = cls()
        for average, current in itertools.chain.from_iterable(zip(*source, strict=True) for source in sources):
            lists = pairs.floats if average.is_floating_point() else pairs.others
            lists[0].append(average.detach())
            lists[1].append(current.detach())
        return pairs


def _pairs(average: nn.Module, network: nn.Module) -> tuple[_Pairs, list[tuple[nn.Module, nn.Module]]]:
    """Return the tensors that stay the same for the whole training, and the modules whose buffers may be replaced.

    torch's own modules change their buffers in place, and load_state_dict copies into tensors. Other modules may assign
    a new tensor at each step.
    """
    steady: list[tuple[Iterable[Tensor], Iterable[Tensor]]] = [(average.parameters(), network.parameters())]
    own = []
    for pair in zip(average.modules(), network.modules(), strict=True):
        if type(pair[0]).__module__.startswith("torch.nn."):
            steady.append((pair[0].buffers(False), pair[1].buffers(False)))
        elif next(pair[0].buffers(False), None) is not None:
            own.append(pair)
    return _Pairs.of(steady), own
