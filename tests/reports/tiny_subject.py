"""Make subjects for reports that look into networks: tiny ones of every family, on bands whose height is the class."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import nn

from ferhpo.config import Composed
from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, face_data
from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import pixels_of
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord

CONF = Path(__file__).parents[2] / "conf" / "model"
SIZE = 32  # the minimum of VGG
NUM_CLASSES = 4
FAMILIES: dict[str, dict[str, Any]] = {
    "cnn": {"width_multiplier": 0.05},
    "feed_forward": {"width_multiplier": 0.05},
    "resnet": {"width_multiplier": 0.1, "num_stages": 2},
    "resnet-se": {"width_multiplier": 0.1, "num_stages": 2, "blocks_per_stage": 1, "attention": "se"},
    "resnet-cbam": {"width_multiplier": 0.1, "num_stages": 2, "blocks_per_stage": 1, "attention": "cbam"},
    "vit": {"num_blocks": 2, "width_multiplier": 0.1},
    "torchvision-resnet18": {"arch": "resnet18", "stem": "original"},
    "torchvision-vgg13_bn": {"arch": "vgg13_bn"},
    "torchvision-efficientnet_b0": {"arch": "efficientnet_b0"},
}


def make_data(channels: int = 1, num_images: int = 80) -> FaceData:
    """Make noise with a bright band; half of the images are training, eight are test, the others validation."""
    rng = np.random.default_rng(7)
    shape = (num_images, SIZE, SIZE) if channels == 1 else (num_images, SIZE, SIZE, channels)
    images = rng.integers(0, 120, shape, dtype=np.uint8)
    labels = np.arange(num_images) % NUM_CLASSES
    band = SIZE // NUM_CLASSES
    for image, label in zip(images, labels, strict=True):
        image[label * band : (label + 1) * band] += 90
    split = np.full(num_images, VAL, np.uint8)
    split[: num_images // 2] = TRAIN
    split[-8:] = TEST
    return face_data(images, labels, split, ("angry", "disgust", "happy", "sad"), "made", "published")


def build(family: str, channels: int = 1, **settings: Any) -> nn.Module:
    file = CONF / f"{family.partition('-')[0]}.yaml"
    given = yaml.safe_load(file.read_text())["model"] | FAMILIES[family] | settings
    module, name = given.pop("_target_").rsplit(".", 1)
    torch.manual_seed(0)
    arguments = {"in_channels": channels, "num_classes": NUM_CLASSES, "image_size": SIZE, **given}
    return getattr(importlib.import_module(module), name)(**arguments)  # type: ignore[no-any-return]


def make_subject(
    network: nn.Module,
    folder: Path,
    data: FaceData | None = None,
    normalise: str = "dataset",
    input_size: int = SIZE,
    best_epoch: int = 3,
) -> Subject:
    """Make a subject like load_subject does. Its trial's folder is folder/trials/0000."""
    data = data or make_data()
    preprocess = preprocess_of(data, input_size, normalise)
    sweep = Sweep(folder, "id", Composed(folder.name, {"data": {}}), {})
    trial = TrialRecord(0, "COMPLETE", {}, seed=0, best_epoch=best_epoch)
    network.eval()
    return Subject(sweep, trial, network, data, preprocess, evaluate(network, data, "val", preprocess))


def train(subject: Subject, steps: int = 40) -> Subject:
    """Return the subject after some steps on all its training images, with its new predictions."""
    indices = np.flatnonzero(subject.data.split == TRAIN).tolist()
    inputs, labels = subject.preprocess(pixels_of(subject, indices)), torch.from_numpy(subject.data.labels[indices])
    optimizer = torch.optim.Adam(subject.network.parameters(), lr=3e-3)
    subject.network.train()
    for module in subject.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.9  # otherwise a few steps leave its statistics at their initial values
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(subject.network(inputs), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    subject.network.eval()
    return replace(subject, predictions=evaluate(subject.network, subject.data, "val", subject.preprocess))


def linear_subject(folder: Path, channels: int = 1) -> Subject:
    """Make a subject whose network is one dense layer on the raw pixels."""
    data = make_data(channels)
    network = nn.Sequential(nn.Flatten(), nn.Linear(channels * SIZE * SIZE, NUM_CLASSES))
    return make_subject(network, folder, data, normalise="none")
