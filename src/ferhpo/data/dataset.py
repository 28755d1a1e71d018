"""A data set in memory: what every reader returns and every trial shares.

The arrays are read-only, because all trials of a node share one copy: never write into them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, 3
SPLIT_NAMES = ("train", "val", "test", "unused")


@dataclass(frozen=True)
class FaceData:
    """Labelled face images with the split of each.

    images: uint8 [N, H, W] grey or [N, H, W, 3] colour, read-only
    labels: int64 [N], indices into class_names
    targets: float32 [N, len(class_names)] soft targets whose rows sum to 1 (FER+ vote shares), or None
    split: uint8 [N], TRAIN, VAL, TEST or UNUSED (outside a subset or a fold)
    class_names: in the order of the labels
    digest: sha256 over all of the above
    source: what was read, in words, as "fer2013.csv (competition CSV)"
    split_name: "published", "folder" or "random", with the fold where there are folds
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32] | None
    split: NDArray[np.uint8]
    class_names: tuple[str, ...]
    digest: str
    source: str
    split_name: str

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 1 if self.images.ndim == 3 else self.images.shape[3]

    @property
    def image_size(self) -> int:
        """Height of an image in pixels; images are square."""
        return int(self.images.shape[1])
