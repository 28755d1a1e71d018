"""Tables that fit the width of the terminal without breaking a word or a number.

If a table is too wide, its headings wrap at underscores, dots and spaces, then its cells at spaces. If that is not
enough, each row is printed as lines of `heading=value`.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

Cell = str | Text


@dataclass(frozen=True)
class Grid:
    """A table without lines between its cells.

    left: headings of the columns that are aligned left; the others are aligned right
    gap: spaces between columns; bold: whether the last row is bold
    caption: a text below the table
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Sequence[str] = ()
    gap: int = 2
    bold: bool = False
    caption: str = ""

    def fits(self, width: int) -> bool:
        return self.widths(width) is not None

    def widths(self, width: int) -> list[int] | None:
        """Return the width of each column in a table of at most `width`; None if a word would have to be broken."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.headings)
        room = width - self.gap * (len(self.headings) - 1)
        cells = [max((_length(cell) for cell in column), default=0) for column in columns]
        natural = [max(size, len(heading)) for size, heading in zip(cells, self.headings, strict=True)]
        if sum(natural) <= room:
            return natural
        pieces = [max(map(len, _pieces(heading)), default=0) for heading in self.headings]
        words = [max((_longest_word(cell) for cell in column), default=0) for column in columns]
        for fewest in (cells, words):  # first only headings wrap, then cells too
            least = [max(size, piece) for size, piece in zip(fewest, pieces, strict=True)]
            if sum(least) <= room:
                return _shrunk(natural, least, room)
        return None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self.widths(options.max_width)
        yield from self._lines(options.max_width) if widths is None else [self._table(widths)]
        if self.caption:
            yield Text(
                "\n".join(_wrapped(self.caption, options.max_width)), style="dim", no_wrap=True, overflow="ignore"
            )

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, self.gap, 0, 0), show_edge=False)
        for heading, width in zip(self.headings, widths, strict=True):
            justify: Any = "left" if heading in self.left else "right"
            table.add_column("\n".join(_joined(_pieces(heading), width)), justify=justify, width=width)
        for place, row in enumerate(self.rows):
            table.add_row(*row, style="bold" if self.bold and place == len(self.rows) - 1 else None)
        return table

    def _lines(self, width: int) -> RenderResult:
        for row in self.rows:
            first, *rest = (str(cell) for cell in row)
            items = [f"{name}={cell}" for name, cell in zip(self.headings[1:], rest, strict=True) if cell]
            yield Text(f"{self.headings[0]} {first}".strip(), style="bold", no_wrap=True, overflow="ignore")
            for line in _wrapped(" ".join(items), width - 4):
                yield Text(f"    {line}", no_wrap=True, overflow="ignore")


@dataclass(frozen=True)
class KeyValues:
    """Two columns without a header. A value with a word that is too long for its column begins on the next line."""

    rows: Mapping[str, Any] | Sequence[tuple[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = list(self.rows.items() if isinstance(self.rows, Mapping) else self.rows)
        indent = max((len(str(key)) for key, _ in rows), default=0) + 2
        for key, value in rows:
            text = value if isinstance(value, Text) else Text(str(value))
            start = Text(f"{key}".ljust(indent), style="bold")
            room = options.max_width - indent
            begin = Text(" " * indent)
            if _longest_word(text) > room:
                yield Text(str(key), style="bold", no_wrap=True, overflow="ignore")
                start, begin, room = Text("    "), Text("    "), max(options.max_width - 4, 1)
            lines = _wrap(console, text, room) or [Text("")]
            for place, line in enumerate(lines):
                yield Text.assemble(begin if place else start, line, no_wrap=True, overflow="ignore")


def _wrap(console: Console, text: Text, width: int) -> list[Text]:
    """Wrap at spaces; a longer word gets a line of its own, which the terminal wraps."""
    if max((len(line) for line in text.plain.splitlines()), default=0) <= width:
        return list(text.split("\n"))
    if _longest_word(text) <= width:
        return list(text.wrap(console, width))
    return [text]


def _shrunk(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Narrow the widest column that can be narrowed until all fit."""
    shrunk = list(widths)
    while sum(shrunk) > room:
        place = max((i for i in range(len(shrunk)) if shrunk[i] > least[i]), key=lambda i: shrunk[i])
        shrunk[place] -= 1
    return shrunk


def differing(texts: Sequence[str]) -> bool:
    """Return whether a column is worth showing: with one row always, with more if its cells differ."""
    return len(texts) < 2 or len(set(texts)) > 1


def _pieces(heading: str) -> list[str]:
    """Return the parts of a heading that stay whole: conv_, dropout; val_acc, (dedup)."""
    return [piece for piece in re.split(r"(?<=[_.])(?=[^_.])|(?<= )", heading) if piece]


def _joined(pieces: Sequence[str], width: int) -> list[str]:
    """Join the parts of a heading into as few lines as possible."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [line.rstrip() for line in lines]


def _length(cell: Cell) -> int:
    return max((Text(line).cell_len for line in str(cell).splitlines()), default=0)


def _longest_word(cell: Cell) -> int:
    return max((Text(word).cell_len for word in str(cell).split()), default=0)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)
