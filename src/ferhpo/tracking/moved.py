"""Follow a default store (a SQLite file) that was moved or copied together with its artifacts.

Note: MLflow stores absolute paths of artifacts in the database. The folder in which the database is found is its
folder, so paths below its former artifact folder are replaced when ferhpo opens it.
"""

import logging
import re
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ferhpo.addresses.sqlite import opened_sqlite
from ferhpo.tracking.settings import TrackingSettings

log = logging.getLogger("ferhpo.tracking")

ROOT_TAG = (
    "ferhpo.artifact_root"  # of an experiment that ferhpo created: its artifact folder, which may be a former one
)
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_REFERENCE = re.compile(r"(runs|models):|mlflow-artifacts:/(?!/)")  # the last: below the folder of the store's server
_WAIT_SECONDS = 20


def follow_move(settings: TrackingSettings) -> None:
    """Replace paths below the former artifact folder in the database. Does nothing if it was not moved.

    Raises OSError if the database cannot be written.
    """
    path, root = settings.sqlite_path, settings.artifact_root
    if path is None or root is None or not path.is_file():
        return
    try:
        with opened_sqlite(path, _WAIT_SECONDS, read_only=False) as database:
            former = [
                place
                for place in _former_roots(database, settings.experiment)
                if place != root and (Path(root).exists() or not Path(place).exists())  # else only the file was copied
            ]
            if former:
                database.execute("BEGIN IMMEDIATE")
                for place in former:
                    _replace(database, place, root)
                database.commit()
                # MLflow remembers the artifact folders of runs that this process has written to.
                utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
                getattr(utils, "_artifact_repos_cache", {}).clear()
                log.warning("tracking: %s was moved; its artifacts are now in %s", path, root)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None


def location_of(settings: TrackingSettings) -> tuple[str, str] | None:
    """Return (artifact location, lifecycle stage) of the experiment in a SQLite store, None if there is none yet."""
    path = settings.sqlite_path
    if path is None or not path.is_file() or not path.stat().st_size:
        return None
    query = "SELECT artifact_location, lifecycle_stage FROM experiments WHERE name = ?"
    # A database without tables is one that MLflow has not written to yet.
    with suppress(sqlite3.Error), opened_sqlite(path, _WAIT_SECONDS, read_only=False) as database:
        row = database.execute(query, (settings.experiment,)).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))
    return None


def named_places(settings: TrackingSettings) -> list[str]:
    """Return where the runs, models and traces of a SQLite store have their artifacts, without references.

    Raises OSError if the database cannot be read.
    """
    if settings.sqlite_path is None:
        return []
    queries = [f"SELECT {column} FROM {table}" for table, column in _COLUMNS if table != "experiments"]
    places = set()
    try:
        with opened_sqlite(settings.sqlite_path, _WAIT_SECONDS) as database:
            for query in [*queries, "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation'"]:
                try:
                    places |= {str(place) for (place,) in database.execute(query) if place}
                except sqlite3.OperationalError as error:
                    if "no such " not in str(error):  # an MLflow version without this table
                        raise
    except sqlite3.Error as error:
        raise OSError(f"{settings.sqlite_path}: {error}") from None
    return sorted(place for place in places if not _REFERENCE.match(place))


def local_path(location: str) -> Path | None:
    """Return the folder of an artifact location on this machine, None if it is elsewhere."""
    address = urlsplit(location)
    if address.scheme == "file" and address.hostname in (None, "localhost"):
        return Path(unquote(address.path))
    return Path(location) if not address.scheme else None


def _former_roots(database: sqlite3.Connection, experiment: str) -> set[str]:
    """Return the artifact folders of the experiments that ferhpo created in this database, as it was then."""
    tagged = database.execute("SELECT value FROM experiment_tags WHERE key = ?", (ROOT_TAG,)).fetchall()
    places = {str(row[0]) for row in tagged}
    query = "SELECT artifact_location FROM experiments WHERE name = ? AND experiment_id NOT IN "
    query += "(SELECT experiment_id FROM experiment_tags WHERE key = ?)"
    for (location,) in database.execute(query, (experiment, ROOT_TAG)):
        # Created by an earlier version, always as artifacts/ beside the database: moved if neither is there any more.
        place = local_path(str(location))
        is_former = place is not None and place.is_absolute() and place.name == "artifacts"
        if place is not None and is_former and not place.exists() and not (place.parent / "mlflow.db").exists():
            places.add(str(location))
    return places


def _replace(database: sqlite3.Connection, place: str, root: str) -> None:
    for table, column in _COLUMNS:
        for old in {place, f"file://{place}"}:
            with suppress(sqlite3.OperationalError):  # an MLflow version without this table
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (root, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    database.execute("UPDATE experiment_tags SET value = ? WHERE key = ? AND value = ?", (root, ROOT_TAG, place))
