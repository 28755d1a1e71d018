"""The reader of a table of images: a CSV or Parquet file with the names of files or the bytes of images, and labels.

A table may have a split and groups of images (e.g. subjects) too. Columns that are not set are found by their content.

Note: images are resized to squares and their proportions are not kept; crop the faces first if that matters.
"""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import FaceData
from ferhpo.data.io.cache import Entry, read_cached, readable
from ferhpo.data.io.class_folders import MAX_CLASSES
from ferhpo.data.io.columns import (
    Columns,
    Location,
    find_columns,
    is_file,
    locate,
    split_of,
    unknown_split,
)
from ferhpo.data.io.faults import Faults, existing_path, raise_faults
from ferhpo.data.io.files import decode_images
from ferhpo.data.io.parquet import image_bytes
from ferhpo.data.io.table import Table, read_table
from ferhpo.data.io.tree import Tree, open_regular, outside, own_folders
from ferhpo.data.labels.class_names import name_fault, normal
from ferhpo.data.labels.emotions import EMOTIONS, emotion_of
from ferhpo.data.labels.label_map import LabelMap
from ferhpo.data.labels.selection import key_faults, select
from ferhpo.data.splits import SplitKeys, SplitOptions, lists_split_keys
from ferhpo.errors import ConfigError, DataError

SPLITS = ("published", "folder", "random")  # the first is the default if the table has a split

_BLANK = b"P5 1 1 255 0"  # a black image, in place of one that is a fault already

log = logging.getLogger(__name__)


@lists_split_keys(None)
def load(
    path: str | Path,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    root: str | Path | None = None,
    labels: LabelMap | None = None,
    image_size: int | None = 48,
    channels: int = 1,
    cache_dir: str | Path | None = None,
    **split_keys: Unpack[SplitKeys],
) -> FaceData:
    """Read images uint8 [N, S, S] (channels=1) or [N, S, S, 3]; classes are sorted, or emotions in FER2013's order.

    path: a CSV, a Parquet file, or a folder of Parquet files whose names may start with their split
    image_column: the names of the files, the bytes of the images, or bytes and path as Hugging Face writes them
    label_column: names of classes or integers; integers get the names that Hugging Face stores in a Parquet file
    split_column: train, val or test, in usual spellings; "" for none
    group_column: what no split may divide, e.g. the subject; found by its name (group, subject, ...); "" for none
    root: the folder that the names of files start from, and that has all of them; None for the folder of the table
    labels: a new name or "drop" for each class to change, e.g. {bored: drop, glad: happy}
    image_size: the side S in pixels that images are resized to; None keeps them, and all must be squares of one size
    split_keys: see splits.SplitOptions. The default is "published", the split of the table, or "random" without one
    Raises ConfigError with every invalid key, DataError with every fault of the data.
    """
    given = {"image": image_column, "label": label_column, "split": split_column, "group": group_column}
    options = SplitOptions.of(split_keys, SPLITS[0])
    faults = key_faults(options, SPLITS, image_size, channels, labels, None)
    for what, name in given.items():
        if name is not None and not isinstance(name, str):
            faults.append(f"data.{what}_column is {name}; it must be the name of a column, or null to find it")
    if faults:
        raise ConfigError("data=image_table", faults)
    where = f"data.path is {path}"
    source = existing_path("data.path", path)
    folder = (
        (source if source.is_dir() else source.absolute().parent) if root is None else existing_path("data.root", root)
    )
    if not folder.is_dir():
        raise DataError(f"data.root is {root}", ["it must be the folder that the names of files start from"])
    with readable(where):
        table = read_table(where, source)
        found = Faults("column")
        columns = find_columns(table, given, folder, found)
        raise_faults(where, found)
    assert columns is not None
    rows = _Rows(where, table, columns, folder)
    recipe = {"reader": "image_table", "image_size": image_size, "channels": channels, "columns": vars(columns)}
    entry = read_cached(where, source, recipe, cache_dir, lambda: rows.decode(channels, image_size), rows.files)
    if "published" not in entry.arrays:
        if split_keys.get("split") in ("published", "folder"):
            rule = f"data.split={options.split} needs a column of splits, which it does not have"
            raise DataError(where, [f"{rule}; set data.split_column, or data.split=random"])
        options = SplitOptions.of({**split_keys, "split": "random"}, "random")
    return select("image_table", where, source, entry, options, labels, None)


class _Rows:
    """The rows of a table: what they name and mean. `files` is everything that is read."""

    def __init__(self, where: str, table: Table, columns: Columns, root: Path) -> None:
        self.where, self.table, self.columns, self.root = where, table, columns, root
        self.faults = Faults("row")
        self.has_bytes = columns.image in table.image_columns
        self.row_names = [f"row {number}" for number in table.row_numbers]
        self.paths: list[Path] = [] if self.has_bytes else self._paths()
        self.files = [*table.files, *dict.fromkeys(self.paths)]

    def _labels(self) -> list[Any]:
        return self.table.columns[self.columns.label]

    def _paths(self) -> list[Path]:
        values = self.table.columns[self.columns.image]
        place = locate(values, self.root) or Location(self.root)
        allowed, paths = own_folders(self.root), list[Path]()
        for row, value in zip(self.row_names, values, strict=True):
            path = place.file(str(value or ""))
            if not isinstance(value, str):
                self.faults.add("no file", f"{row} names no file; remove the row", row)
            elif not is_file(path):
                rule = "which is missing; set data.root to the folder that the names start from, or remove the row"
                self.faults.add("missing", f"{row} names {value[:80]!r}, {rule}", row)
            elif target := outside(path, allowed):
                rule = f"outside {self.root}; if you trust the table, set data.root to the folder of its images"
                self.faults.add("outside", f"{row} names {target}, {rule}", row)
            paths.append(path)
        raise_faults(self.where, self.faults)
        return paths

    def decode(self, channels: int, image_size: int | None) -> Entry:
        """Return the entry that `selection.select` takes. Raises DataError with every fault of the table."""
        classes, codes = self._classes()
        arrays: dict[str, NDArray[Any]] = {"labels": np.array(codes, np.int64)}
        splits = self.table.columns[self.columns.split] if self.columns.split else self.table.file_splits
        if splits is not None:
            arrays["published"] = np.array(self._splits(splits), np.uint8)
        if self.columns.group:
            arrays["subjects"] = self._groups(self.table.columns[self.columns.group])
        names = [f"{row} ({path.name})" for row, path in zip(self.row_names, self.paths, strict=False)]
        names = names or self.row_names
        images, paths = self._bytes(), iter(self.paths)

        def open_next(_: str) -> IO[bytes]:  # decode_images opens each image once, in their order
            found = next(images, None) if self.has_bytes else open_regular(next(paths))
            if found is None:
                raise OSError("the column ends before its last row")
            return found

        tree = Tree(tuple(names), (), open_next)
        arrays["images"] = decode_images(self.where, self.faults, tree, names, channels, image_size)
        self._warn_of_divided_groups(arrays)
        form = ", ".join(f"{what}={name}" for what, name in vars(self.columns).items() if name)
        return Entry(arrays, {"form": f"table, {form}", "names": names, "classes": classes})

    def _bytes(self) -> Iterator[IO[bytes]]:
        contents = image_bytes(self.where, self.table.files, self.columns.image)
        for row, value in zip(self.row_names, contents, strict=True):
            if not value:
                self.faults.add(
                    "none", f"{row} has no bytes of an image; remove the row, or store the image in it", row
                )
            yield io.BytesIO(value or _BLANK)

    def _classes(self) -> tuple[tuple[str, ...], list[int]]:
        """Return the names of the classes, and the index of the class of each row."""
        given = self.table.class_names.get(self.columns.label)
        name_of: dict[Any, str] = {}
        for row, value in zip(self.row_names, self._labels(), strict=True):
            if value is None:
                self.faults.add("label", f"{row} has no label; remove the row, or give it one", row)
            elif value not in name_of:
                name_of[value] = name = _class_name(value, given)
                if rule := name_fault(name) or ("is not a class of the table" if not name else None):
                    self.faults.add("class", f"{row} has the label {str(value)[:40]!r}, which {rule}; correct it", row)
        names = set(name_of.values())
        if len(names) > MAX_CLASSES:
            rule = f"has {len(names):,} different values; it must have at most {MAX_CLASSES:,} classes"
            raise DataError(self.where, [f"the column {self.columns.label} {rule}; set data.label_column"])
        if names and all(emotion_of(name) for name in names):
            classes: tuple[str, ...] = EMOTIONS
            index = {name: EMOTIONS.index(str(emotion_of(name))) for name in names}
        else:
            classes = tuple(sorted(names))
            index = {name: place for place, name in enumerate(classes)}
        code_of = {value: index[name] for value, name in name_of.items()}
        return classes, [code_of.get(value, 0) for value in self._labels()]

    def _splits(self, values: list[Any]) -> list[int]:
        codes = []
        for row, value in zip(self.row_names, values, strict=True):
            code = split_of(value)
            if code is None:
                self.faults.add("split", f"{row} has {unknown_split(value)}", row)
            codes.append(code or 0)
        return codes

    def _groups(self, values: list[Any]) -> NDArray[np.int64]:
        numbers: dict[Any, int] = {}
        for row, value in zip(self.row_names, values, strict=True):
            if value is None:
                rule = 'give it one, or set data.group_column="" to split without groups'
                self.faults.add("group", f"{row} has no {self.columns.group}; {rule}", row)
            numbers.setdefault(value, len(numbers))
        return np.array([numbers[value] for value in values], np.int64)

    def _warn_of_divided_groups(self, arrays: dict[str, NDArray[Any]]) -> None:
        if "published" not in arrays or "subjects" not in arrays:
            return
        pairs = np.unique(np.stack([arrays["subjects"], arrays["published"]]), axis=1)
        if divided := int((np.bincount(pairs[0]) > 1).sum()):
            text = "%s: %d values of %s are in more than one split; data.split=random keeps each in one"
            log.warning(text, self.where, divided, self.columns.group)


def _class_name(value: Any, given: tuple[str, ...] | None) -> str:
    """Return the class that a label means; "" if it is not one of the given names."""
    text = normal(str(value).strip())
    try:
        number = float(text)
    except ValueError:
        return text
    if number.is_integer():  # 3, and 3.0 of a column that once had an empty field
        if given is not None:
            return normal(given[int(number)]) if 0 <= number < len(given) else ""
        return str(int(number))
    return text
