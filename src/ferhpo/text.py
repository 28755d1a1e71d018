"""Format numbers, durations, sizes and lists for display."""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ferhpo.errors import printable

LAYOUT = "\n\t\xa0"  # not printable to Python, and printed; the last is a space at which no line breaks
STEPS = "ferhpo.steps"  # the logger of what a sweep does before its first trial and after its last one


def escape_logs(of: str = "") -> None:
    """Escape what is not printable in every message that a logger logs from now on, e.g. names that a file has.

    of: the name that loggers begin with
    """
    make = logging.getLogRecordFactory()

    def escaped(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.name.startswith(of):
            record.msg, record.args = printable(record.getMessage(), LAYOUT), ()
        return record

    logging.setLogRecordFactory(escaped)


def csv_cell(value: object) -> object:
    """Return a value for a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows, the header first, as CSV without formulas; None becomes an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


_MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{mark: f"\\{mark}" for mark in "\\`[]|"}},
)


def markdown(text: object) -> str:
    """Return a text for Markdown, in which no part of it becomes a link, an image, HTML, code or a table's cell."""
    return printable(str(text)).translate(_MARKDOWN)


def number(value: object) -> str:
    """Format a value for a table cell; a float has four significant digits."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value}"


def duration(seconds: float) -> str:
    """Format seconds in their two largest units: 45 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def size(num_bytes: float) -> str:
    """Format bytes in the largest decimal unit that fits: 512 B, 3.4 MB, 12 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def short(count: float) -> str:
    """Format a count with three significant digits in thousands (k), millions (M) or billions (G)."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.3g}"


def sampled_columns(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return (heading, paths) of each sampled hyperparameter; the entries of a repeated draw share a column."""
    columns: dict[str, list[str]] = {}
    for sample in samples:
        for path in sample:
            parent, _, last = path.rpartition(".")
            columns.setdefault(parent if last.isdecimal() else path, [])
            if path not in columns[parent if last.isdecimal() else path]:
                columns[parent if last.isdecimal() else path].append(path)
    return list(columns.items())


def short_names(paths: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Return the shortest ending of each dotted path that no other one has: lr, or model.lr beside optim.lr.

    taken: names that are used for something else
    """

    def endings(path: str) -> list[str]:
        parts = path.split(".")
        return [".".join(parts[begin:]) for begin in range(len(parts) - 1, -1, -1)]

    counts = Counter(ending for path in dict.fromkeys(paths) for ending in endings(path))
    return {
        path: next((name for name in endings(path) if counts[name] == 1 and name not in taken), path) for path in paths
    }


def join(words: Sequence[str]) -> str:
    """Join words as a sentence lists them: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: 1 trial, 1,200 trials."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
