"""The competition's CSV of FER2013, and the votes of FER+ that go with its rows.

Row numbers in messages are those that an editor or a spreadsheet shows: the header is row 1.
"""

import csv
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.io.faults import Faults, nearest, one_of, raise_faults
from ferhpo.errors import DataError

SIDE = 48
USAGES = {"Training": TRAIN, "PublicTest": VAL, "PrivateTest": TEST}
MAX_ROWS = 500_000  # in memory 1.2 GB; a larger file is not FER2013
MAX_VOTES = 1_000_000  # of a row for one emotion; FER+ has 10 in all
MAX_LINE_BYTES = 65_536  # a row has at most 9.3 kB; a longer "line" is some other kind of file

_UTF8_MARK = "ï»¿"  # as latin-1 reads it
VOTE_COLUMNS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)


def read_rows(
    where: str, file: IO[bytes], label_offset: int, needs_usage: str | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8] | None]:
    """Read images uint8 [N, 48, 48], labels int64 [N] from 0, and the published split uint8 [N] (None without Usage).

    label_offset: what the file writes for angry, 0 or 1
    needs_usage: the setting that needs the column Usage, as "data.split=published", or None
    Raises DataError with every fault in the file.
    """
    lines = _lines(file)
    header = next(lines, "").removeprefix(_UTF8_MARK)
    if not header:
        raise DataError(where, ["the file is empty; get it again"])
    if "\0" in header or not header.isascii():
        raise DataError(where, ["it is neither a CSV in plain text, nor a folder, nor a zip; unpack or convert it"])
    faults = Faults("row")
    columns = _columns(header, faults, needs_usage)
    if "emotion" not in columns or "pixels" not in columns:
        raise_faults(where, faults)
    emotion_at, pixels_at, usage_at = columns["emotion"], columns["pixels"], columns.get("usage")
    last_at = max(columns.values())

    pixels, labels, usages = bytearray(), [], []
    blank = bytes(SIDE * SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how numpy 1 and 2 say that a text is no number
        for number, line in enumerate(lines, start=2):
            if number > MAX_ROWS:
                raise DataError(where, [f"it has more than {MAX_ROWS:,} rows, and FER2013 has 35,887; get it again"])
            row = str(number)
            fields = _fields(line)
            if not fields:
                continue  # an empty line
            if len(fields) <= last_at:
                faults.add("fields", f"row {row} has {len(fields)} of {last_at + 1} columns", row)
                continue
            pixels += _pixels(fields[pixels_at], row, faults) or blank
            labels.append(_label(fields[emotion_at], row, label_offset, faults))
            if usage_at is not None:
                usages.append(_usage(fields[usage_at].strip(), row, faults))
    if not labels and not faults:
        faults.add("none", "it has a header and no rows; get the file again")
    raise_faults(where, faults)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)
    return images, np.array(labels, np.int64), np.array(usages, np.uint8) if usage_at is not None else None


def read_votes(where: str, file: IO[bytes]) -> NDArray[np.int64]:
    """Read the votes of FER+ int64 [N, 10] from a CSV with the columns VOTE_COLUMNS, among others.

    The file of the FER+ authors (fer2013new.csv) and a file of the ten columns alone both serve.
    Raises DataError with every fault in the file.
    """
    lines = _lines(file)
    header = [name.strip() for name in _fields(next(lines, ""))]
    missing = [name for name in VOTE_COLUMNS if name not in header]
    if missing:
        raise DataError(where, [f"it has no column {one_of(missing)}; FER+ votes need {', '.join(VOTE_COLUMNS)}"])
    places = [header.index(name) for name in VOTE_COLUMNS]
    faults, votes = Faults("row"), []
    for number, line in enumerate(lines, start=2):
        fields = _fields(line)
        if not fields:
            continue
        try:
            votes.append([int(fields[place]) for place in places])
        except (ValueError, IndexError):
            votes.append([0])
        if not 0 <= min(votes[-1]) <= max(votes[-1]) <= MAX_VOTES or len(votes[-1]) < len(places):
            rule = f"and a row of FER+ has {len(places)} counts of votes"
            faults.add("votes", f"row {number} is {line.strip()[:40]!r}, {rule}", str(number))
    raise_faults(where, faults)
    return np.array(votes, np.int64).reshape(-1, len(VOTE_COLUMNS))


def _lines(file: IO[bytes]) -> Iterator[str]:
    while line := file.readline(MAX_LINE_BYTES):
        yield line.decode("latin-1")  # never fails; whatever is not a digit is a fault of its row


def _fields(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' in line:  # the csv module is right about quotes, and several times slower
        try:
            return next(csv.reader([line]))
        except csv.Error:  # as a carriage return in the middle
            return [line]
    return line.split(",") if line else []


def _columns(header: str, faults: Faults, needs_usage: str | None) -> dict[str, int]:
    """Where emotion, pixels and Usage stand, whatever the case and the spaces of their names."""
    given = [name.strip() for name in _fields(header)]
    found = {name.lower(): place for place, name in enumerate(given)}
    columns: dict[str, int] = {name: found[name] for name in ("emotion", "pixels", "usage") if name in found}
    shown = ", ".join(name[:20] for name in given[:5])
    for name in ("emotion", "pixels"):
        if name not in columns:
            like = nearest(name, found)
            hint = f"did you mean {like} to be it?" if like else "its first line must name emotion, pixels and Usage"
            faults.add(name, f"it has no column {name} (it has: {shown}); {hint}")
    if needs_usage and "usage" not in columns:
        faults.add("usage", f"it has no column Usage, and {needs_usage} needs it; data.split=random works without")
    return columns


def _pixels(text: str, row: str, faults: Faults) -> bytes | None:
    try:
        values = np.fromstring(text, np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    except (DeprecationWarning, ValueError):
        word = next((word for word in text.split() if not word.isdecimal()), text[:20])
        faults.add("text", f"row {row} has the pixel {word[:20]!r}, and pixels are whole numbers", row)
        return None
    if values.size != SIDE * SIDE:
        faults.add("count", f"row {row} has {values.size:,} pixels, and an image is {SIDE}x{SIDE}", row)
        return None
    if values.min() < 0 or values.max() > 255:
        wrong = values[(values < 0) | (values > 255)][0]
        faults.add("range", f"row {row} has the pixel {wrong}, and pixels are 0 to 255", row)
        return None
    return values.astype(np.uint8).tobytes()


def _label(text: str, row: str, label_offset: int, faults: Faults) -> int:
    try:
        label = int(text) - label_offset
    except ValueError:
        label = -1
    if not 0 <= label <= 6:
        rule = f"labels are {label_offset} to {6 + label_offset}"
        remedy = "; if this file counts from 1, set data.label_offset=1" if text.strip() == "7" else ""
        faults.add("label", f"row {row} has the emotion {text.strip()[:20]!r}, and {rule}{remedy}", row)
    return label


def _usage(text: str, row: str, faults: Faults) -> int:
    if text not in USAGES:
        rule = f"Usage is {one_of(list(USAGES))}"
        faults.add("usage", f"row {row} has the Usage {text[:20]!r}, and {rule}", row)
    return USAGES.get(text, TRAIN)
