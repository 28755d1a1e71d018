"""Trials for the tests marked gpu: small enough for the CPU in a dry run, and their states to compare in bits."""

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import ferhpo
from ferhpo.config.compose import compose
from ferhpo.data.dataset import FaceData
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.training.checkpoint import LAST, epoch_file, read
from ferhpo.training.hardware.usage import NAMES
from ferhpo.training.settings import Hardware
from ferhpo.trial.load_data import load_data
from ferhpo.trial.run import Outcome, run_trial

DRY_RUN = os.environ.get("FERHPO_GPU_DRY_RUN") == "1"
NUM_TRAIN, NUM_VAL, BATCH_SIZE, IMAGE_SIZE = (32, 16, 8, 24) if DRY_RUN else (1280, 256, 128, 48)
MEASURED = ("epoch_seconds", "images_per_second", "device_memory_mb", "device_reserved_mb", "device_used_mb", *NAMES)
DATA = [
    f"data.num_train={NUM_TRAIN}",
    f"data.num_val={NUM_VAL}",
    "data.num_test=8",
    f"data.image_size={IMAGE_SIZE}",
]
_WIDTH, _STEM, _RESIZE = (8, "original", 32) if DRY_RUN else (24, "small", 64)
FAMILIES = {
    "cnn": ["model=cnn", "model.conv_dropout=0.2", f"model.block_channels={_WIDTH}"],
    "resnet": ["model=resnet", "model.stem_stride=2", f"model.width={_WIDTH}", "model.num_stages=3"],
    "attention": ["model=resnet", "model.attention=cbam", f"model.width={_WIDTH}", "model.num_stages=2"],
    "vit": ["model=vit", *(["model.num_blocks=1", "model.head_width=8"] if DRY_RUN else [])],
    "resnet18": ["model=torchvision", "model.arch=resnet18", f"model.stem={_STEM}"],
    "efficientnet_b0": [
        "model=torchvision",
        "model.arch=efficientnet_b0",
        f"model.stem={_STEM}",
        f"model.resize={_RESIZE}",
    ],
}


def config_of(*overrides: str) -> dict[str, Any]:
    """Return the configuration of a trial of two epochs."""
    fixed = ["space=null", "tracking=none", f"trainer.batch_size={BATCH_SIZE}", "trainer.max_epochs=2"]
    return dict(compose("demo", [*DATA, *fixed, *overrides]).config)


@functools.cache
def faces() -> FaceData:
    """Return the data set of all tests."""
    return load_data(compose("demo", DATA))


@dataclass
class Trained:
    """A trial that has ended, or was stopped: then without an outcome.

    states: after each epoch, last.ckpt and the kept network
    facts: what is known of it besides, e.g. whether its steps are a CUDA graph
    """

    outcome: Outcome | None = None
    states: dict[int, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def train(folder: Path, *overrides: str, stop_after: int | None = None, share: float = 1.0) -> Trained:
    """Run a trial, or resume it; `stop_after` is the epoch whose report stops it, `share` its part of the GPU."""
    config = config_of(*overrides)
    config["trainer"]["keep_epochs"] = list(range(1, config["trainer"]["max_epochs"] + 1))
    trained = Trained()

    def report(epoch: int, metrics: dict[str, float]) -> None:
        last = read(folder / LAST, ())
        if epoch == len(last["history"]):  # a resume reports earlier epochs again
            trained.states[epoch] = {"last": _unmeasured(last), "kept": _unmeasured(read(epoch_file(folder, epoch)))}
        if epoch == stop_after:
            raise SystemExit(0)

    hardware = Hardware(1 if DRY_RUN else torch.get_num_threads(), num_gpus=share)
    try:
        trained.outcome = run_trial(config, faces(), folder, 1, report, trained.facts.update, hardware)
    except SystemExit:
        assert stop_after is not None
    return trained


def _unmeasured(checkpoint: dict[str, Any]) -> dict[str, Any]:
    for metrics in [*checkpoint.get("history", []), checkpoint.get("metrics", {})]:
        for key in MEASURED:
            metrics.pop(key, None)
    return checkpoint


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return where two states differ, and by how much; [] if they are equal in bits."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if torch.equal(one, other):
            return []
        if one.shape != other.shape:
            return [f"{where}: {tuple(one.shape)} and {tuple(other.shape)}"]
        return [f"{where}: by {(one.double() - other.double()).abs().max():.3g}"]
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return [found for key in one for found in differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [found for i in range(len(one)) for found in differences(one[i], other[i], f"{where}[{i}]")]
    return [] if one == other else [f"{where}: {str(one)[:40]} and {str(other)[:40]}"]


def assert_equal(one: Any, other: Any) -> None:
    found = differences(one, other)
    assert not found, f"{len(found)} values differ, the first: {'; '.join(found[:3])}"


def own_model(**settings: Any) -> list[str]:
    """Return the overrides that select a network of faults.py."""
    section = ", ".join(f"{key}: {value}" for key, value in settings.items())
    model = f"+model={{_target_: tests.gpu.faults.Faulty, {section}}}"
    return ["~model", model, "allowed_targets=[tests.gpu.faults]"]


def sweep(folder: Path, fault: str, *overrides: str, **model: Any) -> list[TrialRecord]:
    """Run two trials of a network with a fault of faults.py, one after the other; return how they ended.

    In a dry run, the trials get the share of a GPU that they ask for, but train on the CPU.
    """
    fixed = [
        "~space",
        "+space={optim: {lr: {low: 0.001, high: 0.01}}}",
        "name=faults",
        f"output_dir={folder}",
        "sampler=random",
        "scheduler=none",
        "num_trials=2",
        "tracking=none",
        f"trainer.batch_size={BATCH_SIZE}",
        "trainer.max_epochs=2",
        "compute.num_cpus=2",
        "compute.cpus_per_trial=1",
        "compute.max_concurrent=1",
        "compute.stop_after_failures=null",
        *(["compute.num_gpus=1"] if DRY_RUN else []),
    ]
    ferhpo.sweep("demo", [*DATA, *own_model(fault=fault, **model), *fixed, *overrides])
    return ferhpo.load_sweep("faults", folder).trials()
