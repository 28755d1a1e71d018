"""What a report is made of: panels, each with a title, what it shows in words, and its files.

Every module here that draws something returns panels and writes their files into the folder it is given; report.py
puts them on a page.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Panel:
    """One part of a report.

    text: what is to be seen, in one to three plain sentences with the numbers that matter
    images: SVG (few marks) or PNG (pixels) files; tables: CSV files with a header; all in the report's folder
    is_warning: shown so that nobody overlooks it
    """

    title: str
    text: str
    images: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    is_warning: bool = False


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as CSV, their keys as its header; None is an empty cell."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
