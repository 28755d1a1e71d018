"""The preprocessing from pixels to network input: the center of the image, scaled and normalized.

Note: training, validation and inference share this module, and every best.ckpt contains its settings, since a network
predicts badly, without any error, if its inputs are preprocessed differently.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferhpo.data.dataset import TRAIN, FaceData

LARGEST_SIDE = 10_000  # pixels
SMALLEST_STD = 1 / 255  # one gray level; avoids a division by zero for a blank image


@dataclass(frozen=True)
class Preprocess:
    """The settings that turn uint8 images into network inputs.

    image_size: side of the images in pixels
    input_size: side of the network input in pixels, which is the center of the image
    normalise: "dataset" (by mean and std), "image" (by the mean and deviation of each image) or "none"
    mean, std: one per channel, of pixels in 0..1
    Raises ValueError for other values.
    """

    channels: int
    image_size: int
    input_size: int
    normalise: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        sides = (self.image_size, self.input_size)
        numbers = (*self.mean, *self.std)
        lengths = {len(self.mean), len(self.std)}
        if (
            self.channels not in (1, 3)
            or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides)
            or self.normalise not in ("dataset", "image", "none")
            or not all(isinstance(number, int | float) and abs(number) < 1e30 for number in numbers)
            or (self.normalise == "dataset" and (lengths != {self.channels} or min(self.std) <= 0))
        ):
            raise ValueError(f"the preprocessing is damaged: {self!r:.200}; restore the file from a copy")

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [N, C, input_size, input_size] from uint8 [N, C, image_size, image_size]."""
        edge = (self.image_size - self.input_size) // 2
        window = images[:, :, edge : edge + self.input_size, edge : edge + self.input_size]
        return self.normalized(window.float().mul_(1 / 255))

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return normalized pixels; `pixels` is float [N, C, H, W] in 0..1 and may be overwritten."""
        if self.normalise == "dataset":
            # Python numbers, channel by channel: a tensor of them would be copied to the device for each batch.
            for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
                pixels[:, channel].sub_(mean).div_(std)
            return pixels
        if self.normalise == "image":
            stds, means = torch.std_mean(pixels, (1, 2, 3), correction=0, keepdim=True)
            return (pixels - means).div_(stds.clamp_min(SMALLEST_STD))  # reports compute gradients through this
        return pixels

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Build the settings from the result of `dataclasses.asdict`, which checkpoints contain. Raises ValueError."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the preprocessing is damaged ({error!r:.100}); restore the file from a copy") from None


def preprocess_of(data: FaceData, input_size: int, normalise: str) -> Preprocess:
    """Return the preprocessing for a data set, with the mean and deviation of its training images."""
    mean, std = pixel_statistics(data.images[data.split == TRAIN]) if normalise == "dataset" else ((), ())
    return Preprocess(data.channels, data.image_size, input_size, normalise, mean, std)


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each channel, of pixels in 0..1, for images uint8 [N, H, W] or [N, H, W, C].

    They are computed from counts of gray levels, so the result is exact and the same on every machine.
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
