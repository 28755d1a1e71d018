"""A training step of three networks, by the settings that cost time on a GPU, beside a hand-written loop.

`default` is ferhpo's: deterministic, without torch's fill of new memory, which `fills` switches on again, and as a CUDA
graph, which `no_graph` is not. `loop` and `graphed` are written by hand (one_trial.py), not deterministic.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import one_trial
import pytorch_lightning as pl
import torch

from ferhpo.training import schedules
from ferhpo.training.fit import fit
from ferhpo.training.settings import TrainerSettings
from gpu_parts.common import Rows, noise

SHORT = ("default", "not_deterministic", "no_graph", "loop", "graphed")
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "fills": {},
    "not_deterministic": {"deterministic": False},
    "no_graph": {"cuda_graph": False},
    "ema": {"weight_averaging": "ema"},
}
CASES = {  # name: network, batch sizes, ways
    "a": ("resnet", (128, 256), (*WAYS, "loop", "graphed")),
    "b": ("vulpe_full", (128,), SHORT),
    "c": ("resnet18", (128,), SHORT),
}


class Fills(pl.Callback):
    """Let torch fill new memory during a training, as it does by default with deterministic algorithms."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.utils.deterministic.fill_uninitialized_memory = True


def precision(rows: Rows) -> str:
    return "32" if rows.small else "bf16"  # many CPUs only emulate bf16


def through_fit(rows: Rows, network: str, batch_size: int, way: str, steps: int) -> dict[str, float]:
    epochs: list[dict[str, float]] = []
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            one_trial.NETWORKS[network](),
            noise(steps * batch_size, batch_size),
            optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
            lr_schedule=schedules.cosine,
            augment=one_trial.AUGMENT,
            settings=TrainerSettings(max_epochs=3, batch_size=batch_size, precision=precision(rows), **WAYS[way]),
            folder=Path(folder),
            seed=0,
            report=lambda epoch, metrics: epochs.append(metrics),
            own_callbacks={"fills": Fills()} if way == "fills" else {},
            device=rows.device,
        )
    speed = statistics.mean(metrics["images_per_second"] for metrics in epochs[1:])
    memory = {key: epochs[-1][key] for key in ("device_memory_mb", "device_reserved_mb") if key in epochs[-1]}
    return {"step_ms": 1000 * batch_size / speed, "images_per_s": speed, **memory}


def by_hand(rows: Rows, network: str, batch_size: int, way: str, steps: int) -> dict[str, float]:
    args = argparse.Namespace(
        epochs=3,
        batch_size=batch_size,
        precision=precision(rows),
        baseline="graphed" if way == "graphed" else "eager",
    )
    torch.manual_seed(0)
    data = noise(steps * batch_size, 8)  # hardly any validation, so that an epoch is its steps
    seconds = one_trial.hand_written(one_trial.NETWORKS[network](), data, args, rows.device)[1:]
    speed = steps * batch_size / statistics.mean(seconds)
    return {"step_ms": 1000 * batch_size / speed, "images_per_s": speed}


def run(rows: Rows) -> None:
    for case, (network, batch_sizes, ways) in CASES.items():
        for batch_size in batch_sizes:
            for way in ways:
                measured = through_fit if way in WAYS else by_hand
                sizes = ("tiny", batch_size // 32, way, 2) if rows.small else (network, batch_size, way, 60)
                torch.backends.cudnn.benchmark = measured is by_hand
                rows.measure(partial(measured, rows, *sizes), case=case, batch_size=batch_size, way=way)
                torch.backends.cudnn.benchmark = False
