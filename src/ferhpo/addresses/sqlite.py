"""Open SQLite files that may come from anyone: views, triggers and expressions in them run when they are read."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_SECONDS = 60.0
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock
# MLflow makes no views and no virtual tables. It makes triggers and computed columns, but none for these tables, the
# ones of what ferhpo records and reads.
_USED = (
    "experiments", "experiment_tags", "runs", "tags", "params", "metrics", "latest_metrics", "datasets", "inputs",
    "input_tags", "logged_models", "logged_model_tags", "logged_model_params", "logged_model_metrics",
    "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags",
    "alembic_version", "workspaces",
)  # fmt: skip
_FOREIGN = f"""
WITH used AS (SELECT * FROM sqlite_master WHERE lower(tbl_name) IN {_USED})
SELECT type || ' ' || name FROM sqlite_master WHERE type = 'view' OR (type = 'table' AND rootpage = 0)
UNION ALL SELECT 'trigger ' || name FROM used WHERE type NOT IN ('table', 'index')
UNION ALL SELECT 'computed column ' || x.name FROM used, pragma_table_xinfo(used.name) AS x
    WHERE used.type = 'table' AND x.hidden <> 0
UNION ALL SELECT 'index ' || used.name FROM used, pragma_index_xinfo(used.name) AS x
    WHERE used.type = 'index' AND x.cid = -2
LIMIT 1
"""


@contextmanager
def opened_sqlite(
    path: Path, wait_seconds: float, read_only: bool = True, most_seconds: float = MOST_SECONDS
) -> Iterator[sqlite3.Connection]:
    """Yield a connection that is closed at the end, and whose statements end with sqlite3.OperationalError in time.

    wait_seconds: for the lock of another process; most_seconds: for all statements together
    """
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=wait_seconds)
    deadline = time.monotonic() + most_seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        yield connection
    finally:
        connection.close()


def content_fault(path: Path) -> str:
    """Return what a SQLite file has besides plain tables and indexes, which could run forever; empty if nothing.

    A file that is no database, or does not exist, has nothing; whoever opens it says so.
    """
    try:
        if not path.is_file() or not path.stat().st_size:
            return ""
        # Not read-only: SQLite refuses to read a file that a kill left half written, but repairs it for MLflow.
        with opened_sqlite(path, wait_seconds=5, read_only=False, most_seconds=5) as database:
            found = database.execute(_FOREIGN).fetchone()
    except (OSError, sqlite3.Error) as error:
        return "it cannot be read in time" if "interrupted" in str(error) else ""
    return f"it has the {found[0]!s:.100}" if found else ""
