"""The reader of FER2013 in every form it is distributed in: the competition's CSV, folders of JPEGs, a zip of either.

Note: JPEG is lossy. The folders have slightly different pixels than the CSV, hence another digest and other scores.
"""

import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData, face_data
from ferhpo.data.io import fer2013_csv
from ferhpo.data.io.cache import Entry, read_cached, readable
from ferhpo.data.io.class_folders import find_class_folders
from ferhpo.data.io.faults import Faults, existing_path, is_whole, one_of, parsed
from ferhpo.data.io.files import MAX_SIDE, decode_images, resize_images
from ferhpo.data.io.tree import Tree, open_regular, open_tree, own_folders, refuse_outside
from ferhpo.data.labels.emotions import CLASS_NAMES, emotion_of
from ferhpo.data.labels.ferplus import CLASS_NAMES as FERPLUS_CLASS_NAMES
from ferhpo.data.labels.ferplus import targets_from_votes
from ferhpo.data.splits import SplitKeys, SplitOptions, assign_splits, lists_split_keys
from ferhpo.errors import ConfigError, DataError
from ferhpo.keys import closest

LABELS = ("fer", "ferplus_majority", "ferplus_shares")
SPLITS = ("published", "folder", "random")  # the first is the default

_PUBLISHED_BY_PREFIX = {"Training": TRAIN, "PublicTest": VAL, "PrivateTest": TEST}
_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
_FERPLUS_NAMES = ("ferplus.csv", "fer2013new.csv")


@lists_split_keys(SPLITS[0])
def load(
    path: str | Path,
    labels: str = "fer",
    ferplus_path: str | Path | None = None,
    label_offset: int | None = None,
    image_size: int | None = None,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read FER2013: images uint8 [N, 48, 48], or [N, S, S] with image_size.

    path: a CSV, a folder with such a CSV or with train/ and test/, or a zip of either
    labels: "fer", or from the FER+ votes "ferplus_majority" or "ferplus_shares" (which also fills `targets`)
    ferplus_path: the CSV of the votes; by default ferplus.csv or fer2013new.csv beside the CSV
    label_offset: the label of angry in the CSV, 0 or 1; None for 0, but a CSV without the label 0 that has the label 1
        is refused, because its labels may start at 1
    split_keys: see splits.SplitOptions. "published" (the default): Training is train, PublicTest is val and PrivateTest
        is test. "folder": PublicTest and PrivateTest together are val, and test is empty
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    options = SplitOptions.of(split_keys, SPLITS[0])
    _check_keys(options, labels, label_offset, image_size)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    csv_inside = _find_csv(where, source) if source.is_dir() else None
    needs_usage = None if options.split == "random" else f"data.split={options.split}"
    if not (csv_inside or source).is_dir() and not zipfile.is_zipfile(csv_inside or source):
        with readable(where), open_regular(csv_inside or source) as file:
            fer2013_csv.check_start(where, file)

    def read() -> Entry:
        return _read(where, csv_inside or source, label_offset or 0, needs_usage, image_size)

    recipe = {"reader": "fer2013", "label_offset": label_offset or 0, "image_size": image_size}
    entry = read_cached(where, csv_inside or source, recipe, cache_dir, read)
    images, fer_labels = entry.arrays["images"], entry.arrays["labels"]
    published = entry.arrays.get("published")
    if label_offset is None and entry.meta.get("numbered") and fer_labels.min() == 1:
        rule = "no row has the emotion 0 (angry), so the labels may start at 1"
        remedy = "set data.label_offset=1 if 1 means angry, or data.label_offset=0 if 1 means disgust"
        raise DataError(where, [f"{rule}; {remedy}"])
    if needs_usage and published is None:
        raise DataError(where, [f"{needs_usage} needs a column Usage, which it does not have; set data.split=random"])
    if options.split == "published" and published is not None and (published == UNUSED).any():
        rule = "under test/ start with neither PublicTest_ nor PrivateTest_"
        count = int((published == UNUSED).sum())
        raise DataError(where, [f"{count:,} file names {rule}; set data.split=folder or random"])

    class_names: tuple[str, ...] = CLASS_NAMES
    targets, usable = None, None
    if labels != "fer":
        class_names = FERPLUS_CLASS_NAMES
        votes = _read_votes(where, csv_inside or source, entry.meta["form"], labels, ferplus_path, len(fer_labels))
        fer_labels, shares, usable = targets_from_votes(votes, fer_labels)
        targets = shares if labels == "ferplus_shares" else None
    split_codes, split_name = assign_splits(where, "data=fer2013", options, published, images, fer_labels, usable)
    form = entry.meta["form"] if labels == "fer" else f"{entry.meta['form']}, {labels}"
    return face_data(
        images,
        fer_labels,
        split_codes,
        class_names,
        f"{source.name} ({form})",
        split_name,
        targets,
        entry.digests["images"],
    )


def _check_keys(options: SplitOptions, labels: str, label_offset: int | None, image_size: int | None) -> None:
    faults = options.faults(SPLITS)
    if labels not in LABELS:
        like = closest(str(labels), LABELS)
        hint = f"; did you mean {like}?" if like else ""
        faults.append(f"data.labels is {labels}; it must be {one_of(LABELS)}{hint}")
    if label_offset is not None and (label_offset not in (0, 1) or not is_whole(label_offset)):
        rule = "it must be 0 or 1, the label of angry in the CSV, or null"
        faults.append(f"data.label_offset is {label_offset}; {rule}")
    if image_size is not None and not is_whole(image_size, 1):
        faults.append(f"data.image_size is {image_size}; it must be at least 1, or null for 48")
    elif image_size is not None and image_size > MAX_SIDE:
        faults.append(f"data.image_size is {image_size}; it must be at most {MAX_SIDE:,} pixels")
    if faults:
        raise ConfigError("data=fer2013", faults)


def _find_csv(where: str, folder: Path) -> Path | None:
    found = next((folder / name for name in _CSV_NAMES if (folder / name).is_file()), None)
    if found is not None:
        refuse_outside(where, found, own_folders(folder))
    return found


def _read(where: str, source: Path, label_offset: int, needs_usage: str | None, image_size: int | None) -> Entry:
    if source.is_dir() or source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        with open_tree(where, source) as tree:
            if csv_name := _csv_in(tree):
                unpacking = parsed(where, f"{csv_name} cannot be unpacked", "download the zip again")
                with unpacking, tree.open_file(csv_name) as file:
                    return _read_csv(where, file, "zip of a CSV", label_offset, needs_usage, image_size)
            form = "folders" if source.is_dir() else "zip of folders"
            return _read_folders(where, tree, form, image_size)
    with open_regular(source) as file:
        return _read_csv(where, file, "competition CSV", label_offset, needs_usage, image_size)


def _csv_in(tree: Tree) -> str | None:
    """Return the name of the CSV to read in a zip: a known name, or else the only CSV."""
    csvs = [name for name in tree.names if name.lower().endswith(".csv")]
    known = [name for wanted in _CSV_NAMES for name in csvs if PurePosixPath(name).name == wanted]
    return known[0] if known else csvs[0] if len(csvs) == 1 else None


def _read_csv(
    where: str, file: IO[bytes], form: str, label_offset: int, needs_usage: str | None, image_size: int | None
) -> Entry:
    rows = fer2013_csv.read_rows(where, file, label_offset, needs_usage)
    arrays: dict[str, NDArray[Any]] = {"images": rows.images, "labels": rows.labels}
    if image_size is not None and image_size != fer2013_csv.SIDE:
        arrays["images"] = resize_images(where, rows.images, image_size)
    if rows.published is not None:
        arrays["published"] = rows.published
    return Entry(arrays, {"form": form, "numbered": rows.numbered})


def _read_folders(where: str, tree: Tree, form: str, image_size: int | None) -> Entry:
    found = find_class_folders(where, tree)
    faults = Faults("folder")
    splits = found.split_folders
    if TRAIN not in splits or len(splits) < 2:
        rule = f"it has neither {one_of(_CSV_NAMES)} nor folders train/<emotion> and test/<emotion>"
        raise DataError(where, [f"{rule}; use data=image_folder for other layouts"])
    emotions = {name: emotion_of(name) for _, name in found.classes}
    for name, emotion in emotions.items():
        if emotion not in CLASS_NAMES:
            rule = f"the folder {name} is not an emotion of FER2013 ({', '.join(CLASS_NAMES)})"
            faults.add("class", f"{rule}; use data=image_folder for other classes", name)
    for split, split_folder in splits.items():
        present = {emotions[name] for code, name in found.classes if code == split}
        for missing in (name for name in CLASS_NAMES if name not in present):
            folder = f"{split_folder}/{missing}"
            faults.add("missing", f"the folder {folder} is missing; download the data again", folder)
    found.add_empty(faults)
    images = decode_images(where, faults, tree, found.names, 1, image_size, only_size=fer2013_csv.SIDE)
    labels = [CLASS_NAMES.index(emotions[name] or "") for name in found.class_of]
    published = [_published(split, name) for split, name in zip(found.split_of, found.names, strict=True)]
    arrays: dict[str, NDArray[Any]] = {
        "images": images,
        "labels": np.array(labels, np.int64),
        "published": np.array(published, np.uint8),
    }
    return Entry(arrays, {"form": form})


def _published(split: int | None, name: str) -> int:
    """Return TRAIN, VAL or TEST, or UNUSED for a file outside train/ whose name does not tell which test it is in."""
    if split == TRAIN:
        return TRAIN
    return _PUBLISHED_BY_PREFIX.get(PurePosixPath(name).name.partition("_")[0], UNUSED)


def _read_votes(
    where: str, source: Path, form: str, labels: str, ferplus_path: str | Path | None, num_rows: int
) -> NDArray[np.int64]:
    if "CSV" not in form:
        rule = f"data.labels={labels} needs the CSV, since row i of the FER+ votes belongs to row i of the CSV"
        raise DataError(where, [f"{rule}; set data.path to fer2013.csv, or data.labels=fer"])
    if ferplus_path is None:
        beside = [source.parent / name for name in _FERPLUS_NAMES]
        found = next((file for file in beside if file.is_file()), None)
        if found is None:
            rule = f"data.labels={labels} needs {one_of(_FERPLUS_NAMES)}"
            raise DataError(where, [f"{rule}, not found in {source.absolute().parent}; set data.ferplus_path"])
        refuse_outside(where, found, own_folders(found.parent))
    else:
        found = existing_path("data.ferplus_path", ferplus_path)
    votes_where = f"data.ferplus_path is {found}"
    with parsed(votes_where, "it cannot be read", "download it again"), open_regular(found) as file:
        _, votes = fer2013_csv.read_votes(votes_where, file)
    if len(votes) != num_rows:
        rule = f"it has {len(votes):,} rows; it must have the {num_rows:,} rows of {source.name}, in the same order"
        raise DataError(votes_where, [rule])
    return votes
