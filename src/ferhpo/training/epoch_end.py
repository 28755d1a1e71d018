"""The end of an epoch: score the network, step the schedule, write checkpoints, report.

Note: the report comes last, because it may not return (the scheduler stops the trial), and everything must be on disk
by then.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from torch import Tensor

from ferhpo.data.dataset import FaceData
from ferhpo.errors import Diverged
from ferhpo.scoring.device_data import DeviceData
from ferhpo.scoring.kept import write_predictions
from ferhpo.scoring.metrics import Metric, val_metrics
from ferhpo.scoring.objective import Objective
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.checkpoint import FORMAT, save_checkpoints
from ferhpo.training.hardware.usage import Usage
from ferhpo.training.steps.module import Classifier
from ferhpo.training.steps.probe import probe

MEGABYTE = 1_000_000
Report = Callable[[int, dict[str, float]], None]


@dataclass
class Progress:
    """The epochs so far and the best of them.

    history: one dictionary per epoch, with its number, counted from 1, under "epoch" and its metrics
    best_epoch: 0 before the first epoch
    confusion: of the validation images at the best epoch
    """

    objective: Objective
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    confusion: list[list[int]] = field(default_factory=list)

    def add(self, epoch: int, metrics: dict[str, float], confusion: Tensor) -> bool:
        """Add an epoch; return whether it is the best so far. The first of several equal epochs is the best."""
        metric = self.objective.metric
        best = self.history[self.best_epoch - 1][metric] if self.best_epoch else None
        improved = self.objective.is_better(metrics[metric], best)
        self.history.append({"epoch": epoch, **metrics})
        if improved:
            self.best_epoch, self.confusion = epoch, confusion.tolist()
        return improved

    def out_of_patience(self, patience: int | None) -> bool:
        """Return whether `patience` epochs have passed since the best one."""
        return patience is not None and len(self.history) - self.best_epoch >= patience


class EpochEnd(pl.Callback):
    """The callback that runs the end of each epoch, and the memory probe before the first one."""

    def __init__(
        self,
        data: FaceData,
        on_device: DeviceData,
        preprocess: Preprocess,
        progress: Progress,
        folder: Path,
        report: Report,
        *,
        max_epochs: int,
        eval_batch_size: int,
        patience: int | None,
        keep_epochs: Sequence[int] = (),
        own_callbacks: Mapping[str, pl.Callback] = MappingProxyType({}),
        more_metrics: Mapping[str, Metric] = MappingProxyType({}),
    ) -> None:
        self.data = data
        self.on_device = on_device
        self.preprocess = preprocess
        self.progress = progress
        self.folder = folder
        self.report = report
        self.max_epochs = max_epochs
        self.eval_batch_size = eval_batch_size
        self.patience = patience
        self.keep_epochs = keep_epochs
        self.own_callbacks = own_callbacks
        self.more_metrics = more_metrics
        self.start_seconds = 0.0
        self.usage = Usage()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.progress.history:
            probe(
                pl_module,
                self.data,
                self.on_device,
                self.preprocess,
                eval_batch_size=self.eval_batch_size,
                autocast=trainer.precision_plugin.forward_context,
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.start_seconds = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: Classifier = pl_module
        epoch = module.epoch
        metrics = module.train_metrics()
        train_seconds = time.perf_counter() - self.start_seconds
        _check_finite("train_loss", metrics["train_loss"], epoch, module.lr)
        if module.average is not None:
            module.average.after_epoch(epoch)
        network = module.network if module.average is None else module.average.network
        scores = evaluate(
            network,
            self.data,
            "val",
            self.preprocess,
            batch_size=self.eval_batch_size,
            device=module.device,
            on_device=self.on_device,
        )
        _check_finite("val_loss", scores.loss, epoch, module.lr)
        metrics |= {
            **val_metrics(scores, self.data, self.more_metrics),
            "lr": module.lr,
            "epoch_seconds": time.perf_counter() - self.start_seconds,
            "images_per_second": module.batches.num_images / train_seconds,
            **_memory_mb(module.device),
            **self.usage.since_last(module.device),
        }
        objective = self.progress.objective
        module.schedule.after_epoch(objective.score(metrics[objective.metric]))
        improved = self.progress.add(epoch, metrics, scores.confusion)
        current = None
        if improved or epoch in self.keep_epochs:
            current = {
                "format": FORMAT,
                "epoch": epoch,
                "metrics": metrics,
                "network": network.state_dict(),
                "confusion": scores.confusion,
                "class_names": list(self.data.class_names),
                "preprocess": asdict(self.preprocess),
            }
        if improved:
            write_predictions(self.folder, scores, self.data, epoch)
        trainer.should_stop = self.progress.out_of_patience(self.patience)
        is_over = trainer.should_stop or epoch == self.max_epochs
        save_checkpoints(
            self.folder,
            {**self._progress(), **({} if is_over else self._state(trainer, module))},
            best=current if improved else None,
            kept=current if epoch in self.keep_epochs else None,
        )
        self.report(epoch, dict(metrics))

    def _progress(self) -> dict[str, Any]:
        """Return the part of last.ckpt that says how far the training is; after the last epoch, it is all of it."""
        return {
            "format": FORMAT,
            "history": self.progress.history,
            "best_epoch": self.progress.best_epoch,
            "confusion": self.progress.confusion,
            "class_names": list(self.data.class_names),
        }

    def _state(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """Return the part of last.ckpt from which the next epoch continues."""
        return {
            "network": module.network.state_dict(),
            "average": None if module.average is None else module.average.state_dict(),
            "optimizer": module.optimizer.state_dict(),
            "schedule": module.schedule.state_dict(),
            "precision": trainer.precision_plugin.state_dict(),  # the loss scale, if precision is 16
            "callbacks": {name: callback.state_dict() for name, callback in self.own_callbacks.items()},
        }


def _check_finite(name: str, loss: float, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"{name} is {loss} at epoch {epoch} (lr {lr:.3g})")


def _memory_mb(device: torch.device) -> dict[str, float]:
    """Return the current memory of the process on a CPU, or on a GPU the peak memory of its tensors.

    There, device_reserved_mb is the peak of what torch took from the card for them, and device_used_mb what all
    processes hold on it now, CUDA itself included.
    """
    if device.type != "cuda":
        return {"device_memory_mb": psutil.Process().memory_info().rss / MEGABYTE}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "device_memory_mb": torch.cuda.max_memory_allocated(device) / MEGABYTE,
        "device_reserved_mb": torch.cuda.max_memory_reserved(device) / MEGABYTE,
        "device_used_mb": (total - free) / MEGABYTE,
    }
