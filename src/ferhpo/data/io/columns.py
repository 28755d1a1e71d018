"""What the columns of a table mean, found by what is in them: images, labels, the split, and groups of images.

Note: labels that are emotions in any spelling get FER2013's names and order: label 3 is happy in every data set.
"""

import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferhpo.data.io.class_folders import MAX_CLASSES, SPLIT_FOLDERS
from ferhpo.data.io.faults import Faults, one_of
from ferhpo.data.io.fer2013_csv import USAGES
from ferhpo.data.io.files import is_image
from ferhpo.data.io.table import Table
from ferhpo.data.labels.emotions import emotion_of
from ferhpo.keys import closest

_SAMPLE = 50  # rows in which files are searched
_SEARCHED_COLUMNS, _SEARCHED_FOLDERS = 20, 100
_SUFFIXES = ("", ".jpg", ".png", ".jpeg")
_SPLITS = {**SPLIT_FOLDERS, "dev": SPLIT_FOLDERS["val"], **{name.lower(): code for name, code in USAGES.items()}}
_LABEL_NAMES = ("label", "labels", "emotion", "expression", "class", "class_name", "target", "category")
_GROUP_NAMES = ("group", "subject", "subject_id", "person", "person_id", "participant", "identity", "actor", "film")


@dataclass(frozen=True)
class Columns:
    """The name of each column; None if there is none."""

    image: str
    label: str
    split: str | None
    group: str | None


@dataclass(frozen=True)
class Location:
    """Where the file of a value is: <folder>/<value><suffix>."""

    folder: Path
    suffix: str = ""

    def file(self, value: str) -> Path:
        return self.folder / (value.replace("\\", "/") + self.suffix)


def find_columns(table: Table, given: dict[str, str | None], root: Path, faults: Faults) -> Columns | None:
    """Return the columns of a table; None if faults were added.

    given: the settings by what they name (image, label, split, group): a name, "" for none, or None to find it
    root: the folder that the names of files start from
    """
    for what, name in given.items():
        names = table.names if what == "image" else tuple(table.columns)
        if name and name not in names:
            like = closest(name, names)
            remedy = f"did you mean {like}?" if like else f"there are: {_shown(names)}"
            kind = "" if what == "image" else " of texts or numbers"
            faults.add(what, f"data.{what}_column is {name}, which is not a column{kind}; {remedy}")
    if faults:
        return None
    image = given["image"] or _image(table, root, faults)
    taken = {image, *(name for name in given.values() if name)}
    free = [name for name in table.columns if name not in taken]
    split, group = given["split"], given["group"]
    if split is None:
        split = next((name for name in free if _are_splits(table.columns[name])), None)
    if group is None:
        group = next((name for name in free if name.strip().lower() in _GROUP_NAMES), None)
    free = [name for name in free if name not in (split, group)]
    label = given["label"] or _label(table, free, faults)
    return None if faults or not image or not label else Columns(image, label, split or None, group or None)


def split_of(value: Any) -> int | None:
    """Return the split that a value names, or None."""
    return _SPLITS.get(str(value).strip().lower())


def locate(values: Sequence[Any], root: Path, folders: Sequence[Path] | None = None) -> Location | None:
    """Return where the files are that most values name, or None if no value names a file.

    They are below `root`, or else below one of its `folders`, and may have a suffix that the values do not have.
    """
    texts = _sample(values)
    here = Location(root)
    if _num_files(here, texts):
        return here
    below = folders_below(root) if folders is None else folders
    places = [Location(folder, suffix) for suffix in _SUFFIXES for folder in (root, *below)]
    counts = [_num_files(place, texts) for place in places]
    return places[counts.index(max(counts))] if max(counts) else None


def folders_below(root: Path) -> list[Path]:
    """Return the first folders in a folder, by name."""
    with os.scandir(root) as entries:
        names = (entry.name for entry in entries if entry.is_dir())
        return [root / name for name in heapq.nsmallest(_SEARCHED_FOLDERS, names)]


def _sample(values: Sequence[Any]) -> list[str]:
    return [value for value in values[:: max(1, len(values) // _SAMPLE)] if isinstance(value, str)][:_SAMPLE]


def _num_files(place: Location, texts: Sequence[str]) -> int:
    return sum(is_file(place.file(text)) for text in texts)


def is_file(path: Path) -> bool:
    """Return whether there is such a file; False for a text that cannot be the name of one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _image(table: Table, root: Path, faults: Faults) -> str | None:
    if len(table.image_columns) == 1:
        return table.image_columns[0]
    if {"emotion", "pixels"} <= {name.lower() for name in table.columns}:
        faults.add("image", "it has pixels in the form of FER2013; use data=fer2013")
        return None
    found = list(table.image_columns)
    if not found:
        named = [name for name, values in table.columns.items() if _are_file_names(values)]
        # Names from the root are looked for in all columns, in other folders only in as many as a table of images has.
        samples = {name: texts for name in named or table.columns if (texts := _sample(table.columns[name]))}
        at_root = [name for name, texts in samples.items() if _num_files(Location(root), texts)]
        candidates, folders = (at_root or [*samples][:_SEARCHED_COLUMNS]), folders_below(root)
        places = {name: place for name in candidates if (place := locate(table.columns[name], root, folders))}
        # A number can be the name of a file without its suffix: whole names count more, and so do names from the root.
        ranks = {name: (place.suffix == "", place.folder == root) for name, place in places.items()}
        found = [name for name in places if ranks[name] == max(ranks.values())] or (named if len(named) == 1 else [])
    if len(found) == 1:
        return found[0]
    if found:
        faults.add("image", f"the columns {' and '.join(found)} have images; set data.image_column to one of them")
    else:
        rule = f"no column names files below {root} (it has: {_shown(table.names)})"
        faults.add("image", f"{rule}; set data.root to the folder of the images, or data.image_column")
    return None


def _label(table: Table, free: list[str], faults: Faults) -> str | None:
    """Return the column of labels: named classes first, then emotions, then a usual name, then few different values."""
    few = {name: values for name in free if 1 < len(values := {*table.columns[name]} - {None}) <= MAX_CLASSES}
    rows = len(table.columns[free[0]]) if free else 0
    tests: list[Callable[[str], bool]] = [
        lambda name: name in table.class_names,
        lambda name: all(emotion_of(str(value)) for value in few[name]),
        lambda name: name.strip().lower() in _LABEL_NAMES,
        lambda name: len(few[name]) <= rows / 2,
    ]
    for test in tests:
        found = [name for name in few if test(name)]
        if len(found) == 1:
            return found[0]
        if found:
            rule = f"the columns {' and '.join(found)} can be the labels"
            faults.add("label", f"{rule}; set data.label_column to one of them")
            return None
    rule = f"no column has labels (it has: {_shown(table.names)})"
    faults.add("label", f"{rule}; set data.label_column to a column of 2 to {MAX_CLASSES:,} classes")
    return None


def _are_file_names(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str) and is_image(value) for value in values[:_SAMPLE])


def _are_splits(values: Sequence[Any]) -> bool:
    found = {value for value in values if value is not None}
    return bool(found) and len(found) <= 10 and all(split_of(value) is not None for value in found)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:20] for name in names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"


def unknown_split(value: Any) -> str:
    """Return why a value is not a split."""
    return f"the split {str(value)[:20]!r}; it must be {one_of(('train', 'val', 'test'))}"
