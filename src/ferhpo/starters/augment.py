"""An augmentation of your own: a subclass of Augment. Its settings come on top of those of conf/augment.

All randomness comes from `noise`, which is made once per epoch from the trial's seed, so that a resumed trial sees the
same images. `__call__` only applies it, on the device of the training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ferhpo.training.augment import COLUMNS, Augment


@dataclass(frozen=True)
class Starter(Augment):
    """Change the gamma of each image, as another camera would.

    gamma: pixels, from 0 to 1, are raised to a power between 1 / (1 + gamma) and 1 + gamma
    """

    gamma: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma <= 10:
            raise ValueError(f"gamma is {self.gamma}; it must be in [0, 10]")

    def noise(self, num_images: int, image_size: int, rng: np.random.Generator) -> Tensor:
        """Return the noise of Augment [N, len(COLUMNS)] with one more column: the power for each image."""
        given = super().noise(num_images, image_size, rng)
        power = (1 + self.gamma) ** (2 * rng.random((num_images, 1)) - 1)
        return torch.cat([given, torch.from_numpy(power).float()], dim=1)

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return the augmented images, float32 [N, C, size, size] in 0..1; images are uint8 [N, C, H, H]."""
        power = noise[:, len(COLUMNS), None, None, None]
        return super().__call__(images, noise) ** power
