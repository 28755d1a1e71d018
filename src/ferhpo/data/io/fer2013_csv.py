"""The CSV of the FER2013 competition, and the CSV of the FER+ votes for its rows.

Columns are separated by commas, semicolons or tabs; other columns than those named here are ignored.

Note: row numbers in messages are those of an editor or a spreadsheet: the header is row 1.
"""

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.io.faults import Faults, one_of, raise_faults
from ferhpo.data.labels.emotions import CLASS_NAMES, emotion_of
from ferhpo.errors import DataError
from ferhpo.keys import closest

SIDE = 48  # pixels
USAGES = {"Training": TRAIN, "PublicTest": VAL, "PrivateTest": TEST}
MAX_ROWS = 500_000  # 1.2 GB in memory; a larger file is not FER2013
MAX_VOTES = 1_000_000  # for one emotion in one row; FER+ has 10 votes per row
MAX_LINE_BYTES = 65_536  # a row has at most 9.3 kB; a longer line belongs to another kind of file
SEPARATORS = (",", ";", "\t")

IMAGE_NAME = "Image name"
VOTE_COLUMNS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)


@dataclass(frozen=True)
class Rows:
    """The rows of a CSV of FER2013.

    images: uint8 [N, 48, 48]
    labels: int64 [N], from 0
    published: uint8 [N], the published split; None without a column Usage
    numbered: whether any label is a number in the file, instead of the name of an emotion
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    published: NDArray[np.uint8] | None
    numbered: bool


def read_rows(where: str, file: IO[bytes], label_offset: int, needs_usage: str | None) -> Rows:
    """Read a CSV of FER2013.

    label_offset: the label of angry in the file, 0 or 1
    needs_usage: the setting that needs the column Usage, e.g. "data.split=published", or None
    Raises DataError with every fault of the file.
    """
    faults = Faults("row")
    lines = _lines(where, file, faults)
    header = _header(where, next(lines, b""))
    separator = _separator(header)
    columns = _columns(header, separator, faults, needs_usage)
    if "emotion" not in columns or "pixels" not in columns:
        raise_faults(where, faults)
    emotion_column, pixels_column, usage_column = columns["emotion"], columns["pixels"], columns.get("usage")
    last_column = max(columns.values())

    pixels, labels, usages = bytearray(), [], []
    label_of: dict[str, int] = {}
    blank = bytes(SIDE * SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy warns about a text that is not a number
        for number, line in enumerate(lines, start=2):
            _check_number(where, number)
            row = str(number)
            fields = _fields(line.decode("latin-1"), separator)  # never fails; an odd character is a fault of its row
            if not fields:
                continue  # an empty line
            if len(fields) <= last_column:
                faults.add("fields", f"row {row} has {len(fields)} of {last_column + 1} columns", row)
                continue
            pixels += _pixels(fields[pixels_column], row, faults) or blank
            text = fields[emotion_column]
            if text not in label_of:
                label = _label(text, label_offset)
                if label is None:
                    _add_label(text, row, label_offset, faults)
                else:
                    label_of[text] = label
            labels.append(label_of.get(text, 0))
            if usage_column is not None:
                usages.append(_usage(fields[usage_column].strip(), row, faults))
    if not labels and not faults:
        faults.add("none", "it has a header but no rows; download the file again")
    raise_faults(where, faults)
    return Rows(
        np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE),
        np.array(labels, np.int64),
        np.array(usages, np.uint8) if usage_column is not None else None,
        any(emotion_of(text) is None for text in label_of),
    )


def check_start(where: str, file: IO[bytes]) -> None:
    """Raise DataError for an endless row among the first ones, before a cache reads all of the file to hash it."""
    for _ in zip(range(3), _lines(where, file, Faults("row")), strict=False):
        pass


def read_votes(where: str, file: IO[bytes]) -> tuple[list[str], NDArray[np.int64]]:
    """Read the names of the images, "" without the column IMAGE_NAME, and the FER+ votes, int64 [N, 10].

    The CSV must have the columns VOTE_COLUMNS.
    Both the file of the FER+ authors (fer2013new.csv) and a file with only the ten columns are accepted.
    Raises DataError with every fault of the file.
    """
    faults = Faults("row")
    lines = _lines(where, file, faults)
    first = _header(where, next(lines, b""))
    separator = _separator(first)
    header = [name.strip() for name in _fields(first, separator)]
    missing = [name for name in VOTE_COLUMNS if name not in header]
    if missing:
        raise DataError(where, [f"it has no column {one_of(missing)}; it must have {', '.join(VOTE_COLUMNS)}"])
    places = [header.index(name) for name in VOTE_COLUMNS]
    name_place = header.index(IMAGE_NAME) if IMAGE_NAME in header else None
    names, votes = [], []
    for number, line in enumerate(lines, start=2):
        _check_number(where, number)
        fields = _fields(line.decode("latin-1"), separator)
        if not fields:
            continue
        try:
            votes.append([int(fields[place]) for place in places])
        except (ValueError, IndexError):
            votes.append([0])
        if not 0 <= min(votes[-1]) <= max(votes[-1]) <= MAX_VOTES or len(votes[-1]) < len(places):
            rule = f"it must have {len(places)} counts of votes"
            faults.add("votes", f"row {number} is {line.decode('latin-1').strip()[:40]!r}; {rule}", str(number))
        names.append(fields[name_place].strip() if name_place is not None and len(fields) > name_place else "")
    raise_faults(where, faults)
    return names, np.array(votes, np.int64).reshape(-1, len(VOTE_COLUMNS))


def _lines(where: str, file: IO[bytes], faults: Faults) -> Iterator[bytes]:
    """Yield the lines. Raises DataError, with the faults found so far, at a line that no table of faces has."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n") and file.read(1):  # only the last line may end without a line break
            rule = (
                f"row {number} is longer than {MAX_LINE_BYTES:,} bytes; a row of {SIDE}x{SIDE} pixels has at most 9,300"
            )
            faults.add("long", f"{rule}; remove what does not belong to it, or download the file again")
            raise_faults(where, faults)
        yield line


def _check_number(where: str, row: int) -> None:
    if row > MAX_ROWS:
        raise DataError(where, [f"it has more than {MAX_ROWS:,} rows; FER2013 has 35,887; download it again"])


def _header(where: str, line: bytes) -> str:
    """Decode the first line. Raises DataError if the file is empty or is not text."""
    if not line:
        raise DataError(where, ["the file is empty; download it again"])
    try:
        header = line.decode("utf-8-sig")
    except UnicodeDecodeError:  # names of columns in an older encoding, or another kind of file
        header = line.decode("latin-1")
    if not header.replace("\t", "").rstrip("\r\n").isprintable():
        raise DataError(where, ["it must be a plain-text CSV, a folder or a zip; unpack or convert it"])
    return header


def _separator(header: str) -> str:
    """Return the separator that gives most columns, the comma if it is one of several."""
    return max(SEPARATORS, key=lambda separator: len(_fields(header, separator)))


def _fields(line: str, separator: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' in line:  # the csv module handles quotes, but is several times slower
        try:
            return next(csv.reader([line], delimiter=separator))
        except csv.Error:  # e.g. a carriage return inside the line
            return [line]
    return line.split(separator) if line else []


def _columns(header: str, separator: str, faults: Faults, needs_usage: str | None) -> dict[str, int]:
    """Return the positions of emotion, pixels and usage; the case of their names and spaces around them are ignored."""
    given = [name.strip() for name in _fields(header, separator)]
    found = {name.lower(): place for place, name in enumerate(given)}
    columns: dict[str, int] = {name: found[name] for name in ("emotion", "pixels", "usage") if name in found}
    shown = ", ".join(name[:20] for name in given[:5])
    for name in ("emotion", "pixels"):
        if name not in columns:
            like = closest(name, found)
            remedy = f"rename {like} to {name}" if like else "its first line must name emotion, pixels and Usage"
            faults.add(name, f"it has no column {name} (it has: {shown}); {remedy}")
    if needs_usage and "usage" not in columns:
        faults.add("usage", f"{needs_usage} needs a column Usage, which it does not have; set data.split=random")
    return columns


def _pixels(text: str, row: str, faults: Faults) -> bytes | None:
    try:
        values = np.fromstring(text, np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    except (DeprecationWarning, ValueError):
        word = next((word for word in text.split() if not word.isdecimal()), text[:20])
        faults.add("text", f"row {row} has the pixel {word[:20]!r}; it must be an integer", row)
        return None
    if values.size != SIDE * SIDE:
        faults.add("count", f"row {row} has {values.size:,} pixels; it must have {SIDE}x{SIDE}", row)
        return None
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        faults.add("range", f"row {row} has the pixel {wrong}; it must be from 0 to 255", row)
        return None
    return values.astype(np.uint8).tobytes()


def _label(text: str, label_offset: int) -> int | None:
    """Return the label from 0 that a text means: a whole number, also one such as 3.0, or the name of an emotion."""
    emotion = emotion_of(text)
    if emotion is not None:
        return CLASS_NAMES.index(emotion) if emotion in CLASS_NAMES else None
    try:
        value = float(text) - label_offset
    except ValueError:
        return None
    return int(value) if value in range(len(CLASS_NAMES)) else None


def _add_label(text: str, row: str, label_offset: int, faults: Faults) -> None:
    rule = f"it must be from {label_offset} to {6 + label_offset} or one of {', '.join(CLASS_NAMES)}"
    starts_at_1 = text.strip() in ("7", "7.0") and label_offset == 0
    remedy = "; if the labels of this file start at 1, set data.label_offset=1" if starts_at_1 else ""
    faults.add("label", f"row {row} has the emotion {text.strip()[:20]!r}; {rule}{remedy}", row)


def _usage(text: str, row: str, faults: Faults) -> int:
    if text not in USAGES:
        faults.add("usage", f"row {row} has the Usage {text[:20]!r}; it must be {one_of(list(USAGES))}", row)
    return USAGES.get(text, TRAIN)
