"""The building block of a report: a panel with a title, a text, images and tables.

Modules with a function `panel` write the files into the folder that they are given and return the panel, or None if
there is nothing to show; report.py puts the panels on a page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ferhpo.text import csv_text

_NOT_IN_NAMES = re.compile(r"[^\w.-]|^\.")


@dataclass(frozen=True)
class Panel:
    """One section of a report.

    text: what the panel shows, in one to three sentences with the main numbers
    images: SVG (few marks) or PNG (pixels) files; tables: CSV files with a header; all in the report's folder
    is_warning: whether the panel is highlighted at the top of the page
    links: where a text in the first column of the tables leads to; a column with the heading MLflow has addresses
    """

    title: str
    text: str
    images: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    is_warning: bool = False
    links: Mapping[str, str] = field(default_factory=dict)


def safe_name(text: str) -> str:
    """Return a text as part of the name of a file: keys and metrics are named by users."""
    return _NOT_IN_NAMES.sub("_", text)[:100]


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as CSV with their keys as header, and return the path; None becomes an empty cell."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    path.write_text(csv_text([header, *([row.get(key) for key in header] for row in rows)]), "utf-8", newline="")
    return path
