"""A CSV with the class that a model predicted for each image, the pseudo-label, to leave out images that disagree.

Columns, in any order and among others: `file`, `pseudo_label`, and optionally `label`. A file is named by its path
below the folder of the data set, or by the end of that path if only one image has it.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.io.faults import Faults, existing_path, parsed, raise_faults
from ferhpo.data.io.tree import open_regular, open_tree
from ferhpo.data.labels.class_names import normal
from ferhpo.errors import DataError
from ferhpo.keys import closest

FILE, LABEL, PSEUDO_LABEL = "file", "label", "pseudo_label"
MAX_BYTES = 128 * 2**20  # ten times the CSV of AffectNet
_OTHER_NAMES = {"pth": FILE, "path": FILE, "image": FILE, "filename": FILE, "pseudo": PSEUDO_LABEL}


def agreement(
    clean: str | Path,
    source: Path,
    names: Sequence[str],
    labels: Sequence[str],
    class_of: Callable[[str], str | None],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether the pseudo-label of each image equals its label, and whether it has one; both bool [N].

    clean: the CSV; a path, or the name of a file inside the data set
    source: the folder or zip of the data set
    names, labels: the path below `source` and the class of each image
    class_of: returns the class that a text of the CSV means, or None
    Raises DataError with every fault of the CSV.
    """
    where = f"data.clean is {clean}"
    text = _read_text(where, clean, source)
    places = _places(names)
    faults = Faults("row")
    row_of: dict[int, str] = {}
    agrees = np.zeros(len(names), np.bool_)
    for row, fields in _rows(where, text, faults):
        place = places.get(_normal(fields[FILE]))
        if place is None:
            rule = "which the data set does not have; remove the row, or use the path in the data set"
            faults.add("file", f"row {row} names {fields[FILE][:60]!r}, {rule}", row)
            continue
        if place < 0:
            rule = "which several images match; add the folders of the file"
            faults.add("several", f"row {row} names {fields[FILE][:60]!r}, {rule}", row)
            continue
        if place in row_of:
            faults.add("twice", f"row {row} repeats {names[place]} of row {row_of[place]}; keep one", row)
            continue
        row_of[place] = row
        pseudo = class_of(fields[PSEUDO_LABEL])
        if pseudo is None:
            rule = f"which is not a class; the label of the image is {labels[place]}"
            faults.add("pseudo", f"row {row} has the pseudo-label {fields[PSEUDO_LABEL][:20]!r}, {rule}", row)
        if LABEL in fields and class_of(fields[LABEL]) != labels[place]:
            rule = f"but {names[place]} has {labels[place]}; use the CSV of this data set"
            faults.add("label", f"row {row} has the label {fields[LABEL][:20]!r}, {rule}", row)
        agrees[place] = pseudo == labels[place]
    if not row_of and not faults:
        faults.add("none", "it has a header but no rows; download the file again")
    raise_faults(where, faults)
    has_row = np.zeros(len(names), np.bool_)
    has_row[list(row_of)] = True
    return agrees, has_row


def _read_text(where: str, clean: str | Path, source: Path) -> str:
    """Read the CSV at a path, or else inside the data set."""
    if not isinstance(clean, str | Path) or not str(clean) or "\0" in str(clean):
        raise DataError(where, ["it must be the name of a CSV, or null"])
    path = Path(clean)
    try:
        is_folder, is_here = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(where, [f"it cannot be accessed ({error.strerror}); use another path"]) from None
    if is_folder:
        raise DataError(where, ["it is a folder; it must be a CSV"])
    if is_here or path.is_absolute() or str(clean).startswith("~"):
        path = existing_path("data.clean", clean)
        with parsed(where, "it cannot be read", "use another path"), open_regular(path) as file:
            return _decoded(where, file)
    with open_tree(where, source) as tree:
        if str(clean) not in tree.names:
            csvs = [name for name in tree.names if name.lower().endswith(".csv")]
            like = closest(str(clean), csvs)
            remedy = f"did you mean {like}?" if like else "set data.clean=null to keep all images"
            raise DataError(where, [f"there is no such file, neither here nor in {source}; {remedy}"])
        with parsed(where, "it cannot be unpacked", "download the zip again"), tree.open_file(str(clean)) as file:
            return _decoded(where, file)


def _decoded(where: str, file: IO[bytes]) -> str:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(where, [f"it is larger than {MAX_BYTES // 2**20} MB; it must be a CSV of pseudo-labels"])
    return data.decode("utf-8-sig", "replace")


def _rows(where: str, text: str, faults: Faults) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the number of each row, as shown in an editor, and its fields by column."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        columns = _columns(where, header)
        for fields in reader:
            row = str(reader.line_num)
            if not fields:
                continue  # an empty line
            if len(fields) <= max(columns.values()):
                faults.add("fields", f"row {row} has {len(fields)} of {len(header)} columns", row)
                continue
            yield row, {name: fields[place].strip() for name, place in columns.items()}
    except csv.Error as error:
        raise DataError(where, [f"line {reader.line_num} is not CSV ({error}); download the file again"]) from error


def _columns(where: str, header: Sequence[str]) -> dict[str, int]:
    """Return the positions of file, pseudo_label and, if there is one, label."""
    given = [name.strip().lower() for name in header]
    columns: dict[str, int] = {}
    for place, name in enumerate(given):
        columns.setdefault(_OTHER_NAMES.get(name, name), place)
    wanted = {name: columns[name] for name in (FILE, LABEL, PSEUDO_LABEL) if name in columns}
    if missing := [name for name in (FILE, PSEUDO_LABEL) if name not in wanted]:
        shown = ", ".join(name[:20] for name in header[:6]) or "nothing"
        rule = f"it has no column {' and no column '.join(missing)} (it has: {shown})"
        raise DataError(where, [f"{rule}; its first line must name file, label and pseudo_label"])
    return wanted


def _normal(name: str) -> str:
    return normal(name).replace("\\", "/").removeprefix("./").lstrip("/")


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return the index of the image with each name or end of a name; -1 for an end that several images have."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        parts = normal(name).split("/")
        for start in range(1, len(parts)):
            end = "/".join(parts[start:])
            places[end] = place if end not in places else -1
    places.update({normal(name): place for place, name in enumerate(names)})
    return places
