"""A test of the memory before the first epoch."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.scoring.device_data import DeviceData, indices_of
from ferhpo.scoring.predict import logits_of, with_smaller_batches
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.steps.module import Classifier

_OPTIMIZER_STATES = 3  # of Adam: two moments, and a temporary copy


def probe(
    module: Classifier,
    data: FaceData,
    on_device: DeviceData,
    preprocess: Preprocess,
    *,
    eval_batch_size: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> None:
    """Run a training batch forward and backward, and a validation batch while gradients and states exist.

    If there is too little memory, training fails now instead of after an epoch. Note: validation uses larger batches
    than training, so the first training step alone would not fail. The probe has no effect on training: it takes no
    step, restores the buffers (the means of batch norm), and every epoch seeds its own random numbers.

    autocast: returns the context of the precision of training
    Raises the errors of the device, e.g. torch.OutOfMemoryError.
    """
    network = module.network
    # The states of an optimizer, and its temporary copy, are created at the first step.
    states = [torch.empty_like(p) for p in network.parameters() if p.requires_grad for _ in range(_OPTIMIZER_STATES)]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    inputs, targets = next(iter(module.batches))
    with autocast():
        loss = module.loss(module(*inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    network.eval()
    indices = indices_of(data, SPLIT_NAMES.index("val"))
    with_smaller_batches(lambda size: logits_of(network, on_device, indices[:size], preprocess, size), eval_batch_size)
    network.train()
    del states
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
