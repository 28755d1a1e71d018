"""A data set on the device, and its batches for evaluation."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.models.layers import num_image_features
from ferhpo.scoring.preprocess import Preprocess


@dataclass(frozen=True)
class DeviceData:
    """A data set on a device: images uint8 [N, C, H, W], labels int64 [N], targets float32 [N, classes] or None.

    features: float32 [N, F], or None for a network that takes images only
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    num_classes: int
    features: Tensor | None = None

    def features_of(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of a network besides the images at `chosen`: their features, or nothing."""
        return () if self.features is None else (self.features[chosen],)


def to_device(data: FaceData, device: torch.device, network: nn.Module | None = None) -> DeviceData:
    """Move all images to the device, and their features if `network` takes them. On a CPU nothing is copied.

    Raises ValueError if the data does not have the features that the network takes.
    """
    num_features = 0 if network is None else num_image_features(network)
    if num_features and (data.features is None or data.features.shape[1] != num_features):
        has = "none" if data.features is None else data.features.shape[1]
        raise ValueError(f"the network takes {num_features} features per image besides its pixels; the data has {has}")
    with warnings.catch_warnings():
        # torch warns that the array is read-only and that writing to the tensor is undefined; it is only read here.
        warnings.filterwarnings("ignore", message=".*NumPy array is not writable.*")
        images = torch.from_numpy(data.images).to(device)
        labels = torch.from_numpy(data.labels).to(device)
        targets = None if data.targets is None else torch.from_numpy(data.targets).to(device)
        features = torch.from_numpy(data.features).to(device) if num_features else None
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return DeviceData(images, labels, targets, data.num_classes, features)


def indices_of(data: FaceData, split: int) -> NDArray[np.intp]:
    """Return the indices of the images of a split. Raises ValueError if it has none."""
    indices = np.flatnonzero(data.split == split)
    if not len(indices):
        raise ValueError(f"the {SPLIT_NAMES[split]} split of {data.source} has no images")
    return indices


def eval_batches(
    on_device: DeviceData, indices: NDArray[np.intp], preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor, Tensor | None]]:
    """Yield inputs (images, or images and features), labels and soft targets (or None) of the images at `indices`.

    They keep their order, and the last, incomplete batch is included.
    """
    positions = torch.from_numpy(indices).to(on_device.images.device)
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        soft = None if on_device.targets is None else on_device.targets[chosen]
        inputs = (preprocess(on_device.images[chosen]), *on_device.features_of(chosen))
        yield inputs, on_device.labels[chosen], soft


def default_device() -> torch.device:
    """Return the first GPU that is visible to this process, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def device_for(config: Mapping[str, Any]) -> torch.device:
    """Return the device to score a network on: that of its trials, as far as it is here."""
    compute = config.get("compute") or {}
    if 0 in (compute.get("gpus_per_trial"), compute.get("num_gpus")):
        return torch.device("cpu")
    return default_device()


def release_gpu_memory() -> None:
    """Give memory that no tensor uses back to the GPU, if this process uses one.

    After an error that makes the GPU unusable, every call of CUDA raises the same error; that of the trial counts.
    """
    with suppress(RuntimeError):
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
