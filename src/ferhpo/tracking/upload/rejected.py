"""rejected.jsonl, in a sweep's folder: which of its records MLflow does not have, and why.

An entry has the `seq` of its record, its `kind` and the `reason`. Its kind is metric, param or tag for a single value,
otherwise that of the record. An entry with `set_aside` failed again and again while the store accepted other records;
the others were refused by MLflow. `ferhpo sync` tries all of them again, and removes those that succeed.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ferhpo.addresses.secrets import redact
from ferhpo.parse import parse_json
from ferhpo.text import plural

log = logging.getLogger("ferhpo.tracking")

REJECTED = "rejected.jsonl"
VALUES = ("metric", "param", "tag")  # the kinds of entries that are a single value of a record
Entry = dict[str, Any]


class Rejected:
    """The rejected.jsonl of one sweep. Adding an entry twice has the same result as adding it once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / REJECTED
        self.warned: set[tuple[str, str | None]] = set()
        self._held: list[Entry] | None = None
        self.set_aside_runs = {str(entry.get("run")) for entry in self.entries() if entry.get("set_aside")}

    def entries(self) -> list[Entry]:
        """Return all entries; a damaged line is skipped."""
        return read_rejected(self.path.parent) if self._held is None else self._held

    def hold(self, entries: Sequence[Entry]) -> None:
        """Collect in memory from now on, starting with `entries`; `replace` writes the file."""
        self._held = list(entries)

    def add(self, what: str, reason: str, entries: Sequence[Entry]) -> None:
        """Append refused values, files or records; warn once for each run and for each reason.

        what: the subject of the warning
        """
        known = {_line(entry) for entry in self.entries()}
        new = [
            entry for entry in ({**entry, "reason": redact(reason)} for entry in entries) if _line(entry) not in known
        ]
        self.set_aside_runs |= {str(entry.get("run")) for entry in new if entry.get("set_aside")}
        if not new:
            return
        if self._held is not None:
            self._held += new
            return
        with self.path.open("a") as file:
            file.writelines(f"{_line(entry)}\n" for entry in new)
        topics = {(entries[0]["kind"], entries[0].get("run")), (entries[0]["kind"], reason)}
        if topics.isdisjoint(self.warned):
            log.warning("tracking: cannot upload %s: %s; recorded in %s", redact(what), redact(reason), self.path)
        self.warned |= topics

    def replace(self, entries: Sequence[Entry]) -> None:
        """Replace all entries on disk; without any, the file is removed."""
        self._held = None
        if not entries:
            self.path.unlink(missing_ok=True)
        else:
            partial = self.path.with_suffix(".partial")
            with partial.open("w") as file:
                file.writelines(f"{_line(entry)}\n" for entry in entries)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        self.set_aside_runs = {str(entry.get("run")) for entry in entries if entry.get("set_aside")}


def read_rejected(folder: Path) -> list[Entry]:
    """Return the entries of a sweep's rejected.jsonl; a damaged line is skipped."""
    path = folder / REJECTED
    entries = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            entry = parse_json(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def rejected_text(folder: Path, command: str) -> str:
    """Return a sentence about what of a sweep MLflow does not have; empty if it has everything.

    command: what the user can type to try again
    """
    entries = read_rejected(folder)
    aside = [entry for entry in entries if entry.get("set_aside")]
    parts = []
    if num_refused := len(entries) - len(aside):
        parts.append(f"MLflow refused {num_refused} values or files")
    if aside:
        parts.append(f"{plural(len(aside), 'record')} could not be uploaded ({aside[-1].get('reason')})")
    if not parts:
        return ""
    return f"{' and '.join(parts)}; they are kept in {folder / REJECTED}; try again with: {command}"


def _line(entry: Entry) -> str:
    return redact(json.dumps(entry))
