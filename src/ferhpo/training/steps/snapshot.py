"""What a recorded step depends on besides its batch, and what it must leave as it was.

Note: replaying repeats operations on the device and no Python code. So whatever the Python code of a network changes or
draws at each step must be noticed, and put back after a recording.
"""

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DEPTH = 4  # of dictionaries and lists in each other


def fingerprint(modules: Sequence[nn.Module]) -> dict[str, object]:
    """Return what decides which operations a step has and which memory they use; equal if nothing has changed.

    That is every attribute of every module: settings, hooks, whether it is in training, and the addresses of tensors.
    """
    return {
        f"{name.lstrip('_')} of {type(module).__name__}{path and f' ({path})'}": _plain(value, _DEPTH)
        for root in modules
        for path, module in root.named_modules()
        for name, value in vars(module).items()
    }


def _plain(value: object, depth: int) -> object:
    if isinstance(value, Tensor):
        return id(value), value.data_ptr(), tuple(value.shape), value.requires_grad
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth and isinstance(value, dict):
        return [(key, _plain(inner, depth - 1)) for key, inner in value.items()]
    if depth and isinstance(value, list | tuple):
        return [_plain(inner, depth - 1) for inner in value]
    return id(value)


class Snapshot:
    """The state of modules, and of all global random numbers, at one moment.

    It holds a copy of every parameter and buffer, and the values in attributes, dictionaries and lists of modules.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self.fingerprint = fingerprint(modules)
        self._modules = modules
        self._device = device
        self._attributes = [
            (part, {name: (value, _content(value)) for name, value in vars(part).items()})
            for module in modules
            for part in module.modules()
        ]
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._host = _host_states()
        self._gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def changed_by_python(self) -> str:
        """Return what the steps since then have changed that replaying would not change; "" if there is nothing."""
        now = fingerprint(self._modules)
        for name in {**self.fingerprint, **now}:
            if self.fingerprint.get(name) != now.get(name):
                return f"each step changes {name}"
        if self._gpu is not None and not _equal(self._host, _host_states()):
            return "each step draws random numbers on the CPU"
        return ""

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back."""
        for module, attributes in self._attributes:
            vars(module).clear()
            for name, (value, content) in attributes.items():
                if isinstance(value, dict):
                    value.clear()
                    value.update(content)
                elif isinstance(value, list):
                    value[:] = content
                vars(module)[name] = value
        for tensor, value in self._tensors:
            tensor.copy_(value)
        python, numbers, host = self._host
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(host)
        if self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu, self._device)


def _content(value: object) -> Any:
    return copy.copy(value) if isinstance(value, dict | list) else None


def _host_states() -> tuple[Any, Any, Tensor]:
    """Return the states of Python's, numpy's and torch's random numbers on the CPU."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _equal(one: tuple[Any, Any, Tensor], other: tuple[Any, Any, Tensor]) -> bool:
    numbers = all(np.array_equal(left, right) for left, right in zip(one[1], other[1], strict=True))
    return one[0] == other[0] and numbers and torch.equal(one[2], other[2])
