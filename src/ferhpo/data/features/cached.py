"""The features of a data set, computed once and stored in the cache of decoded images.

Note: they are computed from the images before augmentation (docs/decisions/0008). They depend on the images and the
settings only, so that all splits, folds and subsets of a data set share one cache entry.
"""

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from ferhpo.data.dataset import FaceData, array_digest
from ferhpo.data.features.hog import Hog
from ferhpo.data.io.cache import Entry, cached


def with_hog(data: FaceData, hog: Hog, cache_dir: str | Path | None = None) -> FaceData:
    """Return the data set with `features`, float32 [N, F], read-only.

    cache_dir: as for every reader
    Raises ValueError if the images are too small for one block.
    """
    hog.num_features(data.image_size)
    key = {"hog": asdict(hog), "scikit-image": version("scikit-image"), "images": array_digest(data.images)}
    entry = cached(key, cache_dir, lambda: Entry({"features": hog(data.images)}, {}))
    features = entry.arrays["features"]
    features.setflags(write=False)
    return replace(data, features=features)
