"""Histograms of oriented gradients (Dalal and Triggs 2005, DOI 10.1109/CVPR.2005.177), computed by scikit-image.

Note: this file is copied into registered models that use the features, so that they compute them on their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hog:
    """The settings of HOG features; call it with images to compute them.

    orientations: the number of bins of a histogram
    pixels_per_cell: the side in pixels of a cell, which has one histogram
    cells_per_block: the side in cells of a block, within which histograms are normalized (L2-Hys); blocks overlap and
        are one cell apart
    Raises ValueError for a value below 1.
    """

    orientations: int = 9
    pixels_per_cell: int = 8
    cells_per_block: int = 2

    def __post_init__(self) -> None:
        for key in (field.name for field in fields(self)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"hog.{key} is {value!r}; it must be an integer of at least 1")

    @classmethod
    def from_config(cls, values: Any) -> "Hog":
        """Build the settings from `model.hog`. Raises ValueError for anything but a mapping with known keys."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping):
            raise ValueError(f"hog is {values!r}; it must be null or a mapping with any of {', '.join(names)}")
        unknown = [str(key) for key in values if key not in names]
        if unknown:
            raise ValueError(f"hog.{unknown[0]} matches no key; hog has: {', '.join(names)}")
        return cls(**values)

    def num_features(self, image_size: int) -> int:
        """Return the number of features of a square image of that side. Raises ValueError if no block fits in it."""
        blocks = image_size // self.pixels_per_cell - self.cells_per_block + 1
        if blocks < 1:
            side = self.pixels_per_cell * self.cells_per_block
            raise ValueError(
                f"hog.pixels_per_cell is {self.pixels_per_cell} and hog.cells_per_block is {self.cells_per_block}; "
                f"a block of {side}x{side} pixels must fit in an image of {image_size}x{image_size}; set a smaller one"
            )
        return (blocks * self.cells_per_block) ** 2 * self.orientations

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features, float32 [N, F], of images uint8 [N, H, H] (gray) or [N, H, H, 3] (color)."""
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


def hog_of(model: Mapping[str, Any]) -> Hog | None:
    """Return the HOG features that a model uses; None if it uses images only. ValueError for settings out of range."""
    if model.get("hog") is None or model.get("features") == "pixels":
        return None
    return Hog.from_config(model["hog"])


def given_features(model: Mapping[str, Any], image_size: int) -> dict[str, int]:
    """Return the argument num_features for a model that uses features; empty for other models.

    image_size: side of the square images in pixels
    """
    hog = hog_of(model)
    return {} if hog is None else {"num_features": hog.num_features(image_size)}
