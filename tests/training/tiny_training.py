"""A data set that a tiny network learns in a few steps."""

from typing import Any

import numpy as np
import torch

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, face_data
from ferhpo.models.cnn import CNN

SIZE = 24


def make_data(num_images: int = 150, num_classes: int = 3, channels: int = 1, soft: bool = False) -> FaceData:
    """Noise with a bright band whose height is the class; 2/3 train, 1/6 val, 1/6 test."""
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


def make_network(seed: int = 0, size: int = SIZE, channels: int = 1, **settings: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"stem_channels": 4, "num_blocks": 2, "block_channels": 4, "dense_units": 8}
    return CNN(in_channels=channels, num_classes=3, image_size=size, **{**shape, **settings})
