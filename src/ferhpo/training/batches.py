"""The training batches of an epoch: index gathers on the device, without worker processes or Python code per image.

Note: on a CPU, the device tensor is the memory that all trials share, so nothing may write into it. The order of the
images and the noise of the augmentation depend on (seed, epoch) alone, so an exact resume needs no random state.
"""

from collections.abc import Iterator
from typing import Any

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
# Images are augmented for several batches at once: on a GPU, each operation costs the time of its launch, however few
# images there are; on a CPU, the images should stay in its cache.
_GPU_IMAGE_BYTES, _CPU_IMAGE_BYTES = 40_000_000, 1_000_000

Batch = tuple[tuple[Tensor, ...], Tensor]  # the inputs of a network, and the targets


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


class Steps:
    """What Lightning iterates over in an epoch: all batches as one iterator, or one by one."""

    def __init__(self, batches: "TrainBatches", *, one_by_one: bool) -> None:
        self._batches = batches
        self._one_by_one = one_by_one

    def __len__(self) -> int:
        return len(self._batches) if self._one_by_one else 1

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches) if self._one_by_one else iter([iter(self._batches)])


class TrainBatches:
    """The training batches of the current `epoch`, once per iteration.

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

    def __iter__(self) -> Iterator[Batch]:
        data, device = self._on_device, self._on_device.images.device
        order = torch.from_numpy(self._order()).to(device)
        noise_rng = epoch_rng(self._seed, self.epoch, NOISE)
        epoch_noise = self._augment.noise(len(order), self._image_size, noise_rng).to(device)
        several = self._batch_size * self._num_batches_at_once()
        for start in range(0, self.num_images, several):
            chosen, noise = (values[start : min(start + several, self.num_images)] for values in (order, epoch_noise))
            images = self._preprocess.normalized(self._augment(data.images[chosen], noise))
            features = data.features_of(chosen)
            targets = data.labels[chosen] if data.targets is None else data.targets[chosen]
            if self._augment.mixup and data.targets is None:
                targets = F.one_hot(targets, data.num_classes).float()
            parts = [torch.split(values, self._batch_size) for values in (images, targets, noise, *features)]
            for batch_images, batch_targets, batch_noise, *batch_features in zip(*parts, strict=True):
                batch = batch_images, batch_targets, *batch_features
                if self._augment.mixup:
                    batch = tuple(self._augment.mix(values, batch_noise) for values in batch)
                yield (batch[0].contiguous(memory_format=self._memory_format), *batch[2:]), batch[1]

    def _num_batches_at_once(self) -> int:
        if type(self._augment) is not Augment:  # one of the user's own may combine the images of a batch
            return 1
        size = self._augment.output_size(self._image_size)
        batch_bytes = 4 * self._batch_size * self._on_device.images.shape[1] * size * size
        limit = _GPU_IMAGE_BYTES if self._on_device.images.is_cuda else _CPU_IMAGE_BYTES
        return max(limit // batch_bytes, 1)

    def _order(self) -> NDArray[np.intp]:
        rng = epoch_rng(self._seed, self.epoch, ORDER)
        if self._probabilities is None:
            return rng.permutation(self._indices)
        return rng.choice(self._indices, len(self._indices), p=self._probabilities)
