"""Connect to the MLflow store, check it before a sweep, and name its errors.

Note: functions import MLflow when they are called, because the import takes seconds.
"""

import fcntl
import getpass
import logging
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ferhpo.errors import TrackingError
from ferhpo.tracking.secrets import NOT_KNOWN, redact_error
from ferhpo.tracking.settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECK_SECONDS = 5
_loading = threading.Lock()
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def check_store(settings: TrackingSettings) -> str | None:
    """Check before a sweep that the store can be used. Returns None if it can, or if tracking is disabled.

    Otherwise raises TrackingError if `tracking.required`, else returns the reason. A SQLite file is checked without
    MLflow; the shipper's thread creates its tables later.
    """
    if settings.off:
        return None
    if settings.lacks_password:
        reason: str | None = NOT_KNOWN
    else:
        reason = _sqlite_fault(settings.sqlite_path) if settings.sqlite_path else _server_fault(settings)
    if reason is None or not settings.required:
        return reason
    remedy = "; start the server" if reason.startswith("no response") else "; correct tracking.uri"
    raise TrackingError(
        f"tracking.uri is {settings.shown_uri}: {reason}{'' if reason == NOT_KNOWN else remedy}, or set "
        "tracking.required=false to record to the spool and upload later with `ferhpo sync NAME`"
    )


def connect(settings: TrackingSettings, timeout_seconds: int = 30) -> "MlflowClient":
    """Return a client of the store. Creates a SQLite database that does not exist. Raises MLflow's errors and OSError.

    timeout_seconds: of every request to a server
    """
    set_environment(timeout_seconds)
    address = urlsplit(settings.store_uri)
    port = address.port or _DATABASE_PORTS.get(address.scheme.split("+")[0])
    if address.hostname and port and not address.scheme.startswith("http"):
        # MLflow would retry an unreachable database for minutes, and print a traceback each time.
        socket.create_connection((address.hostname, port), timeout_seconds).close()
    load_mlflow()
    from mlflow import MlflowClient

    if settings.sqlite_path is None:
        return MlflowClient(settings.store_uri, settings.store_uri)
    # The journal mode is MLflow's default. WAL uploaded 200 trials of 20 epochs in 16.8 s instead of 20.3 s (26.6 and
    # 31.8 s with a concurrent reader), but breaks if two machines share the folder.
    with file_lock(settings.sqlite_path):  # two processes that create the tables at once would damage them
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        if not settings.sqlite_path.exists() or settings.sqlite_path.stat().st_size == 0:
            _make_database(settings.sqlite_path)
        client = MlflowClient(settings.store_uri, settings.store_uri)
        client.get_experiment_by_name(settings.experiment)
        return client


def open_experiment(client: "MlflowClient", settings: TrackingSettings) -> str:
    """Return the id of the experiment, and create it if it does not exist.

    Raises TrackingError if it was deleted in MLflow's UI.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        try:
            return str(client.create_experiment(settings.experiment, settings.artifact_root))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another sweep has just created it
                raise
            experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment is {settings.experiment}; this experiment was deleted; restore it in the MLflow UI "
            "or choose another name"
        )
    return str(experiment.experiment_id)


def load_mlflow() -> None:
    """Import MLflow in one thread at a time: after two concurrent imports, both may be incomplete."""
    with _loading:
        import mlflow  # noqa: F401


def set_environment(timeout_seconds: int) -> None:
    """Make MLflow's HTTP client fail fast and never retry.

    By default a call to an unreachable server blocks for minutes, and a retried create_run can create a second run.
    MLflow reads these variables at each call.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_seconds)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def reason_of(error: BaseException) -> str:
    """Return a short reason for an error, without passwords."""
    text = str(error)
    match = (
        re.search(r"\[Errno -?\d+\] ([\w ,]+)", text)
        or re.search(r"too many (\d+ error) responses", text)
        or re.search(r"(?i)(timed out|database is locked|remote end closed connection|connection reset)", text)
        or re.search(r"(?i)(error code \d+|not in a valid JSON format)", text)
    )
    reason = match[1].lower() if match else (text.strip().splitlines() or [type(error).__name__])[0]
    return redact_error(reason)[:200]


def outages() -> tuple[type[Exception], ...]:
    """Return the exceptions that an unavailable store raises through MLflow's client: the call is worth repeating."""
    load_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ValueError: some of MLflow's calls got an HTML page instead of JSON
    return MlflowException, SQLAlchemyError, OSError, ValueError, TrackingError, ImportError


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Wait for the lock `<path>.lock`, and hold it against other processes of this machine."""
    lock_fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


def _server_fault(settings: TrackingSettings) -> str | None:
    load_mlflow()
    from mlflow.exceptions import RestException
    from sqlalchemy.exc import ArgumentError

    try:
        open_experiment(connect(settings, CHECK_SECONDS), settings)
    except (ImportError, ArgumentError) as error:
        return f"the driver for this database is not installed ({redact_error(str(error))})"
    except TrackingError:
        raise  # a deleted experiment
    except outages() as error:
        reason = reason_of(error)
        if isinstance(error, RestException | ValueError) or re.match(r"error code|\d+ error|not in a", reason):
            return f"the server responds with an error ({reason})"
        return f"no response within {CHECK_SECONDS} s ({reason})"
    return None


def _make_database(path: Path) -> None:
    """Let MLflow create its tables in a temporary file, then rename it to `path`.

    Creating the tables takes seconds, and MLflow cannot open a database in which a kill left only some of them.
    """
    from mlflow import MlflowClient

    temporary = path.with_name(f".{path.name}.new")
    for left_over in path.parent.glob(f"{temporary.name}*"):  # after a kill, with SQLite's journal
        left_over.unlink()
    uri = f"sqlite:///{temporary}"
    MlflowClient(uri, uri).search_experiments(max_results=1)
    temporary.replace(path)


def _sqlite_fault(path: Path) -> str | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=CHECK_SECONDS)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE ferhpo_probe (a INTEGER)")
            connection.rollback()
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        return f"the database cannot be written ({reason_of(error)})"
    return None


def user_name() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
