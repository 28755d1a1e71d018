"""Faults of a data set, collected while it is read and told together.

Faults are grouped by kind: the first of a kind is told in full, the others by number or name only, and not all of
those. A file with 20,000 broken rows gives a few lines, not 20,000.
"""

import difflib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ferhpo.errors import DataError

MAX_LISTED = 5


class Faults:
    """What is wrong with one source, by kind. `noun` names the things that can be broken: "row" or "file"."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._first: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}

    def add(self, kind: str, sentence: str, which: str | None = None) -> None:
        """Note one fault. The first of its kind is told by `sentence`, later ones by `which` (a number or a name)."""
        if kind not in self._first:
            self._first[kind] = sentence
            self._others[kind] = []
        elif which is not None:
            self._others[kind].append(which)

    def __bool__(self) -> bool:
        return bool(self._first)

    def sentences(self) -> list[str]:
        """One sentence for each kind."""
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
    """Raise one DataError that tells every fault, if there is any; `where` is like "data.path is fer2013.csv"."""
    if sentences := [sentence for faults in collected for sentence in faults.sentences()]:
        raise DataError(where, sentences)


def is_whole(value: Any, low: int = 0) -> bool:
    """Whether a setting is a whole number of `low` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: Any) -> bool:
    """Whether a setting is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` most like `name`, or None where nothing is alike."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return found[0] if found else None


def one_of(names: Sequence[str]) -> str:
    """The names as words: "a, b or c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def existing_path(key: str, path: str | Path) -> Path:
    """The path, or DataError with the nearest name that exists in its folder. `key` is like "data.path"."""
    where = f"{key} is {path!r:.60}"
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise DataError(where, ["it must be the name of a file or folder"])
    where = f"{key} is {path}"
    try:
        found = Path(path).expanduser()
        folder, exists = found.absolute().parent, found.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be entered, ~ of no user
        raise DataError(where, [f"it cannot be looked up ({error}); give another path"]) from None
    if exists:
        if not found.is_file() and not found.is_dir():
            raise DataError(where, ["it is neither a file nor a folder"])
        if not os.access(found, os.R_OK | (os.X_OK if found.is_dir() else 0)):
            raise DataError(where, ["it may not be read; ask for the permission, or copy it"])
        return found
    if not folder.is_dir():
        raise DataError(where, [f"there is no such file, and no folder {folder}"])
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(where, [f"the folder {folder} may not be read; ask for the permission"])
    hint = nearest(found.name, (entry.name for entry in folder.iterdir()))
    remedy = f"did you mean {hint}?" if hint else f"nothing in {folder} has a name like it"
    raise DataError(where, [f"there is no such file; {remedy}"])
