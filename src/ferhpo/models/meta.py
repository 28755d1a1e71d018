"""Build networks and optimizers of which only shapes and settings matter, without importing torch's compiler.

torch imports its compiler, which takes two seconds, when it draws normal numbers on the meta device and when it makes
an optimizer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

_DRAWS = (torch.Tensor.normal_, torch.Tensor.exponential_, torch.Tensor.log_normal_, torch.Tensor.cauchy_)
_IS_READY = "__dynamo_disable"  # torch/_compile.py: what a function is replaced by once the compiler is imported


class _NoDraws(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS or getattr(func, "__module__", None) == torch.nn.init.__name__:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """Put the tensors that are made in this context on the meta device: they have shapes and no numbers."""
    with DeviceContext(torch.device("meta")), _NoDraws():
        yield


@contextmanager
def uncompiled_optimizers() -> Iterator[None]:
    """Let optimizers be made in this context without the compiler; they must not be used after it."""
    add_group: Callable[..., Any] | None = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if add_group is None or hasattr(add_group, _IS_READY):
        yield
        return
    setattr(add_group, _IS_READY, add_group)
    try:
        yield
    finally:
        delattr(add_group, _IS_READY)
