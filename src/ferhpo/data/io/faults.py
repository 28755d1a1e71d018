"""Faults of a data set, collected while it is read and reported together, and the limits of what may be read.

Note: faults are grouped by kind. The first of a kind is reported in full, the next few by number or name only, and the
rest are counted: a file with 20,000 broken rows gives a few lines, not 20,000.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ferhpo.errors import DataError, FerhpoError, first_line
from ferhpo.keys import closest
from ferhpo.text import size

MAX_LISTED = 5
# Content may unpack to UNPACKED_BYTES, plus EXPANSION times what it has on the disk. Photographs hardly shrink.
UNPACKED_BYTES, EXPANSION = 2**30, 100


class Faults:
    """The faults of one source, by kind. `noun` names the things that can be broken, e.g. "row" or "file"."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._first: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}

    def add(self, kind: str, sentence: str, which: str | None = None) -> None:
        """Add a fault. The first of a kind is reported by `sentence`, later ones by `which` (a number or a name)."""
        if kind not in self._first:
            self._first[kind] = sentence
            self._others[kind] = []
        elif which is not None:
            self._others[kind].append(which)

    def __bool__(self) -> bool:
        return bool(self._first)

    def sentences(self) -> list[str]:
        """Return one sentence per kind."""
        sentences = []
        for kind, sentence in self._first.items():
            others = self._others[kind]
            if others:
                shown = ", ".join(others[:MAX_LISTED]) + (", ..." if len(others) > MAX_LISTED else "")
                nouns = f"{self.noun} is" if len(others) == 1 else f"{self.noun}s are"
                sentence += f"; {len(others):,} more {nouns} broken ({shown})"
            sentences.append(sentence)
        return sentences


def raise_faults(where: str, *collected: Faults) -> None:
    """Raise one DataError with every fault, if there is any; `where` is e.g. "data.path is fer2013.csv"."""
    if sentences := [sentence for faults in collected for sentence in faults.sentences()]:
        raise DataError(where, sentences)


@contextmanager
def parsed(where: str, rule: str, remedy: str) -> Iterator[None]:
    """Turn what a parser raises into a DataError; `rule` is e.g. "it is not a readable zip".

    Note: the parsers of zips, tables and images raise many more classes of exceptions than they document, so that this
    catches all; it belongs around calls of them only.
    """
    try:
        yield
    except FerhpoError:
        raise
    except MemoryError:
        raise DataError(where, [f"{rule} (it does not fit in memory); {remedy}"]) from None
    except Exception as error:
        raise DataError(where, [f"{rule} ({first_line(error)[:200]}); {remedy}"]) from error


def most_unpacked(stored_bytes: int) -> int:
    """Return how many bytes the content of files may have that have `stored_bytes` on the disk."""
    return UNPACKED_BYTES + EXPANSION * stored_bytes


def check_room(where: str, num_bytes: float, remedy: str, what: str = "it needs") -> None:
    """Raise DataError if something does not fit in the memory that is free; `what` starts the sentence."""
    free = psutil.virtual_memory().available
    if num_bytes > free:
        rule = f"{what} {size(num_bytes)} of memory, of which {size(free)} are free"
        raise DataError(where, [f"{rule}; {remedy}"])


def is_whole(value: Any, low: int = 0) -> bool:
    """Return whether a setting is an integer of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: Any) -> bool:
    """Return whether a setting is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def one_of(names: Sequence[str]) -> str:
    """Join names for a message: "a, b or c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def existing_path(key: str, path: str | Path) -> Path:
    """Return a path that exists, or raise DataError with a similar name in its folder; `key` is e.g. "data.path"."""
    where = f"{key} is {path!r:.60}"
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise DataError(where, ["it must be the name of a file or folder"])
    where = f"{key} is {path}"
    try:
        found = Path(path).expanduser()
        folder, exists = found.absolute().parent, found.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder without permission, ~ of no user
        raise DataError(where, [f"it cannot be accessed ({error}); use another path"]) from None
    if exists:
        if not found.is_file() and not found.is_dir():
            raise DataError(where, ["it is a pipe, a socket or a device; it must be a file or a folder"])
        if not os.access(found, os.R_OK | (os.X_OK if found.is_dir() else 0)):
            raise DataError(where, ["it is not readable (permission denied); change its permissions or copy it"])
        return found
    if not folder.is_dir():
        raise DataError(where, [f"there is no such file, and no folder {folder}"])
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(where, [f"the folder {folder} is not readable (permission denied); change its permissions"])
    like = closest(found.name, (entry.name for entry in folder.iterdir()))
    remedy = f"did you mean {like}?" if like else f"no similar name in {folder}"
    raise DataError(where, [f"there is no such file; {remedy}"])
