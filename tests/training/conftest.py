"""A data set that a tiny network learns in a few steps, and a way to fit it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, face_data

SIZE = 24


def make_data(num_images: int = 150, num_classes: int = 3, channels: int = 1, soft: bool = False) -> FaceData:
    """Noise with a bright band whose height is the class; 2/3 training, 1/6 each validation and test."""
    rng = np.random.default_rng(7)
    shape = (num_images, SIZE, SIZE) if channels == 1 else (num_images, SIZE, SIZE, channels)
    images = rng.integers(0, 120, shape, dtype=np.uint8)
    labels = rng.choice(num_classes, num_images, p=np.arange(1, num_classes + 1) / sum(range(num_classes + 1)))
    band = SIZE // num_classes
    for image, label in zip(images, labels, strict=True):
        image[label * band : (label + 1) * band] += 90
    split = np.full(num_images, TRAIN, np.uint8)
    split[2 * num_images // 3 :] = VAL
    split[5 * num_images // 6 :] = TEST
    targets = None
    if soft:
        targets = np.full((num_images, num_classes), 0.1 / num_classes, np.float32)
        targets[np.arange(num_images), labels] += 0.9
    names = tuple("abcdefgh"[:num_classes])
    return face_data(images, labels.astype(np.int64), split, names, "made", "published", targets)


@pytest.fixture
def data() -> FaceData:
    return make_data()


def make_network(seed: int = 0, size: int = SIZE, channels: int = 1, **settings: Any) -> torch.nn.Module:
    from ferhpo.models.cnn import CNN

    torch.manual_seed(seed)
    shape: dict[str, Any] = {"stem_channels": 4, "num_blocks": 2, "block_channels": 4, "dense_units": 8}
    return CNN(in_channels=channels, num_classes=3, image_size=size, **{**shape, **settings})


@pytest.fixture
def run_fit(tmp_path: Path) -> Callable[..., Any]:
    """fit() with small defaults; settings of the trainer by `trainer=`, the rest as fit names it."""
    from ferhpo.training import schedules
    from ferhpo.training.augment import Augment
    from ferhpo.training.fit import fit
    from ferhpo.training.settings import TrainerSettings

    def run(**changes: Any) -> Any:
        trainer = {"max_epochs": 2, "batch_size": 20, "precision": "32", "num_threads": 1, **changes.pop("trainer", {})}
        arguments: dict[str, Any] = {
            "network": None,
            "data": None,
            "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            "lr_schedule": schedules.constant,
            "augment": Augment(),
            "settings": TrainerSettings(**trainer),
            "folder": tmp_path,
            "seed": 3,
            "report": lambda epoch, metrics: None,
            "device": torch.device("cpu"),
        }
        arguments |= changes
        if arguments["network"] is None:
            arguments["network"] = make_network()
        if arguments["data"] is None:
            arguments["data"] = make_data()
        return fit(**arguments)

    return run
