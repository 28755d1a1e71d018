"""The files of a data set with their labels, decoded into what `selection.select` takes."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.io.cache import Entry
from ferhpo.data.io.faults import Faults, raise_faults
from ferhpo.data.io.files import Crop, decode_images, is_image
from ferhpo.data.io.tree import Tree, open_tree
from ferhpo.data.labels.emotions import EMOTIONS


def images_by_name(tree: Tree, faults: Faults) -> dict[str, str]:
    """Return the path of each image by its name without folders; the same name in two folders is a fault."""
    found: dict[str, str] = {}
    for path in filter(is_image, tree.names):
        name = PurePosixPath(path).name
        if name in found:
            faults.add("twice", f"{found[name]} and {path} have the same name; remove the copy", path)
        found[name] = path
    return found


def read_named_files(
    where: str,
    source: Path,
    form: str,
    channels: int,
    image_size: int,
    meaning: Callable[[str], str],
    rule: str,
    crop: Crop | None = None,
) -> Entry:
    """Decode a folder or zip of images whose names have the label.

    meaning: returns the emotion that the name of a file (without folders) has, or the reason why it is left out
    rule: what names must be, e.g. "named as KA.AN1.39.tiff"
    Raises DataError with every fault of the data.
    """
    faults = Faults("file")
    with open_tree(where, source) as tree:
        names: list[str] = []
        codes: list[int] = []
        dropped: dict[str, int] = {}
        for name in images_by_name(tree, faults).values():
            means = meaning(PurePosixPath(name).name)
            if means in EMOTIONS:
                names.append(name)
                codes.append(EMOTIONS.index(means))
            else:
                dropped[means] = dropped.get(means, 0) + 1
        if not names:
            faults.add("none", f"it has no image {rule}; use data=image_folder or data=image_table for other images")
            raise_faults(where, faults)
        images = decode_images(where, faults, tree, names, channels, image_size, crop=crop)
    arrays: dict[str, NDArray[Any]] = {"images": images, "labels": np.array(codes, np.int64)}
    return Entry(arrays, {"form": form, "names": names, "classes": EMOTIONS, "dropped": list(dropped.items())})
