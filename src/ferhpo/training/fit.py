"""The training of a network by Lightning's Trainer, from its last checkpoint if there is one.

Note: Lightning runs a new fit over the remaining epochs, without checkpoints of its own, which would contain its loops
but not the weight average and the history. Every epoch seeds its own random numbers, so that an exact resume needs only
the weights, the states of optimizer and schedule, and the history.
"""

import atexit
import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn
from torch.optim import Optimizer

from ferhpo.data.dataset import FaceData
from ferhpo.errors import SweepError
from ferhpo.scoring.device_data import default_device, release_gpu_memory, to_device
from ferhpo.scoring.metrics import Metric, with_present_names
from ferhpo.scoring.objective import Objective
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.training.augment import Augment
from ferhpo.training.averaging import WeightAverage
from ferhpo.training.batches import Steps, TrainBatches, class_weights
from ferhpo.training.checkpoint import LAST, load_last, load_weights
from ferhpo.training.epoch_end import EpochEnd, Progress, Report
from ferhpo.training.hardware.device import memory_format_of, precision_of, torch_switches
from ferhpo.training.lightning import OwnSigterm, first_error, quiet
from ferhpo.training.schedules import Schedule
from ferhpo.training.settings import TrainerSettings, make_loss
from ferhpo.training.steps.graph import recorder_for, why_not
from ferhpo.training.steps.module import Classifier, watches_batches
from ferhpo.training.steps.parameters import fuse, parameter_groups

# Trainer and module refer to each other, so each training ends with a garbage collection. The half million objects of
# the imports are permanent: frozen once, they no longer cost every trial most of a second.
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # otherwise some libraries report leaked objects at exit

LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class FitResult:
    """The result of a training.

    history: one dictionary per epoch, with its number under "epoch" and its metrics
    stopped_early: whether early_stopping_patience ended the training
    confusion: of the validation images at the best epoch; rows are true classes
    """

    history: list[dict[str, float]]
    best_epoch: int
    best_value: float
    epochs_done: int
    stopped_early: bool
    confusion: list[list[int]]


def fit(
    network: nn.Module,
    data: FaceData,
    *,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    lr_schedule: Callable[..., Schedule],
    augment: Augment,
    settings: TrainerSettings,
    metric: str = "val_acc",
    mode: str = "max",
    folder: Path,
    seed: int,
    report: Report,
    own_callbacks: Mapping[str, pl.Callback] = MappingProxyType({}),
    loss: Callable[..., nn.Module] = nn.CrossEntropyLoss,
    more_metrics: Mapping[str, Metric] = MappingProxyType({}),
    device: torch.device | None = None,
    tell: Callable[[dict[str, str]], None] = lambda facts: None,
) -> FitResult:
    """Train a network on the training split, or resume from folder/last.ckpt; write last.ckpt and best.ckpt.

    The network is trained in place; afterwards it has the weights of the last epoch. Seed torch before the network is
    built: `seed` decides only the random numbers of the training.
    optimizer: called with parameter groups
    lr_schedule: called as schedules.py describes
    own_callbacks: called before ferhpo's own at the end of an epoch; their state_dict is in last.ckpt
    loss: called as settings.make_loss describes
    report: called with (epoch from 1, metrics) at the very end of each epoch, and at the start of a resume for each
        epoch in folder/last.ckpt; it may raise SystemExit to stop the training
    tell: called with facts that are known only during the training: {"cuda_graph": "yes"}, or "no: " and the reason
    Raises Diverged for a loss that is not finite, StorageError for a full disk, SweepError for a damaged checkpoint,
    ValueError if data and settings do not fit.
    """
    device = device or default_device()
    last = load_last(folder)
    progress = Progress(Objective(metric, mode))
    if last is not None:
        history = list(map(with_present_names, last["history"]))
        progress = Progress(progress.objective, history, last["best_epoch"], last["confusion"])
    for row in progress.history:
        report(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})
    patience = settings.early_stopping_patience
    if len(progress.history) < settings.max_epochs and not progress.out_of_patience(patience):
        try:
            with torch_switches(settings, device), quiet():
                _train(
                    network,
                    data,
                    optimizer,
                    lr_schedule,
                    augment,
                    settings,
                    progress,
                    last,
                    folder,
                    seed,
                    report,
                    own_callbacks,
                    loss,
                    more_metrics,
                    device,
                    tell,
                )
        except BaseException as error:
            # The error would keep Lightning's frames alive, and with them the network and its device memory.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            if settings.compile:
                # torch keeps compiled code per line of source, not per network, and compiles eight networks at most.
                torch._dynamo.reset()
            gc.collect()
            release_gpu_memory()
    return FitResult(
        history=progress.history,
        best_epoch=progress.best_epoch,
        best_value=progress.history[progress.best_epoch - 1][metric],
        epochs_done=len(progress.history),
        stopped_early=len(progress.history) < settings.max_epochs,
        confusion=progress.confusion,
    )


def _train(
    network: nn.Module,
    data: FaceData,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    lr_schedule: Callable[..., Schedule],
    augment: Augment,
    settings: TrainerSettings,
    progress: Progress,
    last: dict[str, Any] | None,
    folder: Path,
    seed: int,
    report: Report,
    own_callbacks: Mapping[str, pl.Callback],
    loss: Callable[..., nn.Module],
    more_metrics: Mapping[str, Metric],
    device: torch.device,
    tell: Callable[[dict[str, str]], None],
) -> None:
    memory_format = memory_format_of(settings, device, network)
    network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    on_device = to_device(data, device, network)
    preprocess = preprocess_of(data, augment.output_size(data.image_size), settings.normalise)
    batches = TrainBatches(
        data,
        on_device,
        preprocess,
        augment,
        batch_size=settings.batch_size,
        sampling=settings.sampling,
        seed=seed,
        memory_format=memory_format,
    )
    torch_optimizer = optimizer(
        parameter_groups(network, settings.decay_norm_and_bias, body_apart=settings.body_lr_factor != 1)
    )
    fuse(torch_optimizer)
    for group in torch_optimizer.param_groups:
        group["lr"] *= settings.body_lr_factor if group.get("is_body") else 1
    schedule = lr_schedule(torch_optimizer, num_epochs=settings.max_epochs, steps_per_epoch=len(batches))
    average = None
    if settings.weight_averaging is not None:
        swa_epoch = int(settings.swa_start * settings.max_epochs) + 1
        average = WeightAverage(network, settings.weight_averaging, ema_decay=settings.ema_decay, swa_epoch=swa_epoch)
    weights = torch.from_numpy(class_weights(data)).to(device) if settings.class_weights == "balanced" else None
    precision = precision_of(settings, device)
    is_watched = any(map(watches_batches, own_callbacks.values()))
    no_graph = why_not(settings, precision, device, is_watched)
    if no_graph and (device.type == "cuda" or settings.cuda_graph is True):
        tell({"cuda_graph": f"no: {no_graph}"})
    module = Classifier(
        network,
        torch_optimizer,
        schedule,
        average,
        batches,
        loss=make_loss(loss, settings, weights).to(device),
        clip_norm=settings.gradient_clip_norm,
        num_classes=data.num_classes,
        seed=seed,
        first_epoch=len(progress.history) + 1,
        compile=settings.compile,
        frozen_epochs=settings.frozen_epochs,
        recorder=None if no_graph else recorder_for(network, device),
        tell_graph=lambda fact: tell({"cuda_graph": fact}),
    )
    epoch_end = EpochEnd(
        data,
        on_device,
        preprocess,
        progress,
        folder,
        report,
        max_epochs=settings.max_epochs,
        eval_batch_size=settings.eval_batch_size,
        patience=settings.early_stopping_patience,
        keep_epochs=settings.keep_epochs,
        own_callbacks=own_callbacks,
        more_metrics=more_metrics,
    )
    trainer = pl.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        max_epochs=settings.max_epochs - len(progress.history),
        callbacks=[OwnSigterm(), *own_callbacks.values(), epoch_end],
        plugins=[LightningEnvironment()],  # Lightning must not requeue Slurm jobs
        default_root_dir=folder,
        barebones=True,  # no logger, progress bar, checkpoints or summary; epoch_end replaces them
    )
    if last is not None:
        _restore(last, module, trainer, folder)
        for name, state in last.get("callbacks", {}).items():
            if name in own_callbacks:
                own_callbacks[name].load_state_dict(state)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with first_error(trainer):
            trainer.fit(module, Steps(batches, one_by_one=is_watched))
    finally:
        if module.graph is not None:
            module.graph.release()


def _restore(last: dict[str, Any], module: Classifier, trainer: pl.Trainer, folder: Path) -> None:
    """Restore the states of last.ckpt. Raises SweepError if they belong to another network, optimizer or schedule."""
    if "network" not in last:
        raise SweepError(
            f"{folder / LAST} is of a training that has ended after {len(last['history'])} epochs; "
            "its trainer.max_epochs cannot change"
        )
    load_weights(module.network, last["network"], folder / LAST)
    if (module.average is None) != (last["average"] is None):
        raise SweepError(f"{folder / LAST} was written with another trainer.weight_averaging")
    if module.average is not None:
        module.average.load_state_dict(last["average"])
    try:
        module.optimizer.load_state_dict(last["optimizer"])
    except ValueError as error:
        raise SweepError(f"{folder / LAST} has the state of another optimizer: {error}") from None
    module.schedule.load_state_dict(last["schedule"])
    trainer.precision_plugin.load_state_dict(last["precision"])
