"""Features of a whole data set, computed once and kept in the cache of decoded images.

They are those of the images as they are read: augmentation does not reach them (docs/decisions/0008). So they depend
on the images and the settings alone, and all splits, folds and subsets of a data set share one entry.
"""

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from ferhpo.data.dataset import FaceData, array_digest
from ferhpo.data.features.hog import Hog
from ferhpo.data.io.cache import Entry, cached


def with_hog(data: FaceData, hog: Hog, cache_dir: str | Path | None = None) -> FaceData:
    """Return the data set with `features` float32 [N, F], read-only: what scikit-image computes for every image.

    cache_dir: as every reader's. ValueError where the images are too small for one block.
    """
    hog.num_features(data.image_size)
    key = {"hog": asdict(hog), "scikit-image": version("scikit-image"), "images": array_digest(data.images)}
    entry = cached(key, cache_dir, lambda: Entry({"features": hog(data.images)}, {}))
    features = entry.arrays["features"]
    features.setflags(write=False)
    return replace(data, features=features)
