"""The data set on the device, and the batches of an epoch: index gathers, no worker processes, no per-image Python.

On a CPU the device tensor is the very memory that all trials share, so nothing may ever write into it. An epoch's order
and draws are a function of (seed, epoch) alone: a resumed training needs no random state to go on exactly.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from numpy.typing import NDArray
from torch import Tensor

from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.scoring.device_data import DeviceData, indices_of
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.augment import Augment

ORDER, DRAWS, NETWORK = 0, 1, 2  # streams of random numbers of an epoch


def epoch_rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Return the random numbers of one use in one epoch."""
    return np.random.default_rng([seed, epoch, stream])


def class_weights(data: FaceData) -> NDArray[np.float32]:
    """Return a weight a class, 1 / its frequency in training, with mean 1 over the training images.

    A class without training images gets 0.
    """
    counts = np.bincount(data.labels[indices_of(data, TRAIN)], minlength=data.num_classes)
    present = counts > 0
    weights = np.zeros(data.num_classes, np.float32)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


class TrainBatches:
    """The training batches of the epoch that `epoch` says; Lightning iterates over it once an epoch.

    Yields inputs, what a network is called with, and targets. Inputs are (images float32 [n, C, size, size],), or with
    them features [n, F], which are those of the images before augmentation. Targets are labels int64 [n], or float32
    [n, classes] where the data has soft targets or mixup makes them. The last, incomplete batch is left out (batch norm
    would take its few images as seriously as a full batch); where there is no full batch, all images are one.
    sampling: "shuffle" sees every image once; "balanced" draws classes equally often, with replacement.
    """

    def __init__(
        self,
        data: FaceData,
        on_device: DeviceData,
        preprocess: Preprocess,
        augment: Augment,
        *,
        batch_size: int,
        sampling: str,
        seed: int,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.epoch = 1
        self._indices = indices_of(data, TRAIN)
        self._on_device = on_device
        self._preprocess = preprocess
        self._augment = augment
        self._image_size = data.image_size
        self._batch_size = min(batch_size, len(self._indices))
        self._seed = seed
        self._memory_format = memory_format
        self._probabilities: NDArray[np.float64] | None = None
        if sampling == "balanced":
            weights = class_weights(data).astype(np.float64)[data.labels[self._indices]]
            self._probabilities = weights / weights.sum()

    def __len__(self) -> int:
        return len(self._indices) // self._batch_size

    @property
    def num_images(self) -> int:
        """Images seen in an epoch."""
        return len(self) * self._batch_size

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        data, device = self._on_device, self._on_device.images.device
        order = torch.from_numpy(self._order()).to(device)
        draw_rng = epoch_rng(self._seed, self.epoch, DRAWS)
        draws = self._augment.draw(len(order), self._image_size, draw_rng).to(device)
        for start in range(0, self.num_images, self._batch_size):
            chosen, drawn = (values[start : start + self._batch_size] for values in (order, draws))
            images = self._preprocess.normalised(self._augment(data.images[chosen], drawn))
            features = data.features_of(chosen)
            targets = data.labels[chosen] if data.targets is None else data.targets[chosen]
            if self._augment.mixup:
                soft = targets if data.targets is not None else F.one_hot(targets, data.num_classes).float()
                images, targets, *mixed = (self._augment.mix(values, drawn) for values in (images, soft, *features))
                features = tuple(mixed)
            yield (images.contiguous(memory_format=self._memory_format), *features), targets

    def _order(self) -> NDArray[np.intp]:
        rng = epoch_rng(self._seed, self.epoch, ORDER)
        if self._probabilities is None:
            return rng.permutation(self._indices)
        return rng.choice(self._indices, len(self._indices), p=self._probabilities)
