"""A data set of your own: a function that reads it and returns a FaceData.

Its arguments are settings of the YAML file. What can be wrong with files is a DataError, and what can be wrong with a
setting a ConfigError; both name the file or the key, and the remedy.
"""

import csv
from pathlib import Path
from typing import Unpack

import numpy as np
from PIL import Image

from ferhpo.data.dataset import FaceData, face_data
from ferhpo.data.splits import assign_splits
from ferhpo.data.splits.options import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError, DataError


@lists_split_keys("random")
def starter(path: str, image_size: int = 48, **split_keys: Unpack[SplitKeys]) -> FaceData:
    """Read a folder of images with labels.csv, which has the columns file and emotion.

    image_size: side in pixels to which the images are resized
    split_keys: val_fraction, folds, ...; see ferhpo.data.splits.options.SplitOptions
    """
    options = SplitOptions.of(split_keys, "random")
    if faults := options.faults(["random"]):
        raise ConfigError("data=starter", faults)
    table = Path(path) / "labels.csv"
    if not table.is_file():
        raise DataError(str(table), ["the file does not exist; set data.path to the folder that contains it"])
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    class_names = tuple(sorted({row["emotion"] for row in rows}))
    labels = np.array([class_names.index(row["emotion"]) for row in rows], np.int64)
    images = np.empty((len(rows), image_size, image_size), np.uint8)
    for index, row in enumerate(rows):
        with Image.open(Path(path) / row["file"]) as image:
            images[index] = np.asarray(image.convert("L").resize((image_size, image_size)))
    where = f"data.path is {path}"
    split, split_name = assign_splits(where, "data=starter", options, None, images, labels)  # identical images together
    return face_data(images, labels, split, class_names, source=str(table), split_name=split_name)
