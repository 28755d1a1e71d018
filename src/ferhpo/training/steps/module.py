"""The LightningModule: the training steps of an epoch. Validation is in epoch_end.py.

Note: Lightning's own loop costs about half a millisecond per step, as much as the step of a small network. So Lightning
is given all steps of an epoch as one batch, and they run in `training_step`. Losses and predictions stay on the device
until the epoch ends, because each read would make a GPU wait.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ferhpo.scoring.predict import accuracy, confusion_of
from ferhpo.training.averaging import WeightAverage
from ferhpo.training.batches import NETWORK, Batch, TrainBatches, epoch_rng
from ferhpo.training.schedules import Schedule
from ferhpo.training.steps.graph import StepGraph
from ferhpo.training.steps.parameters import body_parameters
from ferhpo.training.steps.recorders import Recorder

_STEP_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end", *_STEP_HOOKS)


def watches_batches(callback: pl.Callback) -> bool:
    """Return whether a callback has a hook that Lightning calls at each step."""
    return any(getattr(type(callback), name) is not getattr(pl.Callback, name) for name in _BATCH_HOOKS)


class Classifier(pl.LightningModule):
    """A network in training.

    loss: called with logits float32 [N, C], and labels int64 [N] or soft targets float32 [N, C]; returns a scalar
    clip_norm: the maximum norm of all gradients together; None for no clipping
    first_epoch: the first epoch of this fit, counted from 1; Lightning's own count restarts after a resume
    recorder: with it, steps are recorded and replayed; tell_graph is called as StepGraph describes
    """

    automatic_optimization = False

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        average: WeightAverage | None,
        batches: TrainBatches,
        *,
        loss: nn.Module,
        clip_norm: float | None,
        num_classes: int,
        seed: int,
        first_epoch: int,
        compile: bool,
        frozen_epochs: int,
        recorder: Recorder | None = None,
        tell_graph: Callable[[str], None] = lambda fact: None,
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
        self._loss = loss
        self._clip_norm = clip_norm
        self._clipped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._num_classes = num_classes
        self._seed = seed
        self._frozen_epochs = frozen_epochs
        self._body = list(body_parameters(network).values()) if frozen_epochs else []
        self._record = _EpochRecord(len(batches))
        self.graph = None if recorder is None else StepGraph(self._gradients, network, loss, recorder, tell_graph)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # batches are made on the device

    def on_train_epoch_start(self) -> None:
        self.epoch += 1
        self.batches.epoch = self.epoch
        if self._frozen_epochs:
            self._freeze_body(self.epoch <= self._frozen_epochs)
        # Dropout uses torch's global random state; it is seeded for each epoch and so needs no checkpoint.
        torch.manual_seed(int(epoch_rng(self._seed, self.epoch, NETWORK).integers(2**63)))
        self._record = _EpochRecord(len(self.batches))
        if self.graph is not None:
            self.graph.begin_epoch()

    def _freeze_body(self, frozen: bool) -> None:
        """Train only the output layer while `frozen`; the statistics of batch norm do not change either."""
        for parameter in self._body:
            parameter.requires_grad_(not frozen)
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(not frozen)

    def training_step(self, batch: Batch | Iterator[Batch], batch_idx: int) -> None:
        """Run the steps of an epoch, or the one of a batch if callbacks watch each step."""
        if isinstance(batch, tuple):
            self._steps([batch], [callback for callback in self._callbacks() if watches_batches(callback)])
        else:
            self._steps(batch, [])

    def _callbacks(self) -> list[pl.Callback]:
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return callbacks

    def _steps(self, batches: Iterable[Batch], watching: Sequence[pl.Callback]) -> None:
        scaler = self._scaler()
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
        # Lightning's context of mixed precision is for the forward pass only.
        with torch.autocast(self.device.type, enabled=False):
            for inputs, targets in batches:
                if self.graph is None:
                    loss, logits = self._gradients(inputs, targets, watching)
                else:
                    loss, logits = self.graph(inputs, targets)
                if scaler is None:
                    self.optimizer.step()
                else:
                    scaler.step(self.optimizer)
                    scaler.update()
                self.lr = self.optimizer.param_groups[0]["lr"]
                self._record.add(loss, logits, targets)
                progress.completed += 1  # Lightning's global_step
                if self.average is not None:
                    self.average.after_step()
                self.schedule.after_step()

    def _gradients(
        self, inputs: tuple[Tensor, ...], targets: Tensor, watching: Sequence[pl.Callback] = ()
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients for a batch, clipped, without waiting for the device; return its loss and its logits."""

        def call(hook: str, *values: Any) -> None:
            for callback in watching:
                getattr(callback, hook)(self.trainer, self, *values)

        scaler = self._scaler()
        with self.trainer.precision_plugin.forward_context():
            logits = self._forward(*inputs)
            loss = self.loss(logits, targets)
        call("on_before_zero_grad", self.optimizer)
        self.optimizer.zero_grad()
        call("on_before_backward", loss)
        (loss if scaler is None else scaler.scale(loss)).backward()
        call("on_after_backward")
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        call("on_before_optimizer_step", self.optimizer)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._clipped, self._clip_norm)
        return loss.detach(), logits.detach()

    def _scaler(self) -> Any:
        """Return what scales the loss in precision 16, or None."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(*inputs)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self._loss(logits.float(), targets)
        return loss

    def train_metrics(self) -> dict[str, float]:
        """Return train_loss and train_acc of the epoch, on the augmented images.

        With soft targets or mixup, a prediction is correct if it is the class with the largest target.
        """
        predicted, targets = self._record.logits.flatten(0, 1).argmax(1), torch.cat(self._record.targets)
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        return {
            "train_loss": float(self._record.losses.double().mean()),
            "train_acc": accuracy(confusion_of(predicted, labels, self._num_classes)),
        }


class _EpochRecord:
    """The losses [steps], logits [steps, batch, classes] and targets of an epoch, on the device."""

    losses: Tensor
    logits: Tensor

    def __init__(self, num_steps: int) -> None:
        self.targets: list[Tensor] = []
        self._num_steps = num_steps

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Copy the results of the next step; its targets must stay as they are."""
        step = len(self.targets)
        if step == 0:
            self.losses = loss.new_empty(self._num_steps)
            self.logits = logits.new_empty(self._num_steps, *logits.shape)
        self.losses[step].copy_(loss)
        self.logits[step].copy_(logits)
        self.targets.append(targets)
