"""The LightningModule: what happens in a step, in which order. Validation is fit.py's, at the end of an epoch.

Nothing of a step is read back from the device: losses and predictions stay there until the epoch ends, because each
read would make a GPU wait.
"""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.optim import Optimizer

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.scoring.device_data import DeviceData, eval_batches, indices_of
from ferhpo.scoring.predict import accuracy, confusion_of
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.averaging import WeightAverage
from ferhpo.training.batches import NETWORK, TrainBatches, epoch_rng
from ferhpo.training.schedules import Schedule


def body_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters but those of the layer called output. ValueError where there is no such layer."""
    parameters = dict(network.named_parameters())
    body = {name: parameter for name, parameter in parameters.items() if "output" not in name.split(".")}
    if len(body) == len(parameters):
        raise ValueError(
            f"{type(network).__name__} has no layer called output, whose body could be frozen or slowed down"
        )
    return body


def parameter_groups(network: nn.Module, decay_norm_and_bias: bool, body_apart: bool = False) -> list[dict[str, Any]]:
    """Return the trainable parameters for an optimiser, in groups that differ in weight decay and learning rate.

    Without decay_norm_and_bias those of one dimension are apart; with body_apart the output layer's come first, and all
    others in groups marked "is_body". ValueError where a body is asked for and no layer is called output.
    """
    body = body_parameters(network) if body_apart else {}
    groups = []
    for is_body, decayed in itertools.product((False, True), (True, False)):
        parameters = [
            parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
            and (name in body) == is_body
            and (decay_norm_and_bias or parameter.ndim > 1) == decayed
        ]
        if parameters:
            marks = {"is_body": True} if is_body else {}
            groups.append({"params": parameters, **marks, **({} if decayed else {"weight_decay": 0.0})})
    return groups


class Classifier(pl.LightningModule):
    """A network in training: cross-entropy on labels or soft targets, with label smoothing and class weights.

    first_epoch: the epoch, from 1, with which Lightning begins; its own count starts again after a resume
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        average: WeightAverage | None,
        batches: TrainBatches,
        *,
        class_weights: Tensor | None,
        label_smoothing: float,
        num_classes: int,
        seed: int,
        first_epoch: int,
        compile: bool,
        frozen_epochs: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.schedule = schedule
        self.average = average
        self.batches = batches
        self.epoch = first_epoch - 1
        self.lr = 0.0
        self._forward: Callable[..., Tensor] = torch.compile(network) if compile else network
        self._class_weights = class_weights
        self._label_smoothing = label_smoothing
        self._num_classes = num_classes
        self._seed = seed
        self._frozen_epochs = frozen_epochs
        self._body = list(body_parameters(network).values()) if frozen_epochs else []
        self._losses: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._labels: list[Tensor] = []

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # batches are made on the device

    def on_train_epoch_start(self) -> None:
        self.epoch += 1
        self.batches.epoch = self.epoch
        if self._frozen_epochs:
            self._freeze_body(self.epoch <= self._frozen_epochs)
        # Dropout draws from torch's global state: seeded for each epoch, it needs no saving.
        torch.manual_seed(int(epoch_rng(self._seed, self.epoch, NETWORK).integers(2**63)))
        self._losses, self._predicted, self._labels = [], [], []

    def _freeze_body(self, frozen: bool) -> None:
        """Let the output layer alone learn, on features whose normalisation stands still too."""
        for parameter in self._body:
            parameter.requires_grad_(not frozen)
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(not frozen)

    def training_step(self, batch: tuple[tuple[Tensor, ...], Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        logits = self(*inputs)
        loss = self.loss(logits, targets)
        self.lr = self.optimizer.param_groups[0]["lr"]
        self._losses.append(loss.detach())
        self._predicted.append(logits.detach().argmax(1))
        self._labels.append(targets if targets.ndim == 1 else targets.argmax(1))
        return loss

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(*inputs)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, self._class_weights, label_smoothing=self._label_smoothing)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.average is not None:
            self.average.after_step(self.network)
        self.schedule.after_step()

    def train_metrics(self) -> dict[str, float]:
        """Return train_loss and train_acc of the epoch, over the images as they were augmented.

        With soft targets or mixup an image counts as right where its largest target is met.
        """
        predicted, labels = torch.cat(self._predicted), torch.cat(self._labels)
        return {
            "train_loss": float(torch.stack(self._losses).double().mean()),
            "train_acc": accuracy(confusion_of(predicted, labels, self._num_classes)),
        }


def probe(
    module: Classifier,
    data: FaceData,
    on_device: DeviceData,
    preprocess: Preprocess,
    *,
    eval_batch_size: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> None:
    """Run a training batch forward and back, and a validation batch while its gradients exist.

    Too little memory shows now, not an epoch later. Note: validation uses larger batches than training, so the first
    training step alone would not show it. The probe leaves no trace: no step is taken, buffers (the means of batch
    norm) are restored, and every epoch seeds its own random numbers.

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
