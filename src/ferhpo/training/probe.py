"""One batch of training and one of validation before the first epoch: too little memory shows now, not an epoch later.

What a reader would get wrong: validation takes larger batches than training, so the first training step alone would not
show it. The probe leaves no trace: no step is taken, buffers (batch norm's means) are put back, and every epoch seeds
its own random numbers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.training.batches import DeviceData, eval_batches, indices_of
from ferhpo.training.preprocess import Preprocess

if TYPE_CHECKING:
    from ferhpo.training.module import Classifier


def probe(
    module: "Classifier",
    data: FaceData,
    on_device: DeviceData,
    preprocess: Preprocess,
    *,
    eval_batch_size: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> None:
    """Run a training batch forward and back, and a validation batch while its gradients stand.

    autocast: makes the context of the precision in which training runs
    Raises what the device raises, as torch.OutOfMemoryError.
    """
    network = module.network
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    inputs, targets = next(iter(module.batches))
    with autocast():
        loss = module.loss(module(*inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    network.eval()
    with torch.inference_mode():
        indices = indices_of(data, SPLIT_NAMES.index("val"))[:eval_batch_size]
        for val_inputs, _, _ in eval_batches(on_device, indices, preprocess, eval_batch_size):
            network(*val_inputs)
    network.train()
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
