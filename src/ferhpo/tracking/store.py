"""Connect to the MLflow store, and name its errors and what to do about them.

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
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ferhpo.addresses.secrets import redact_error
from ferhpo.addresses.sqlite import BESIDE, content_fault, files_fault, opened_sqlite
from ferhpo.addresses.trust import STORE, is_trusted, naming, server_fault, sqlite_fault
from ferhpo.data.io.cache import cache_folder
from ferhpo.disk import is_hidden, unguessable
from ferhpo.errors import TrackingError
from ferhpo.tracking.moved import ROOT_TAG, follow_move
from ferhpo.tracking.settings import DATABASE, TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECK_SECONDS = 5
_loading = threading.Lock()
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def trust_fault(settings: TrackingSettings) -> str:
    """Return why a store that a file names must not be used (see addresses/trust.py); empty if it may be.

    A SQLite file may be if it is the default one, or is a database of MLflow already and in no hidden folder, and has
    tables only: another program may read any other name, and the names of experiments in it.
    """
    path = settings.sqlite_path
    if settings.off:
        return ""
    if path is not None and (fault := files_fault(path)):
        return f"tracking.uri is {settings.shown_uri}; {fault}"
    if is_trusted(STORE, settings.shown_uri):
        return ""
    if path is None:
        return server_fault(str(settings.uri))
    if fault := content_fault(path):
        return f"tracking.uri is {settings.shown_uri}; {fault}; if you trust the file, {naming(settings.shown_uri)}"
    if path.resolve() == settings.output_dir.resolve() / DATABASE or (_is_of_mlflow(path) and not is_hidden(path)):
        return ""
    return sqlite_fault(str(settings.uri))


def _is_of_mlflow(path: Path) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('experiments', 'alembic_version')"
    with suppress(sqlite3.Error), opened_sqlite(path.resolve(), wait_seconds=5) as database:
        return bool(database.execute(query).fetchone()[0] == 2)
    return False


def connect(settings: TrackingSettings, timeout_seconds: int = 30) -> "MlflowClient":
    """Return a client of the store. Creates a SQLite database that does not exist. Raises MLflow's errors and OSError.

    timeout_seconds: of every request to a server
    Raises TrackingError for a store that only a file names, if it is not harmless.
    """
    if fault := trust_fault(settings):
        raise TrackingError(fault)
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
        for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if not settings.sqlite_path.exists() or settings.sqlite_path.stat().st_size == 0:
            _make_database(settings.sqlite_path)
        follow_move(settings)
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
            tags = {} if settings.artifact_root is None else {ROOT_TAG: settings.artifact_root}
            return str(client.create_experiment(settings.experiment, settings.artifact_root, tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another sweep has just created it
                raise
            experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise deleted_experiment(settings.experiment)
    return str(experiment.experiment_id)


def deleted_experiment(name: str) -> TrackingError:
    """Return the error for an experiment that was deleted in MLflow."""
    return TrackingError(
        f"tracking.experiment is {name}; this experiment was deleted; restore it (`mlflow experiments restore`, or in "
        "the MLflow UI) or choose another name"
    )


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


def remedy_of(error: BaseException) -> str:
    """Return what to do about an error of a server, or of what is in front of it; empty if nothing special."""
    text = f"{error} {error.__cause__ or ''}"
    response = getattr(error, "response", None)
    found = re.search(r"error code (\d{3})|too many (\d{3}) error|^(\d{3}) (?:Client|Server) Error", text)
    status = getattr(response, "status_code", None) or int(next((g for g in found.groups() if g), 0) if found else 0)
    code = getattr(error, "error_code", "")
    proxies = ", ".join(name for name in PROXY_VARIABLES if os.environ.get(name))
    if status == 407 or "ProxyError" in text or "Unable to connect to proxy" in text:
        return f"the proxy in {proxies or 'the environment'} refuses; correct it, or add the server's host to NO_PROXY"
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or "'detail': " in text:
        return (
            "the server wants an account; give it with tracking.uri=http://USER:PASSWORD@HOST, or set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status == 403 or code == "PERMISSION_DENIED":
        return "this account may not do that; use an account that may edit the experiment and its artifacts" + (
            f", or bypass the proxy in {proxies} with NO_PROXY" if proxies and code != "PERMISSION_DENIED" else ""
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of its authority"
        )
    if "valid JSON" in text or (status in (301, 302, 404, 405) and code != "RESOURCE_DOES_NOT_EXIST"):
        return "this is not the address of an MLflow server, or a login page is in front of it; correct tracking.uri"
    if status in (502, 503, 504) and proxies:
        return f"if the proxy in {proxies} cannot reach the server, add its host to NO_PROXY"
    return ""


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
    lock_fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


def _make_database(path: Path) -> None:
    """Let MLflow create its tables in a temporary file, then rename it to `path`.

    Creating the tables takes seconds, so a copy for later stores is kept in the cache; and MLflow cannot open a
    database in which a kill left only some of them.
    """
    from mlflow import MlflowClient

    temporary = path.with_name(f".{path.name}.new")
    # After a kill. A journal without its database belongs to nothing, and would be played into the new one.
    for left_over in (temporary.name, *(name + end for name in (temporary.name, path.name) for end in BESIDE)):
        path.with_name(left_over).unlink(missing_ok=True)
    template = cache_folder(None) / f"mlflow-{version('mlflow')}.db"
    if not _copy_empty(template, temporary):
        uri = f"sqlite:///{temporary}"
        MlflowClient(uri, uri).search_experiments(max_results=1)
        with suppress(OSError):  # of a cache that cannot be written
            _copy_empty(temporary, template)
    temporary.replace(path)


def _copy_empty(source: Path, target: Path) -> bool:
    """Copy a new database of MLflow without its first experiment, which names the folder of the process that made it.

    Returns False without a copy if `source` is not such a database.
    """
    temporary = unguessable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)
        with closing(made), closing(sqlite3.connect(temporary)) as copy:
            made.backup(copy)
            copy.execute("DELETE FROM experiments WHERE experiment_id = 0")
            copy.commit()
            (num_left,) = copy.execute("SELECT (SELECT count(*) FROM experiments) + count(*) FROM runs").fetchone()
            (state,) = copy.execute("PRAGMA quick_check").fetchone()
            versions = copy.execute("SELECT * FROM alembic_version").fetchall()
        if num_left or state != "ok" or len(versions) != 1:
            return False
        temporary.replace(target)
    except sqlite3.Error:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def user_name() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
