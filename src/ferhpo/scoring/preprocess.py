"""From pixels to what a network sees: the middle of the image, scaled and normalised.

Training, validation and inference share this, and every best.ckpt carries it; a network fed by other rules answers
badly without any error.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferhpo.data.dataset import TRAIN, FaceData

SMALLEST_STD = 1 / 255  # one grey level: a blank image is not divided by zero


@dataclass(frozen=True)
class Preprocess:
    """How uint8 images become inputs.

    image_size: pixels a side of the images; input_size: of what the network sees, cut from the middle
    normalise: "dataset" (by mean and std), "image" (by each image's own) or "none"
    mean, std: one a channel, of pixels in 0..1
    """

    channels: int
    image_size: int
    input_size: int
    normalise: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [N, C, input_size, input_size] from uint8 [N, C, image_size, image_size]."""
        edge = (self.image_size - self.input_size) // 2
        window = images[:, :, edge : edge + self.input_size, edge : edge + self.input_size]
        return self.normalised(window.float().mul_(1 / 255))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return normalised pixels; float [N, C, H, W] in 0..1, which may be overwritten."""
        if self.normalise == "dataset":
            # By numbers, channel by channel: a tensor made of them would be a transfer to the device for each batch.
            for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
                pixels[:, channel].sub_(mean).div_(std)
            return pixels
        if self.normalise == "image":
            stds, means = torch.std_mean(pixels, (1, 2, 3), correction=0, keepdim=True)
            return (pixels - means).div_(stds.clamp_min(SMALLEST_STD))  # reports take gradients through this
        return pixels

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Return what `dataclasses.asdict` was made of, as a checkpoint holds it."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def preprocess_of(data: FaceData, input_size: int, normalise: str) -> Preprocess:
    """Return the preprocessing for a data set, with mean and deviation of its training images."""
    mean, std = pixel_statistics(data.images[data.split == TRAIN]) if normalise == "dataset" else ((), ())
    return Preprocess(data.channels, data.image_size, input_size, normalise, mean, std)


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation a channel, of pixels in 0..1, from uint8 [N, H, W] or [N, H, W, C].

    Counts grey levels, so the result is exact and the same on every machine.
    """
    channels = 1 if images.ndim == 3 else images.shape[3]
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(channels):
        pixels = torch.from_numpy(np.ascontiguousarray(images.reshape(-1, channels)[:, channel]))
        counts = torch.bincount(pixels, minlength=256).double().numpy()
        mean = float(counts @ levels / counts.sum())
        means.append(mean)
        stds.append(max(float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())), SMALLEST_STD))
    return tuple(means), tuple(stds)
