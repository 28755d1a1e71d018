"""Render panels as one self-contained HTML page: images are inlined, there are no scripts and no external links.

Note: names, reasons and cells come from users and their data. All text is escaped here, and only here.
"""

import base64
import csv
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ferhpo.reports.panel import Panel

MOST_ROWS = 200
MLFLOW = "MLflow"  # heading of a column with addresses of runs
LONG_CELL = 40  # characters; a longer cell is wrapped
WIDE_PIXELS = 560  # a wider image scrolls on a phone: scaled down, it would be illegible
STYLE = Path(__file__).with_name("page.css")
MIME_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?%?$")


@dataclass(frozen=True)
class Part:
    """The panels under one heading of a page."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Page:
    """The content of a page.

    findings: sentences at the top; missing: what could not be shown, and why
    facts: (name, value) pairs on how the results were obtained
    """

    title: str
    findings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    parts: Sequence[Part] = ()
    missing: Sequence[str] = field(default=())


def render(page: Page) -> str:
    """Return the page as HTML."""
    parts = [part for part in page.parts if part.panels]
    title = escape(page.title)
    body = [f"<header><h1>{title}</h1>"]
    body += [f"<p>{escape(sentence)}</p>" for sentence in page.findings]
    warnings = [panel for part in parts for panel in part.panels if panel.is_warning]
    body += [f'<p class="warning"><b>{escape(p.title)}.</b> {escape(p.text)}</p>' for p in warnings]
    if page.missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in page.missing)
        body.append(f'<div class="missing"><b>Missing from this page</b><ul>{items}</ul></div>')
    body.append("</header>")
    body.append(_contents(parts))
    for number, part in enumerate(parts):
        body.append(f'<h2 id="part-{number}">{escape(part.title)}</h2>')
        shown = [panel for panel in part.panels if not panel.is_warning]
        body += [_section(panel, f"part-{number}-{place}") for place, panel in enumerate(shown)]
    body.append('<h2 id="facts">Provenance</h2><dl>')
    body += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts]
    body.append("</dl>")
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n<body><main>\n{content}\n</main></body></html>\n"
    )


def _contents(parts: Sequence[Part]) -> str:
    items = []
    for number, part in enumerate(parts):
        shown = [panel for panel in part.panels if not panel.is_warning]
        links = [f'<a href="#part-{number}-{place}">{escape(panel.title)}</a>' for place, panel in enumerate(shown)]
        items.append(f'<li><a href="#part-{number}"><b>{escape(part.title)}</b></a> {" ".join(links)}</li>')
    items.append('<li><a href="#facts"><b>Provenance</b></a></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def _section(panel: Panel, anchor: str) -> str:
    images = "".join(_image(path, panel) for path in panel.images)
    tables = "".join(_table(path, panel.links) for path in panel.tables)
    shown = f'<div class="shown">{images}{tables}</div>' if images or tables else ""
    return f'<section id="{anchor}"><h3>{escape(panel.title)}</h3><p>{escape(panel.text)}</p>\n{shown}</section>'


def _image(path: Path, panel: Panel) -> str:
    data = path.read_bytes()
    width = _width_pixels(path.suffix, data)
    kind = "figure wide" if width > WIDE_PIXELS else "figure"
    alt = escape(f"{panel.title}: {path.stem.replace('_', ' ')}", quote=True)
    source = f"data:{MIME_TYPES[path.suffix]};base64,{base64.b64encode(data).decode()}"
    return f'<div class="{kind}"><img width="{width}" alt="{alt}" src="{source}"></div>\n'


def _width_pixels(suffix: str, data: bytes) -> int:
    """Return the width of an image on a desktop, in CSS pixels (1/96 inch)."""
    if suffix == ".png":
        from ferhpo.reports.style import PIXELS_PER_INCH

        (width,) = struct.unpack(">I", data[16:20])
        return round(int(width) * 96 / PIXELS_PER_INCH)
    match = re.search(rb'<svg[^>]*?\bwidth="([\d.]+)pt"', data)
    return round(float(match.group(1)) * 96 / 72) if match else WIDE_PIXELS


def _table(path: Path, links: Mapping[str, str]) -> str:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    right = [all(NUMBER.match(row[place]) for row in rows if row[place]) for place in range(len(header))]
    classes = [' class="number"' if is_number else "" for is_number in right]
    heads = "".join(
        f"<th{kind}>{_breakable(name)}</th>" for name, kind in zip(header, classes, strict=True)
    )  # fmt: skip
    columns = [_cells([row[place] for row in rows[:MOST_ROWS]]) for place in range(len(header))]
    for place, heading in enumerate(header):
        texts = [row[place] for row in rows[:MOST_ROWS]]
        if place == 0 and links:
            columns[0] = [_link(links.get(text, ""), cell) for text, cell in zip(texts, columns[0], strict=True)]
        elif heading == MLFLOW:
            columns[place] = [_link(text, "run") if text else "" for text in texts]
    lines = []
    for cells in zip(*columns, strict=True):
        line = "".join(
            f'<td class="long">{cell}</td>'
            if len(cell) > LONG_CELL and not cell.startswith("<a")
            else f"<td{kind}>{cell}</td>"
            for cell, kind in zip(cells, classes, strict=True)
        )
        lines.append(f"<tr>{line}</tr>")
    more = ""
    if len(rows) > MOST_ROWS:
        note = f"{len(rows) - MOST_ROWS:,} more rows are in {path.name} in the report folder."
        more = f'<p class="more">{escape(note)}</p>'
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(path.stem)}"><table><thead><tr>{heads}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>{more}"
    )


def _cells(column: Sequence[str]) -> list[str]:
    """Return the cells of a column as HTML.

    Large counts get commas; fractions have four decimals, or four significant digits if some are very small.
    """
    numbers = [float(text) for text in column if NUMBER.match(text) and not text.endswith("%")]
    has_fractions = any(len(text.partition(".")[2]) > 2 for text in column if NUMBER.match(text))
    has_large = any(number >= 10_000 for number in numbers)
    is_uniform = all(number == 0 or 0.01 <= abs(number) < 100 for number in numbers)

    def cell(text: str) -> str:
        if not NUMBER.match(text) or text.endswith("%"):
            return escape(text)
        if has_fractions:
            return f"{float(text):.4f}" if is_uniform else f"{float(text):.4g}"
        return f"{int(text):,}" if text.isdecimal() and has_large else text

    return [cell(text) for text in column]


def _link(address: str, shown: str) -> str:
    """Return a link, if the address is a page of the report or of a server. shown: HTML"""
    if not address.startswith(("http://", "https://", "trial-", "#")):
        return shown
    return f'<a href="{escape(address, quote=True)}">{shown}</a>'


def _breakable(name: str) -> str:
    """Return a dotted path as HTML that may wrap at its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")
