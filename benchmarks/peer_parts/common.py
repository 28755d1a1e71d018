"""How every peer trains a trial: the images, the network, and Lightning's loop around it.

Each epoch appends a line to epochs.jsonl in the current folder; peers.py counts them.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from peer_parts.workload import Workload

# Settings of Lightning's Trainer for peers that do not log and do not write checkpoints
BARE = {"logger": False, "enable_checkpointing": False}


def make_network(workload: Workload, image_size: int) -> nn.Module:
    """The networks that ferhpo makes of conf/model/cnn.yaml and resnet.yaml, in plain PyTorch."""
    channels, layers = 1, []
    if workload.network == "cnn":
        for width in workload.widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2)]
            channels, image_size = width, image_size // 2
        layers += [nn.Flatten(), nn.Linear(channels * image_size**2, workload.dense), nn.ReLU()]
        return nn.Sequential(*layers, nn.BatchNorm1d(workload.dense), nn.Linear(workload.dense, 7))
    for stage, width in enumerate(workload.widths):
        if stage == 0:
            layers += [*conv_norm(channels, width, 3, stride=2), nn.ReLU()]
            channels = width
        layers += [Block(channels, width, stride=1 if stage == 0 else 2), Block(width, width, stride=1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))


def conv_norm(in_channels: int, channels: int, kernel_size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
    return conv, nn.BatchNorm2d(channels)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        first, second = conv_norm(in_channels, channels, 3, stride), conv_norm(channels, channels, 3, 1)
        self.convolutions = nn.Sequential(*first, nn.ReLU(), *second)
        changes = stride > 1 or in_channels != channels
        self.shortcut = nn.Sequential(*conv_norm(in_channels, channels, 1, stride)) if changes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.convolutions(images) + self.shortcut(images))


class Module(pl.LightningModule):
    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network, self.lr = network, lr
        self.accuracy = MulticlassAccuracy(7, average="micro")

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.network(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.accuracy(logits, labels)
        self.log("val_acc", self.accuracy, on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class CountEpochs(pl.Callback):
    """Append a line to epochs.jsonl after each epoch: the trial's learning rate and the seconds with validation."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, 0.0

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_validation_end(self, trainer, pl_module):
        line = json.dumps({"lr": pl_module.lr, "seconds": time.perf_counter() - self.start})
        with self.path.open("a") as file:
            file.write(line + "\n")


def train(workload: Workload, lr: float, folder: Path, *callbacks: pl.Callback, **options) -> float:
    """Train one trial; return its last validation accuracy. `options` are those of Lightning's Trainer."""
    torch.set_num_threads(workload.threads)
    arrays = np.load(workload.images)
    images = (torch.from_numpy(arrays["images"]).unsqueeze(1).float() / 255 - 0.5) / 0.25
    labels = torch.from_numpy(arrays["labels"])
    train_set = TensorDataset(images[: workload.num_train], labels[: workload.num_train])
    val_set = TensorDataset(images[workload.num_train :], labels[workload.num_train :])
    trainer = pl.Trainer(
        max_epochs=workload.epochs,
        precision={"32": "32-true", "bf16": "bf16-mixed"}[workload.precision],
        accelerator="cpu",
        callbacks=[CountEpochs(folder / "epochs.jsonl"), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(
        Module(make_network(workload, images.shape[-1]), lr),
        DataLoader(train_set, workload.batch_size, shuffle=True, drop_last=True),  # as ferhpo does
        DataLoader(val_set, 512),
    )
    return trainer.callback_metrics["val_acc"].item()
