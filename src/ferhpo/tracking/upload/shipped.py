"""spool.shipped.json, in a sweep's folder: how far its spool was uploaded, and the ids that MLflow assigned."""

import json
import os
import sqlite3
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ferhpo.addresses.sqlite import opened_sqlite
from ferhpo.parse import parse_json
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import last_seq
from ferhpo.tracking.upload.keys import key_of

SHIPPED = "spool.shipped.json"
_SQLITE = "sqlite:///"
_WAIT_SECONDS = 20


@dataclass
class Shipped:
    """The upload position of a spool: what one store has, and the ids that MLflow assigned.

    path: spool.shipped.json, which holds the other fields
    store, experiment: where the records were uploaded; the address without its password
    seq, offset: the last uploaded record, and the byte after it
    runs: run ids by their keys (keys.py)
    models: ids of logged models, by the key of their run
    in_doubt: keys of runs that the store may have created twice
    """

    path: Path
    store: str
    experiment: str
    seq: int = 0
    offset: int = 0
    experiment_id: str | None = None
    sweep_id: str | None = None
    sweep_name: str | None = None
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    in_doubt: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, store: str, experiment: str) -> "Shipped":
        """Read the position in `folder`; it is the start of the spool if the file is missing or for another store.

        Uploading records again does not change what the store has of them already.
        """
        path = folder / SHIPPED
        try:
            content = parse_json(path.read_text())
        except (OSError, ValueError, RecursionError):
            content = {}
        if not _is_position(content) or content["experiment"] != experiment:
            return cls(path, store, experiment)
        if content["store"] != store and not _has_run(store, content.get("runs", {}).get("")):
            return cls(path, store, experiment)
        known = {each.name for each in fields(cls)} - {"path", "store"}
        return cls(path, store, **{key: value for key, value in content.items() if key in known})

    def name_of(self, run: str) -> str:
        """Return the name of a run in MLflow, given by its key, e.g. demo-007."""
        number, _, fold = run.partition("/")
        return "-".join(part for part in (self.sweep_name, f"{int(number):03d}" if number else "", fold) if part)

    def mark_of(self, run: str) -> str:
        """Return the value of a run's tag `ferhpo.trial`, which identifies it in the store."""
        return f"{self.sweep_id}/{run or 'parent'}"

    def save(self) -> None:
        """Replace the file atomically."""
        values = {key: value for key, value in asdict(self).items() if key != "path"}
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def num_unshipped(folder: Path, settings: TrackingSettings) -> int:
    """Return how many records of a sweep are not in MLflow yet. Safe while the sweep runs."""
    if settings.off:
        return 0
    # The upload position first: if both advance between the two reads, the difference must not become negative.
    shipped = Shipped.load(folder, settings.shown_uri, settings.experiment).seq
    last = last_seq(folder)
    return last - shipped if shipped <= last else last  # a later position belongs to another spool


def _is_position(content: Any) -> bool:
    """Return whether the content of spool.shipped.json is as `Shipped.save` writes it; other fields are ignored."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("store", "experiment")):
        return False
    numbers = [content.get("seq", 0), content.get("offset", 0)]
    texts = [content.get(key) for key in ("experiment_id", "sweep_id", "sweep_name")]
    ids = [content.get("runs", {}), content.get("models", {})]
    return (
        all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
        and all(text is None or isinstance(text, str) for text in texts)
        and all(isinstance(each, dict) and all(isinstance(value, str) for value in each.values()) for each in ids)
        and isinstance(content.get("in_doubt", []), list)
        and all(isinstance(key, str) for key in content.get("in_doubt", []))
    )


def _has_run(store: str, run_id: object) -> bool:
    """Return whether a store is a SQLite file that has a run: that of the sweep, moved together with its folder."""
    path = Path(store.removeprefix(_SQLITE))
    if not store.startswith(_SQLITE) or not isinstance(run_id, str) or not path.is_file():
        return False
    try:
        with opened_sqlite(path, _WAIT_SECONDS) as database:
            return database.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is not None
    except sqlite3.Error:
        return False


def run_of(folder: Path, settings: TrackingSettings, number: int | None) -> str | None:
    """Return MLflow's id of a run of the sweep in `folder`, None if it was not uploaded.

    number: the trial's, or None for the parent run
    """
    shipped = Shipped.load(folder, settings.shown_uri, settings.experiment)
    return shipped.runs.get(key_of(number))
