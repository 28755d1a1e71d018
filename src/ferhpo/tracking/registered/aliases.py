"""Aliases of registered models: moved in one step, with an entry in the model's audit log for each move.

MLflow overwrites an alias without comparing it with what it was, so of two promotions at once one could be lost.
Whoever moves an alias says which version it named before; if it names another one by now, nothing is moved. With a
SQLite store a file lock serializes the moves of one machine. With a server, a tag of the model is the lock: written,
read again after a while, and given up if another process has written it meanwhile.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ferhpo.errors import TrackingError
from ferhpo.parse import ParseError, parse_json, shape_fault
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registry import check_alias, lock_of, opened_store
from ferhpo.tracking.store import outages, user_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

AUDIT, MOVING = "ferhpo.audit", "ferhpo.moving"
_SETTLE_SECONDS = 0.5  # until a lock that another process wrote at the same time would be seen
_STALE_SECONDS = 60.0  # a lock this old is that of a process that was killed
_NUMBER = (int, type(None))
_SHAPE = {
    "when": str, "who": str, "action": str, "alias": str, "version": _NUMBER, "previous": _NUMBER, "about": dict,
}  # fmt: skip
_MOST_ENTRY = 4500  # characters; MLflow's limit of a tag is 5,000


@dataclass(frozen=True)
class Entry:
    """A move of an alias: when, by whom, from which version (None: it was new) to which one (None: it was deleted).

    action: "promote" or "rollback"; about: gates, purpose, commit, and the reason if it was forced
    """

    when: str
    who: str
    action: str
    alias: str
    version: int | None
    previous: int | None
    about: Mapping[str, Any]


def move(
    settings: TrackingSettings,
    name: str,
    alias: str,
    version: int,
    expected: int | None,
    action: str = "promote",
    about: Mapping[str, Any] | None = None,
) -> Entry:
    """Move an alias from the version `expected` (None: it does not exist) to `version`, and enter it in the audit log.

    Raises TrackingError if the alias names another version by now, or if another process moves it.
    """
    check_alias(alias)
    with (
        opened_store(settings, f"move {name}@{alias}") as client,
        lock_of(settings),
        _moving(client, settings, name, alias),
    ):
        current = named(client, name, alias)
        if current != expected:
            last = next(iter(_entries(client, name, alias)), None)
            by = f" by {last.who} at {last.when}" if last is not None and last.version == current else ""
            raise TrackingError(
                f"{name}@{alias} names {_shown(current)} by now{by}, and not {_shown(expected)}, with which version "
                f"{version} was compared; nothing was moved; promote again"
            )
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = Entry(when, user_name(), action, alias, version, current, dict(about or {}))
        # First the entry: an alias without one would look as if it had been moved by hand.
        client.set_registered_model_tag(name, f"{AUDIT}.{alias}.{when}", _text(entry))
        client.set_registered_model_alias(name, alias, str(version))
        found = named(client, name, alias)
        if found != version:
            raise TrackingError(f"{name}@{alias} was set to {_shown(found)} by another process; promote again")
        before = "none" if current is None else f"version {current}"
        client.set_model_version_tag(
            name, str(version), f"ferhpo.promoted.{alias}", f"{when} by {entry.who}, before: {before}"
        )
        return entry


def entries(settings: TrackingSettings, name: str, alias: str | None = None) -> list[Entry]:
    """Return the audit log of a model, newest first. Raises TrackingError."""
    with opened_store(settings, f"read the audit log of {name}") as client:
        return _entries(client, name, alias)


def moved_by_hand(settings: TrackingSettings, name: str) -> list[str]:
    """Return a sentence for each alias that names another version than its last entry says. Raises TrackingError."""
    with opened_store(settings, f"read {name}") as client:
        aliases = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
        last: dict[str, Entry] = {}
        for entry in _entries(client, name, None):
            last.setdefault(entry.alias, entry)
    return [
        f"{name}@{alias} names {_shown(aliases.get(alias))}, but ferhpo moved it to version {entry.version} last "
        f"({entry.when}, {entry.who}); somebody moved it without gates"
        for alias, entry in last.items()
        if aliases.get(alias) != entry.version
    ]


def named(client: "MlflowClient", name: str, alias: str) -> int | None:
    """Return the version that an alias names; None if there is none."""
    found = client.get_registered_model(name).aliases.get(alias)
    return None if found is None else int(found)


def _entries(client: "MlflowClient", name: str, alias: str | None) -> list[Entry]:
    prefix = f"{AUDIT}." if alias is None else f"{AUDIT}.{alias}."
    tags = client.get_registered_model(name).tags
    found = [entry for key, text in tags.items() if key.startswith(prefix) and (entry := _read(text)) is not None]
    return sorted(found, key=lambda entry: entry.when, reverse=True)


def _read(text: str) -> Entry | None:
    """Return an entry, None for a tag that somebody else wrote."""
    try:
        values = parse_json(text)
    except ParseError:
        return None
    return None if shape_fault(values, _SHAPE) or set(values) != set(_SHAPE) else Entry(**values)


def _text(entry: Entry) -> str:
    text = json.dumps(entry.__dict__)
    return text if len(text) <= _MOST_ENTRY else json.dumps({**entry.__dict__, "about": {"shortened": True}})


@contextmanager
def _moving(client: "MlflowClient", settings: TrackingSettings, name: str, alias: str) -> Iterator[None]:
    """Hold the lock of an alias on a server. A SQLite store has a file lock instead."""
    if settings.sqlite_path is not None:
        yield
        return
    key, token = f"{MOVING}.{alias}", f"{time.time():.3f} {secrets.token_hex(8)} {user_name()}"
    _refuse_held(client, name, key)
    lost = f"another promotion of {name}@{alias} began at the same time; promote again"
    try:
        client.set_registered_model_tag(name, key, token)
    except outages():  # of two inserts at once, a server's database refuses one
        if client.get_registered_model(name).tags.get(key, token) != token:
            raise TrackingError(lost) from None
        raise
    time.sleep(_SETTLE_SECONDS)
    if client.get_registered_model(name).tags.get(key) != token:
        raise TrackingError(lost)
    try:
        yield
    finally:
        with suppress(*outages()):
            if client.get_registered_model(name).tags.get(key) == token:
                client.delete_registered_model_tag(name, key)


def _refuse_held(client: "MlflowClient", name: str, key: str) -> None:
    held = client.get_registered_model(name).tags.get(key, "")
    began = held.partition(" ")[0]
    with suppress(ValueError):
        if held and abs(time.time() - float(began)) < _STALE_SECONDS:
            raise TrackingError(f"another promotion of this alias of {name} is under way; promote again in a minute")


def _shown(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
