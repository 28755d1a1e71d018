"""Load the data set of a configuration."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferhpo.config import Composed, contracts
from ferhpo.config.compose import compose
from ferhpo.config.folds import num_folds
from ferhpo.config.input.overrides import not_set
from ferhpo.config.model_section import shared_hog
from ferhpo.data.dataset import FaceData
from ferhpo.data.features.cached import with_hog
from ferhpo.data.splits import with_fold, with_train_subset
from ferhpo.errors import ConfigError
from ferhpo.keys import Overrides, leaves, override_texts


def load_data(composed: Composed, for_training: bool = True) -> FaceData:
    """Read the data set of a configuration, or load it from the cache, with the features that its models need.

    for_training: whether the user's own reader must return training and validation images
    Raises DataError if the data set cannot be read, ConfigError if a key is missing or features cannot be computed.
    """
    section = composed.config["data"]
    missing = [path for path, value in leaves(section, "data") if value == "???"]
    if missing:
        raise ConfigError(composed.name, [not_set(path) for path in missing])
    data = contracts.read_data(composed.name, section, for_training)
    for fold in range(num_folds(composed.config) or 0):
        fold_data(data, section, fold)  # reports a fold that cannot be drawn now, instead of in every trial
    try:
        hog = shared_hog(composed)
        return data if hog is None else with_hog(data, hog, section.get("cache_dir"))
    except ValueError as error:
        raise ConfigError(composed.name, [f"model.{error}"]) from None


def fold_data(data: FaceData, section: Mapping[str, Any], fold: int) -> FaceData:
    """Return a view of a data set with `fold` (from 0) as validation split, equal to loading it with data.fold=<fold>.

    section: the configuration's `data`; its folds, split_seed and train_subset are used
    """
    seed = int(section.get("split_seed") or 0)
    view = with_fold(data, int(section["folds"]), fold, seed)
    subset = section.get("train_subset")
    return view if subset is None else with_train_subset(view, int(subset), seed)


def describe_data(name: str, overrides: Overrides = (), config_dir: Path | None = None) -> dict[str, Any]:
    """Return counts, size, duplicates, conflicting labels, blank images and overlap between splits of a data set.

    name: an option of the group `data`, e.g. fer2013
    """
    from ferhpo.data.describe import describe

    overrides = [
        re.sub(r"^([+~]*+)(?!data\.|allowed_targets=)", r"\1data.", text) for text in override_texts(overrides)
    ]
    # Composed without a sweep, whose settings for its own data set would be merged into those of this one.
    return describe(load_data(compose(None, [f"data={name}", *overrides], config_dir)))
