"""The reader of FER+ in folders: fer2013new.csv beside FER2013Train, FER2013Valid and FER2013Test with fer0000000.png.

Note: data=fer2013 with data.labels=ferplus_majority reads the same votes for the CSV of FER2013. There, a tie goes to
the label of FER2013, which the folders do not have.
Source: Barsoum et al. 2016 (arXiv 1608.01041).
"""

from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, Part, face_data
from ferhpo.data.io import fer2013_csv
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.faults import Faults, existing_path, one_of, parsed, raise_faults
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.tree import open_tree
from ferhpo.data.labeled_files.decode import images_by_name
from ferhpo.data.labels.emotions import EMOTIONS
from ferhpo.data.labels.ferplus import targets_from_votes
from ferhpo.data.labels.selection import key_faults
from ferhpo.data.splits import SplitKeys, SplitOptions, assign_splits, lists_split_keys
from ferhpo.errors import ConfigError, DataError
from ferhpo.keys import closest

LABELS = ("ferplus_majority", "ferplus_shares")
SPLITS = ("published", "folder", "random")  # the first is the default
LIST = "fer2013new.csv"
FOLDERS = {"FER2013Train": TRAIN, "FER2013Valid": VAL, "FER2013Test": TEST}


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: str = LABELS[0],
    image_size: int = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read FER+: images uint8 [N, S, S] (channels=1) or [N, S, S, 3], classes in FER2013's order, then contempt.

    path: the folder with fer2013new.csv and the three folders, or a zip of it
    labels: "ferplus_majority" or "ferplus_shares", which also fills `targets`; a tie goes to the first in class order
    split_keys: see splits.SplitOptions. "published" (the default): the three folders are train, val and test
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    faults = key_faults(options, SPLITS, image_size, channels, None)
    if labels not in LABELS:
        like = closest(str(labels), LABELS)
        hint = f"; did you mean {like}?" if like else ""
        faults.append(f"data.labels is {labels}; it must be {one_of(LABELS)}{hint}")
    if faults:
        raise ConfigError("data=ferplus", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    recipe = {"reader": "ferplus", "image_size": image_size, "channels": channels}
    entry = read_cached(where, source, recipe, cache_dir, lambda: _read(where, source, channels, image_size))
    votes, images = entry.arrays["votes"], entry.arrays["images"]
    # Of a tie, the first in class order wins; the label that decides in FER2013 is not known here.
    no_emotion = np.zeros(len(votes), np.int64)
    codes, shares, usable = targets_from_votes(votes, no_emotion)
    split, split_name = assign_splits(where, "data=ferplus", options, entry.arrays["published"], images, codes, usable)
    form = f"{source.name} (FER+, folders, {labels})"
    dropped = tuple((str(reason), int(number)) for reason, number in entry.meta["dropped"])
    return face_data(
        images,
        codes,
        split,
        EMOTIONS,
        form,
        split_name,
        shares if labels == "ferplus_shares" else None,
        entry.digests["images"],
        parts=(Part("ferplus", form, len(images), dropped),),
    )


def _read(where: str, source: Path, channels: int, image_size: int) -> Entry:
    faults = Faults("row")
    with open_tree(where, source) as tree:
        lists = [name for name in tree.names if PurePosixPath(name).name.lower() == LIST]
        if len(lists) != 1:
            rule = f"it has {len(lists)} files {LIST}" if lists else f"it has no {LIST}"
            raise DataError(where, [f"{rule}; it must be beside {', '.join(FOLDERS)}"])
        with parsed(where, f"{lists[0]} cannot be unpacked", "download it again"), tree.open_file(lists[0]) as file:
            listed, votes = fer2013_csv.read_votes(where, file)
        if not any(listed):
            raise DataError(where, [f"{lists[0]} has no column {fer2013_csv.IMAGE_NAME}; download it again"])
        images = images_by_name(tree, Faults("file"))
        names: list[str] = []
        rows: list[int] = []
        published: list[int] = []
        for row, name in enumerate(listed):
            if not name:
                continue  # its authors left out images without a face
            found = images.get(name)
            split = None if found is None else FOLDERS.get(PurePosixPath(found).parent.name)
            if found is None or split is None:
                rule = f"which is in none of {', '.join(FOLDERS)}; unpack the images of FER+ there"
                faults.add("missing", f"row {row + 2} of {LIST} names {name[:40]}, {rule}", str(row + 2))
                continue
            names.append(found)
            rows.append(row)
            published.append(split)
        raise_faults(where, faults)
        arrays: dict[str, NDArray[Any]] = {
            "images": decode_images(where, faults, tree, names, channels, image_size),
            "votes": votes[rows],
            "published": np.array(published, np.uint8),
        }
    without = len(listed) - len(names)
    return Entry(arrays, {"dropped": [("rows without an image", without)] if without else []})
