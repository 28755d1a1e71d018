"""Tables of images: a CSV, a Parquet file, or a folder of Parquet files such as train-00000-of-00001.parquet.

Note: texts and numbers are read as a whole, image bytes by parquet.image_bytes. Everything has a limit, because a small
file can describe a table that no memory holds.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo.data.io.class_folders import SPLIT_FOLDERS
from ferhpo.data.io.faults import Faults, check_room, raise_faults
from ferhpo.data.io.parquet import CELL_BYTES, MAX_COLUMNS, MAX_ROWS, read_parquet
from ferhpo.data.io.tree import open_regular, tree_names
from ferhpo.disk import fault_of_file
from ferhpo.errors import DataError

MAX_BYTES = 256 * 2**20  # of a CSV
MAX_ROW_CHARACTERS = 2**20
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """The columns of a table besides image bytes, in their order.

    files: the files of the table, in the order of the rows
    columns: texts and numbers by name; None where there is no value
    image_columns: the names of columns with image bytes
    class_names: the names of the integers in a column, if the table has them (ClassLabel of Hugging Face)
    row_numbers: the number of each row in messages: that of an editor for a CSV, counted from 1 for Parquet
    file_splits: the split in the name of each row's file; None if not every file has one
    """

    files: tuple[Path, ...]
    columns: dict[str, list[Any]]
    row_numbers: Sequence[int]
    image_columns: tuple[str, ...] = ()
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file_splits: list[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.columns, *self.image_columns)


def read_table(where: str, source: Path) -> Table:
    """Read a table without its image bytes. Raises DataError with every fault of the file."""
    if source.is_dir():
        files = [source / name for name in tree_names(source)[0] if name.endswith(".parquet")]
        if not files:
            rule = "the folder has no Parquet file; set data.path to a CSV or a Parquet file"
            raise DataError(where, [f"{rule}, or use data=image_folder for folders of classes"])
    else:
        files = [source]
    for file in files:
        if fault := fault_of_file(file):
            raise DataError(where, [f"{file.name} cannot be read: {fault}; remove it, or set another path"])
    with open_regular(files[0]) as opened:
        is_parquet = source.is_dir() or opened.read(4) == b"PAR1"
    return _read_parquet(where, tuple(files)) if is_parquet else _read_csv(where, source)


def _read_csv(where: str, source: Path) -> Table:
    with open_regular(source) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(where, [f"it is larger than {MAX_BYTES // 2**20} MB; it must be a table of the names of files"])
    if not data:
        raise DataError(where, ["the file is empty; download it again"])
    check_room(where, 6 * len(data), "split it")  # as text, and as lines of text
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    del data
    header = text[: MAX_ROW_CHARACTERS + 1].partition("\n")[0]
    if not header.strip():
        raise DataError(where, ["its first line is empty; it must have the names of the columns"])
    if not header.replace("\t", "").rstrip("\r").isprintable():
        raise DataError(where, ["it must be a CSV or a Parquet file; unpack or convert it"])
    separator = max(SEPARATORS, key=lambda mark: _num_fields(header, mark))
    faults = Faults("row")
    rows = _rows(where, text, separator)
    names = [name.strip() for name in next(rows)[1]]
    if len(names) > MAX_COLUMNS:
        rule = f"it has {len(names):,} columns; it must have at most {MAX_COLUMNS:,}"
        raise DataError(where, [f"{rule}; remove those that are not needed"])
    columns: list[list[Any]] = [[] for _ in names]
    numbers: list[int] = []
    for number, fields in rows:
        if not fields:
            continue  # an empty line
        if len(fields) != len(names):
            faults.add("fields", f"row {number} has {len(fields)} of {len(names)} columns", str(number))
            continue
        for values, value in zip(columns, fields, strict=True):
            values.append(value.strip() or None)
        numbers.append(number)
        if len(numbers) > MAX_ROWS:
            raise DataError(where, [f"it has more than {MAX_ROWS:,} rows; split it"])
        if len(numbers) % 10_000 == 0:
            check_room(where, CELL_BYTES * 10_000 * len(names), "split it, or remove columns")
    if (twice := next((name for name, count in Counter(names).items() if count > 1), None)) is not None:
        faults.add("twice", f"it has two columns {twice!r}; rename one")
    if not numbers and not faults:
        faults.add("none", "it has a header but no rows; download the file again")
    raise_faults(where, faults)
    return Table((source,), dict(zip(names, columns, strict=True)), numbers)


def _num_fields(header: str, separator: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=separator)))
    except csv.Error:  # a name that is longer than the limit of the csv module, as without the right separator
        return 0


def _rows(where: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of each row, and its fields.

    Raises DataError for what is not CSV, and for a row that no table has, e.g. one of quoted lines without an end.
    """
    length = 0

    def lines() -> Iterator[str]:
        nonlocal length
        for line in io.StringIO(text, newline=""):
            length += len(line)
            if length > MAX_ROW_CHARACTERS:
                rule = f"line {reader.line_num + 1} is in a row of more than {MAX_ROW_CHARACTERS:,} characters"
                raise DataError(where, [f"{rule}; download the file again"])
            yield line

    reader = csv.reader(lines(), delimiter=separator)
    try:
        for fields in reader:
            length = 0
            yield reader.line_num, fields
    except csv.Error as error:
        rule = f"line {max(reader.line_num, 1)} is not CSV ({error}); download the file again"
        raise DataError(where, [rule]) from error


def _read_parquet(where: str, files: tuple[Path, ...]) -> Table:
    content, num_rows = read_parquet(where, files)
    if not content.num_rows:
        raise DataError(where, ["it has no rows; download the file again"])
    first_words = [file.stem.split("-")[0] for file in files]
    splits = [word for word, rows in zip(first_words, num_rows, strict=True) for _ in range(rows)]
    has_splits = all(word.lower() in SPLIT_FOLDERS for word in first_words)
    numbers = range(1, content.num_rows + 1)
    shared = (content.columns, numbers, content.image_columns, content.class_names)
    return Table(files, *shared, splits if has_splits else None)
