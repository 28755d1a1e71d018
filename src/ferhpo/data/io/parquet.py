"""Parquet files of images: the columns of texts and numbers as a whole, those of image bytes row by row.

Note: a file of a few kB can describe a table that no memory holds, e.g. by one long text that every row refers to.
Texts are therefore read as dictionaries, in which each value is once, and counted before every row gets its own.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo.data.io.faults import check_room, most_unpacked, parsed
from ferhpo.data.io.files import MAX_FILE_BYTES, fault_of_size
from ferhpo.data.io.tree import open_regular
from ferhpo.errors import DataError
from ferhpo.text import size

MAX_ROWS = 2_000_000
MAX_COLUMNS = 2000
MAX_LISTED = 3 * MAX_COLUMNS  # entries of a list in the footer; pyarrow crashes in a schema nested 13,000 levels deep
MAX_BYTES = 256 * 2**20  # of one column of texts, written out for every row
MAX_CHUNK_BYTES = 4 * 2**30  # of the images in one row group
CELL_BYTES = 64  # of memory for a number or a short text
_TEXT_ROWS, _IMAGE_ROWS = 8192, 32  # read at a time


@dataclass
class Content:
    """The columns of texts and numbers by name, and the names of those of images, of files with the same columns.

    class_names: the names of the integers in a column, if the files have them (ClassLabel of Hugging Face)
    """

    num_rows: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)
    image_columns: tuple[str, ...] = ()
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    """A column that is read.

    kind: "image" or "text", the latter also for numbers
    leaf: the number of its values in the file: a column with fields has several, and dots in names are no separators
    selection: what pyarrow calls the values
    """

    name: str
    kind: str
    leaf: int
    selection: str
    is_words: bool


def read_parquet(where: str, files: Sequence[Path]) -> tuple[Content, list[int]]:
    """Read files without their image bytes; return the number of rows of each file too.

    Raises DataError for what cannot be read, or not in the memory that is free.
    """
    content, rows = Content(), []
    for file in files:
        what = "it" if len(files) == 1 else file.name
        with _opened(where, what, file, "text") as (opened, columns):
            metadata = opened.metadata
            rows.append(metadata.num_rows)
            texts = [column for column in columns if column.kind == "text"]
            if sum(rows) > MAX_ROWS:
                raise DataError(where, [f"it has more than {MAX_ROWS:,} rows; split it"])
            check_room(where, CELL_BYTES * metadata.num_rows * len(texts), "split it, or remove columns")
            _check_sizes(where, metadata, columns)
            names = [column.name for column in texts]
            images = tuple(column.name for column in columns if column.kind == "image")
            if len(rows) == 1:
                content.columns, content.image_columns = {name: [] for name in names}, images
                content.class_names = _class_names(opened.schema_arrow.metadata)
            elif (list(content.columns), content.image_columns) != (names, images):
                raise DataError(where, [f"{file.name} has other columns than {files[0].name}; set one of the files"])
            _read_texts(where, opened, texts, content.columns)
            if any(len(values) != sum(rows) for values in content.columns.values()):
                rule = f"{what} does not have the {rows[-1]:,} rows that it says it has"
                raise DataError(where, [f"{rule}; download it again"])
    content.num_rows = sum(rows)
    return content, rows


def image_bytes(where: str, files: Sequence[Path], name: str) -> Iterator[bytes | None]:
    """Yield the bytes of the image in each row of a column, None if there are none.

    A value is bytes, or has the fields `bytes` and `path` as Hugging Face writes them; only `bytes` is read.
    """
    num_bytes = row = 0
    most = most_unpacked(sum(file.stat().st_size for file in files))
    for file in files:
        with _opened(where, "it" if len(files) == 1 else file.name, file, "image") as (opened, columns):
            column = next(column for column in columns if column.name == name)
            metadata = opened.metadata
            largest = max(_chunk_bytes(metadata, column), default=0)
            # Every row may refer to one value that is as large as the chunk.
            num_rows = max(1, min(_IMAGE_ROWS, 4 * MAX_FILE_BYTES // max(largest, 1)))
            for batch in opened.iter_batches(num_rows, columns=[column.selection]):
                for value in batch.column(0):
                    row += 1
                    found = _content(value)
                    num_bytes += (length := 0 if found is None else len(found))
                    if fault := fault_of_size(length):
                        raise DataError(where, [f"the image in row {row} {fault}"])
                    if num_bytes > most:
                        rule = f"its images have more than {size(most)}, far more than the file has"
                        raise DataError(where, [f"{rule}; download it again"])
                    yield None if found is None else found.to_pybytes()


@contextmanager
def _opened(where: str, what: str, file: Path, kind: str) -> Iterator[tuple[Any, list[_Column]]]:
    """Open a file to read its columns of a kind; yield it with all columns that can be read."""
    try:
        from pyarrow import parquet
    except ImportError:
        rule = "a Parquet file needs the package pyarrow, which is not installed"
        raise DataError(where, [f"{rule}; run: pip install pyarrow, or convert the table to CSV"]) from None
    with parsed(where, f"{what} is not a readable Parquet file", "download it again"), open_regular(file) as data:
        metadata = _metadata(where, data)
        if metadata.num_columns > MAX_COLUMNS:
            rule = f"it has {metadata.num_columns:,} columns; it must have at most {MAX_COLUMNS:,}"
            raise DataError(where, [f"{rule}; remove those that are not needed"])
        columns = _columns(where, metadata)
        words = [column.leaf for column in columns if column.kind == kind and column.is_words]
        with parquet.ParquetFile(data, metadata=metadata, read_dictionary=words) as opened:
            yield opened, columns


def _metadata(where: str, data: Any) -> Any:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(data, thrift_container_size_limit=MAX_LISTED).metadata
    except OSError as error:
        if "Exceeded size limit" not in str(error):
            raise
        rule = f"it has more than {MAX_LISTED:,} row groups, columns or levels"
        raise DataError(where, [f"{rule}; write it with larger row groups and plain columns"]) from None


def _columns(where: str, metadata: Any) -> list[_Column]:
    """Return the columns of image bytes and those of texts or numbers; others are left out."""
    from pyarrow import types

    schema = metadata.schema.to_arrow_schema()
    names = set()
    columns, leaf = [], 0
    for column in schema:
        name, of = column.name, column.type.value_type if types.is_dictionary(column.type) else column.type
        if name in names:
            raise DataError(where, [f"it has two columns {name!r}; rename one"])
        names.add(name)
        is_struct = types.is_struct(of) and of.get_field_index("bytes") >= 0
        if is_struct and _is_bytes(of.field("bytes").type):
            before = sum(_num_leaves(of.field(place).type) for place in range(of.get_field_index("bytes")))
            columns.append(_Column(name, "image", leaf + before, f"{name}.bytes", False))
        elif _is_bytes(of):
            columns.append(_Column(name, "image", leaf, name, False))
        elif types.is_string(of) or types.is_large_string(of):
            columns.append(_Column(name, "text", leaf, name, not types.is_dictionary(column.type)))
        elif types.is_integer(of) or types.is_floating(of) or types.is_boolean(of):
            columns.append(_Column(name, "text", leaf, name, False))
        leaf += _num_leaves(column.type)
    if leaf != metadata.num_columns:
        raise DataError(where, ["it has columns of an unknown kind; write it with plain columns"])
    for name in names:
        if both := next((other for other in names if other != name and other.startswith(f"{name}.")), None):
            raise DataError(where, [f"the columns {name} and {both} cannot be told apart; rename one"])
    return columns


def _is_bytes(of: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(of) or types.is_large_binary(of))


def _num_leaves(of: Any) -> int:
    """Return in how many columns of a Parquet file a column of that type is stored."""
    of = getattr(of, "storage_type", of)
    return sum(_num_leaves(of.field(place).type) for place in range(of.num_fields)) if of.num_fields else 1


def _content(value: Any) -> Any:
    """Return the bytes of an image in a value, not copied; None if it has none."""
    if not value.is_valid:
        return None
    value = value["bytes"] if hasattr(value, "keys") else getattr(value, "value", value)
    return value.as_buffer() if value.is_valid else None


def _read_texts(where: str, opened: Any, texts: Sequence[_Column], columns: dict[str, list[Any]]) -> None:
    """Append the values of all rows to `columns`, None for a missing one."""
    from pyarrow import compute, types

    totals = dict.fromkeys(columns, 0)
    for batch in opened.iter_batches(_TEXT_ROWS, columns=[column.selection for column in texts]):
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if types.is_dictionary(values.type):
                words, indices = values.dictionary, values.indices
                if not types.is_primitive(words.type):
                    lengths = compute.cast(compute.binary_length(words), "int64")
                    num_bytes = compute.sum(lengths.take(indices)).as_py() or 0
                    totals[name] += num_bytes
                    _check_total(where, name, totals[name])
                    check_room(where, 2 * num_bytes, "split it, or remove columns")
                values = words.take(indices)
            columns[name] += [None if value != value else value for value in values.to_pylist()]  # NaN


def _check_sizes(where: str, metadata: Any, columns: Sequence[_Column]) -> None:
    """Raise DataError if a column says that it would not fit in memory."""
    for column in columns:
        sizes = _chunk_bytes(metadata, column)
        if column.kind == "text":
            _check_total(where, column.name, sum(sizes))
        elif max(sizes, default=0) > MAX_CHUNK_BYTES:
            rule = f"{column.name} has more than {MAX_CHUNK_BYTES // 2**30} GB in one row group"
            raise DataError(where, [f"{rule}; write the file with smaller row groups"])
        else:
            check_room(where, max(sizes, default=0), "write the file with smaller row groups")


def _chunk_bytes(metadata: Any, column: _Column) -> list[int]:
    """Return the unpacked size of a column in each row group, in which each value of a dictionary counts once."""
    groups = range(metadata.num_row_groups)
    return [metadata.row_group(number).column(column.leaf).total_uncompressed_size for number in groups]


def _check_total(where: str, name: str, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
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
