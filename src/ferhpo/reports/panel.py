"""What a report is made of: panels, each with a title, what it shows in words, and its files.

Every module here that draws something returns panels and writes their files into the folder it is given; report.py
puts them on a page.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Panel:
    """One part of a report.

    text: what is to be seen, in one to three plain sentences with the numbers that matter
    images: SVG (few marks) or PNG (pixels) files; tables: CSV files with a header; all in the report's folder
    """

    title: str
    text: str
    images: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
