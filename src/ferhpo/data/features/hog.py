"""Histograms of oriented gradients (Dalal and Triggs 2005, DOI 10.1109/CVPR.2005.177), as scikit-image computes them.

Nothing is done to scikit-image's numbers, only their type is float32. This file is copied into a registered model that
takes the features, so that it computes them itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hog:
    """How the features of an image are computed; called with images it computes them.

    orientations: bins of a histogram; pixels_per_cell: a side of the cell that has one; cells_per_block: a side of the
    blocks, moved cell by cell, within which histograms are normalised (L2-Hys). ValueError for one below 1.
    """

    orientations: int = 9
    pixels_per_cell: int = 8
    cells_per_block: int = 2

    def __post_init__(self) -> None:
        for key in (field.name for field in fields(self)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"hog.{key} is {value!r}; it must be a whole number of 1 or more")

    @classmethod
    def from_config(cls, values: Any) -> "Hog":
        """Return the settings of `model.hog`. ValueError for anything but a mapping with known keys."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping):
            raise ValueError(f"hog is {values!r}; it must be null, or a mapping that may have {', '.join(names)}")
        unknown = [str(key) for key in values if key not in names]
        if unknown:
            raise ValueError(f"hog.{unknown[0]} matches no key; hog has: {', '.join(names)}")
        return cls(**values)

    def num_features(self, image_size: int) -> int:
        """Return the number of features of an image of so many pixels a side. ValueError where no block fits in it."""
        blocks = image_size // self.pixels_per_cell - self.cells_per_block + 1
        if blocks < 1:
            side = self.pixels_per_cell * self.cells_per_block
            raise ValueError(
                f"hog.pixels_per_cell is {self.pixels_per_cell} and hog.cells_per_block {self.cells_per_block}: a "
                f"block has {side}x{side} pixels, and an image {image_size}x{image_size}; make one of them smaller"
            )
        return (blocks * self.cells_per_block) ** 2 * self.orientations

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [N, F] of images uint8 [N, H, H] grey or [N, H, H, 3] colour."""
        from skimage.feature import hog

        features = np.empty((len(images), self.num_features(images.shape[1])), np.float32)
        for row, image in zip(features, images, strict=True):
            row[:] = hog(
                image,
                orientations=self.orientations,
                pixels_per_cell=(self.pixels_per_cell, self.pixels_per_cell),
                cells_per_block=(self.cells_per_block, self.cells_per_block),
                channel_axis=None if image.ndim == 2 else -1,
            )
        return features
