"""Predictions of a network for images of any size and color, batch by batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ferhpo.inference.images import Images, pixels_of
from ferhpo.scoring.preprocess import Preprocess

BATCH_SIZE = 256


def probabilities_of(
    network: torch.nn.Module,
    preprocess: Preprocess,
    hog: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None,
    images: Images,
    num_classes: int,
) -> NDArray[np.float32]:
    """Return the class probabilities float32 [N, num_classes] of the images that `images_in` returns.

    hog: computes the features of a network that takes them. Raises ValueError for an image that cannot be read.
    """
    found = [np.empty((0, num_classes), np.float32)]
    device = next(network.parameters(), torch.empty(0)).device  # an estimator has no parameters
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = pixels_of(images[start : start + BATCH_SIZE], preprocess.channels, preprocess.image_size, start)
            features = [] if hog is None else [torch.from_numpy(hog(batch)).to(device)]
            pixels = torch.from_numpy(batch.copy()).to(device)
            pixels_NCHW = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
            found.append(network(preprocess(pixels_NCHW), *features).float().softmax(1).cpu().numpy())
    return np.concatenate(found)
