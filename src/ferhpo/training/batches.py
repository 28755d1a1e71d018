"""The training batches of an epoch: index gathers on the device, without worker processes or Python code per image.

Note: on a CPU, the device tensor is the memory that all trials share, so nothing may write into it. The order of the
images and the noise of the augmentation depend on (seed, epoch) alone, so an exact resume needs no random state.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from torch import Tensor

from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.scoring.device_data import DeviceData, indices_of
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training.augment import Augment

ORDER, NOISE, NETWORK = 0, 1, 2  # streams of random numbers of an epoch


def epoch_rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Return the random number generator of one stream in one epoch."""
    return np.random.default_rng([seed, epoch, stream])


def class_weights(data: FaceData) -> NDArray[np.float32]:
    """Return one weight per class, 1 / its frequency in training, with mean 1 over the training images; float32 [C].

    A class without training images gets 0.
    """
    counts = np.bincount(data.labels[indices_of(data, TRAIN)], minlength=data.num_classes)
    present = counts > 0
    weights = np.zeros(data.num_classes, np.float32)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


class TrainBatches:
    """The training batches of the current `epoch`; Lightning iterates over them once per epoch.

    Yields the inputs of a network and the targets. Inputs are (images float32 [n, C, size, size],), and features [n, F]
    of the images before augmentation if the network takes them. Targets are labels int64 [n], or float32 [n, classes]
    if the data has soft targets or mixup is on. The last, incomplete batch is dropped, because batch norm would weight
    its few images like a full batch; if there is no full batch, all images form one.
    sampling: "shuffle" uses every image once; "balanced" draws all classes equally often, with replacement
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
        """The number of images in an epoch."""
        return len(self) * self._batch_size

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        data, device = self._on_device, self._on_device.images.device
        order = torch.from_numpy(self._order()).to(device)
        noise_rng = epoch_rng(self._seed, self.epoch, NOISE)
        epoch_noise = self._augment.noise(len(order), self._image_size, noise_rng).to(device)
        for start in range(0, self.num_images, self._batch_size):
            chosen, noise = (values[start : start + self._batch_size] for values in (order, epoch_noise))
            images = self._preprocess.normalized(self._augment(data.images[chosen], noise))
            features = data.features_of(chosen)
            targets = data.labels[chosen] if data.targets is None else data.targets[chosen]
            if self._augment.mixup:
                soft = targets if data.targets is not None else F.one_hot(targets, data.num_classes).float()
                images, targets, *mixed = (self._augment.mix(values, noise) for values in (images, soft, *features))
                features = tuple(mixed)
            yield (images.contiguous(memory_format=self._memory_format), *features), targets

    def _order(self) -> NDArray[np.intp]:
        rng = epoch_rng(self._seed, self.epoch, ORDER)
        if self._probabilities is None:
            return rng.permutation(self._indices)
        return rng.choice(self._indices, len(self._indices), p=self._probabilities)
