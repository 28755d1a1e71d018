"""Tables of images: a CSV, a Parquet file, or a folder of Parquet files such as train-00000-of-00001.parquet.

Note: the columns of texts and numbers are read whole, those of image bytes in small batches. Everything has a limit,
because a small Parquet file can describe a table that no memory holds.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo.data.io.class_folders import SPLIT_FOLDERS
from ferhpo.data.io.faults import Faults, raise_faults
from ferhpo.errors import DataError

MAX_ROWS = 2_000_000
MAX_BYTES = 256 * 2**20  # of a CSV, and of one column of texts
MAX_CHUNK_BYTES = 4 * 2**30  # of the images in one row group of a Parquet file
SEPARATORS = (",", ";", "\t")
_BATCH_ROWS = 32


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
        files = sorted(file for file in source.rglob("*.parquet") if file.is_file())
        if not files:
            rule = "the folder has no Parquet file; set data.path to a CSV or a Parquet file"
            raise DataError(where, [f"{rule}, or use data=image_folder for folders of classes"])
        return _read_parquet(where, tuple(files))
    with source.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    return _read_parquet(where, (source,)) if is_parquet else _read_csv(where, source)


def image_bytes(where: str, table: Table, column: str) -> Iterator[bytes | None]:
    """Yield the bytes of the image in each row of a column, None if there are none.

    A value is bytes, or has the fields `bytes` and `path` as Hugging Face writes them.
    """
    parquet = _pyarrow(where)
    with _parquet_errors(where):
        for file in table.files:
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, columns=[column]):
                    for value in batch.column(0):
                        found = value.as_py()
                        found = found.get("bytes") if isinstance(found, dict) else found
                        yield found if isinstance(found, bytes) else None


def _read_csv(where: str, source: Path) -> Table:
    if source.stat().st_size > MAX_BYTES:
        raise DataError(where, [f"it is larger than {MAX_BYTES // 2**20} MB; it must be a table of the names of files"])
    data = source.read_bytes()
    if not data:
        raise DataError(where, ["the file is empty; download it again"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    header, _, _ = text.partition("\n")
    if not header.strip():
        raise DataError(where, ["its first line is empty; it must have the names of the columns"])
    if not header.replace("\t", "").rstrip("\r").isprintable():
        raise DataError(where, ["it must be a CSV or a Parquet file; unpack or convert it"])
    separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark))))
    faults = Faults("row")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = [name.strip() for name in next(reader)]
        columns: list[list[Any]] = [[] for _ in names]
        numbers: list[int] = []
        for fields in reader:
            row = str(reader.line_num)
            if not fields:
                continue  # an empty line
            if len(fields) != len(names):
                faults.add("fields", f"row {row} has {len(fields)} of {len(names)} columns", row)
                continue
            for values, value in zip(columns, fields, strict=True):
                values.append(value.strip() or None)
            numbers.append(reader.line_num)
            if len(columns[0]) > MAX_ROWS:
                raise DataError(where, [f"it has more than {MAX_ROWS:,} rows; split it"])
    except csv.Error as error:
        rule = f"line {reader.line_num} is not CSV ({error}); download the file again"
        raise DataError(where, [rule]) from error
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        faults.add("twice", f"it has two columns {twice!r}; rename one")
    if not columns[0] and not faults:
        faults.add("none", "it has a header but no rows; download the file again")
    raise_faults(where, faults)
    return Table((source,), dict(zip(names, columns, strict=True)), numbers)


def _read_parquet(where: str, files: tuple[Path, ...]) -> Table:
    parquet = _pyarrow(where)
    columns: dict[str, list[Any]] = {}
    image_columns: tuple[str, ...] = ()
    class_names: dict[str, tuple[str, ...]] = {}
    splits = [SPLIT_FOLDERS.get(file.stem.split("-")[0].lower()) for file in files]
    file_splits: list[str] = []
    rows = 0
    for place, file in enumerate(files):
        with _parquet_errors(where), parquet.ParquetFile(file) as opened:
            kinds = _kinds(opened.schema_arrow)
            images = tuple(name for name, kind in kinds.items() if kind == "image")
            texts = [name for name, kind in kinds.items() if kind == "text"]
            rows += opened.metadata.num_rows
            if rows > MAX_ROWS:
                raise DataError(where, [f"it has more than {MAX_ROWS:,} rows; split it"])
            _check_sizes(where, opened.metadata, images, texts)
            if place == 0:
                columns, image_columns = {name: [] for name in texts}, images
                class_names = _class_names(opened.schema_arrow.metadata)
            elif (list(columns), image_columns) != (texts, images):
                raise DataError(where, [f"{file.name} has other columns than {files[0].name}; set one of the files"])
            read = opened.read(columns=texts)
            for name in texts:
                columns[name] += [None if value != value else value for value in read.column(name).to_pylist()]  # NaN
            file_splits += [file.stem.split("-")[0]] * opened.metadata.num_rows
    if not rows:
        raise DataError(where, ["it has no rows; download the file again"])
    numbers = range(1, rows + 1)
    return Table(files, columns, numbers, image_columns, class_names, None if None in splits else file_splits)


def _pyarrow(where: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        rule = "a Parquet file needs the package pyarrow, which is not installed"
        raise DataError(where, [f"{rule}; run: pip install pyarrow, or convert the table to CSV"]) from None
    return parquet


@contextmanager
def _parquet_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (DataError, PermissionError):
        raise
    except MemoryError:
        raise DataError(where, ["it does not fit in memory; split it"]) from None
    except Exception as error:  # pyarrow raises its own classes, OSError and ValueError for a damaged file
        rule = f"it is not a readable Parquet file ({str(error).splitlines()[0][:200] if str(error) else error!r})"
        raise DataError(where, [f"{rule}; download it again"]) from error


def _kinds(schema: Any) -> dict[str, str]:
    """Return "image" for each column of bytes, "text" for each of texts or numbers; others are left out."""
    import pyarrow

    kinds = {}
    for column in schema:
        of = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        is_struct = pyarrow.types.is_struct(of) and of.get_field_index("bytes") >= 0
        if is_struct or pyarrow.types.is_binary(of) or pyarrow.types.is_large_binary(of):
            kinds[column.name] = "image"
        elif any(
            test(of)
            for test in (
                *(pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_integer),
                *(pyarrow.types.is_floating, pyarrow.types.is_boolean),
            )
        ):
            kinds[column.name] = "text"
    return kinds


def _check_sizes(where: str, metadata: Any, images: tuple[str, ...], texts: list[str]) -> None:
    """Raise DataError if a column would not fit in memory once it is unpacked."""
    totals: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for place in range(row_group.num_columns):
            chunk = row_group.column(place)
            name = chunk.path_in_schema.split(".")[0]
            totals[name] = totals.get(name, 0) + chunk.total_uncompressed_size
            if name in images and chunk.total_uncompressed_size > MAX_CHUNK_BYTES:
                rule = f"{name} has more than {MAX_CHUNK_BYTES // 2**30} GB in one row group"
                raise DataError(where, [f"{rule}; write the file with smaller row groups"])
    for name in texts:
        if totals.get(name, 0) > MAX_BYTES:
            raise DataError(where, [f"the column {name} has more than {MAX_BYTES // 2**20} MB; split the file"])


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each ClassLabel in the metadata that Hugging Face writes."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: tuple(str(label) for label in feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature["names"], list)
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
