"""FER2013 in each form that people hold it in: the competition's CSV, folders of JPEGs, or a zip of either.

The JPEGs are lossy copies: folders give slightly other pixels than the CSV, hence another digest and other scores.
"""

import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData, face_data
from ferhpo.data.io import fer2013_csv
from ferhpo.data.io.cache import Entry, read_cached
from ferhpo.data.io.class_folders import find_class_folders
from ferhpo.data.io.faults import Faults, existing_path, is_whole, nearest, one_of
from ferhpo.data.io.files import MAX_SIDE, UNPACKING_ERRORS, Tree, decode_images, open_tree, resize_images
from ferhpo.data.labels.emotions import CLASS_NAMES, emotion_of
from ferhpo.data.labels.ferplus import CLASS_NAMES as FERPLUS_CLASS_NAMES
from ferhpo.data.labels.ferplus import targets_from_votes
from ferhpo.data.splits import SplitOptions, assign_splits
from ferhpo.errors import ConfigError, DataError

LABELS = ("fer", "ferplus_majority", "ferplus_shares")
SPLITS = ("published", "folder", "random")

_PUBLISHED_BY_PREFIX = {"Training": TRAIN, "PublicTest": VAL, "PrivateTest": TEST}
_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
_FERPLUS_NAMES = ("ferplus.csv", "fer2013new.csv")


def load(
    path: str | Path,
    labels: str = "fer",
    ferplus_path: str | Path | None = None,
    label_offset: int = 0,
    split: str = "published",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
    train_subset: int | None = None,
    image_size: int | None = None,
    cache_dir: str | Path | None = None,
) -> FaceData:
    """Read FER2013: images uint8 [N, 48, 48], or [N, S, S] with image_size.

    path: a CSV, a folder that holds one or holds train/ and test/, or a zip of either
    labels: "fer", or with FER+ votes "ferplus_majority" or "ferplus_shares" (which also fills `targets`)
    ferplus_path: the votes; by default ferplus.csv or fer2013new.csv beside the CSV
    label_offset: the code that the CSV writes for angry, 0 or 1
    Keys of the split: see splits.SplitOptions. "published": Training, PublicTest and PrivateTest train, validate and
    test. "folder": PublicTest and PrivateTest validate together, and nothing tests.
    Raises ConfigError for keys that cannot be, DataError with every fault of the data.
    """
    options = SplitOptions(split, val_fraction, test_fraction, folds, fold, split_seed, train_subset)
    _check_keys(options, labels, label_offset, image_size)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    csv_inside = _find_csv(source) if source.is_dir() else None
    needs_usage = None if split == "random" else f"data.split={split}"

    def read() -> Entry:
        return _read(where, csv_inside or source, label_offset, needs_usage, image_size)

    recipe = {"reader": "fer2013", "label_offset": label_offset, "image_size": image_size}
    entry = read_cached(where, csv_inside or source, recipe, cache_dir, read)
    images, fer_labels = entry.arrays["images"], entry.arrays["labels"]
    published = entry.arrays.get("published")
    if needs_usage and published is None:
        raise DataError(where, [f"it has no column Usage, and {needs_usage} needs it; data.split=random works without"])
    if split == "published" and published is not None and (published == UNUSED).any():
        rule = "of test/ begin neither with PublicTest_ nor with PrivateTest_"
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
    words = entry.meta["form"] if labels == "fer" else f"{entry.meta['form']}, {labels}"
    return face_data(
        images,
        fer_labels,
        split_codes,
        class_names,
        f"{source.name} ({words})",
        split_name,
        targets,
        entry.digests["images"],
    )


def _check_keys(options: SplitOptions, labels: str, label_offset: int, image_size: int | None) -> None:
    faults = options.faults(SPLITS)
    if labels not in LABELS:
        like = nearest(str(labels), LABELS)
        faults.append(f"data.labels is {labels}, and it is {one_of(LABELS)}" + (f"; did you mean {like}?" * bool(like)))
    if label_offset not in (0, 1) or not is_whole(label_offset):
        faults.append(f"data.label_offset is {label_offset}, and labels begin at 0 or 1")
    if image_size is not None and not is_whole(image_size, 1):
        faults.append(f"data.image_size is {image_size}, and it is 1 or more; set null to leave 48")
    elif image_size is not None and image_size > MAX_SIDE:
        faults.append(f"data.image_size is {image_size}, and no face needs more than {MAX_SIDE:,} pixels a side")
    if faults:
        raise ConfigError("data=fer2013", faults)


def _find_csv(folder: Path) -> Path | None:
    return next((folder / name for name in _CSV_NAMES if (folder / name).is_file()), None)


def _read(where: str, source: Path, label_offset: int, needs_usage: str | None, image_size: int | None) -> Entry:
    if source.is_dir() or source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        with open_tree(where, source) as tree:
            if csv_name := _csv_in(tree):
                try:
                    with tree.open_file(csv_name) as file:
                        return _read_csv(where, file, "zip of a CSV", label_offset, needs_usage, image_size)
                except UNPACKING_ERRORS as error:
                    raise DataError(where, [f"{csv_name} cannot be unpacked ({error}); get the zip again"]) from error
            form = "folders" if source.is_dir() else "zip of folders"
            return _read_folders(where, tree, form, image_size)
    with source.open("rb") as file:
        return _read_csv(where, file, "competition CSV", label_offset, needs_usage, image_size)


def _csv_in(tree: Tree) -> str | None:
    """The CSV to read in a zip: one of the known names, or else the only one there is."""
    csvs = [name for name in tree.names if name.lower().endswith(".csv")]
    known = [name for wanted in _CSV_NAMES for name in csvs if PurePosixPath(name).name == wanted]
    return known[0] if known else csvs[0] if len(csvs) == 1 else None


def _read_csv(
    where: str, file: IO[bytes], form: str, label_offset: int, needs_usage: str | None, image_size: int | None
) -> Entry:
    images, labels, published = fer2013_csv.read_rows(where, file, label_offset, needs_usage)
    arrays: dict[str, NDArray[Any]] = {"images": images, "labels": labels}
    if image_size is not None and image_size != fer2013_csv.SIDE:
        arrays["images"] = resize_images(images, image_size)
    if published is not None:
        arrays["published"] = published
    return Entry(arrays, {"form": form})


def _read_folders(where: str, tree: Tree, form: str, image_size: int | None) -> Entry:
    found = find_class_folders(where, tree)
    faults = Faults("folder")
    splits = found.split_folders
    if TRAIN not in splits or len(splits) < 2:
        rule = "FER2013 in folders has train/<emotion> and test/<emotion>; data=image_folder reads other forms"
        raise DataError(where, [f"it holds neither {one_of(_CSV_NAMES)} nor folders of the known form; {rule}"])
    emotions = {name: emotion_of(name) for _, name in found.classes}
    for name, emotion in emotions.items():
        if emotion not in CLASS_NAMES:
            rule = f"FER2013 has {', '.join(CLASS_NAMES)}; data=image_folder reads other classes"
            faults.add("class", f"{name} is no emotion of FER2013; {rule}", name)
    for split, split_folder in splits.items():
        present = {emotions[name] for code, name in found.classes if code == split}
        for missing in (name for name in CLASS_NAMES if name not in present):
            folder = f"{split_folder}/{missing}"
            faults.add("missing", f"there is no folder {folder}; get the data again", folder)
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
    """TRAIN, VAL or TEST; UNUSED where a file outside train/ does not say in its name which test it belongs to."""
    if split == TRAIN:
        return TRAIN
    return _PUBLISHED_BY_PREFIX.get(PurePosixPath(name).name.partition("_")[0], UNUSED)


def _read_votes(
    where: str, source: Path, form: str, labels: str, ferplus_path: str | Path | None, num_rows: int
) -> NDArray[np.int64]:
    if "CSV" not in form:
        rule = f"data.labels={labels} needs the rows of the CSV, because FER+ votes come one row a row"
        raise DataError(where, [f"{rule}; set data.path to fer2013.csv, or data.labels=fer"])
    if ferplus_path is None:
        beside = [source.parent / name for name in _FERPLUS_NAMES]
        found = next((file for file in beside if file.is_file()), None)
        if found is None:
            rule = f"data.labels={labels} needs {one_of(_FERPLUS_NAMES)} beside it"
            raise DataError(where, [f"{rule}, and neither is in {source.absolute().parent}; set data.ferplus_path"])
    else:
        found = existing_path("data.ferplus_path", ferplus_path)
    votes_where = f"data.ferplus_path is {found}"
    with found.open("rb") as file:
        votes = fer2013_csv.read_votes(votes_where, file)
    if len(votes) != num_rows:
        rule = f"it has {len(votes):,} rows, and {source.name} has {num_rows:,}; they must be rows of the same images"
        raise DataError(votes_where, [rule])
    return votes
