"""Float32 that is float32: cuDNN by default rounds the inputs of float32 convolutions on a GPU to 10 bits (TF32)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute convolutions and products of float32 in float32; afterwards as before."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    convolutions = (cudnn.conv, cudnn.rnn) if hasattr(cudnn, "conv") else ()
    with ExitStack() as stack:
        _switch(stack, lambda: cudnn.allow_tf32, partial(setattr, cudnn, "allow_tf32"), False, convolutions)
        get, set_ = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        _switch(stack, get, set_, "highest", (matmul,))
        yield


def _switch(
    stack: ExitStack, get: Callable[[], Any], set_: Callable[[Any], None], exact: object, newer: tuple[Any, ...]
) -> None:
    """Switch TF32 off until the stack closes.

    torch has two ways to say it, and refuses to read the older one where the user used the `newer` (torch 2.9).
    """
    try:
        stack.callback(set_, get())
        set_(exact)
    except RuntimeError:
        for part in newer:
            stack.callback(setattr, part, "fp32_precision", part.fp32_precision)
            part.fp32_precision = "ieee"
