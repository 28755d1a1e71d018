"""Check before a sweep that its MLflow store can be used: every kind of call, and a small artifact.

Note: functions import MLflow when they are called, because the import takes seconds. A SQLite file is checked without
it; the shipper's thread creates its tables later.
"""

import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ferhpo.addresses.secrets import NOT_KNOWN, redact_error
from ferhpo.errors import TrackingError
from ferhpo.tracking.moved import follow_move, local_path, location_of
from ferhpo.tracking.settings import TrackingSettings, model_name_fault
from ferhpo.tracking.store import (
    CHECK_SECONDS,
    connect,
    deleted_experiment,
    load_mlflow,
    open_experiment,
    outages,
    reason_of,
    remedy_of,
    trust_fault,
)
from ferhpo.tracking.upload.places import fault_of_owner
from ferhpo.tracking.upload.shipped import SHIPPED, run_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ALL_SECONDS = 60  # for all calls together; storage behind a server may try again for minutes
_FILE = "ferhpo-check.txt"  # the small artifact, which is removed again
_NUM_ATTEMPTS = 3  # of a call whose connection is lost
_NO_RUN, _NO_MODEL = "0" * 32, "m-" + "0" * 32  # ids that do not exist: a server that has the API says so


def check_store(settings: TrackingSettings, model_name: str | None = None, *, read_only: bool = False) -> str | None:
    """Check before a sweep that the store can be used. Returns None if it can, or if tracking is disabled.

    model_name: the name that the sweep's model will have in the registry; not checked without it
    read_only: ask only whether a SQLite file or a server is there, and make nothing
    Otherwise raises TrackingError if `tracking.required`, else returns the reason.
    """
    if settings.off:
        return None
    if model_name is not None and (fault := model_name_fault(model_name)):
        raise TrackingError(
            f"the model's name in the registry is {model_name}; {fault}; set tracking.registered_model_name=..."
        )
    if fault := trust_fault(settings):
        raise TrackingError(fault)
    remedy = ""
    if settings.lacks_password:
        reason: str | None = NOT_KNOWN
    elif settings.sqlite_path:
        reason = _sqlite_fault(settings, settings.sqlite_path, read_only)
    else:
        reason, remedy = _in_time(lambda: _server_fault(settings, model_name, read_only))
    if reason is None or not settings.required:
        return reason if not reason or not remedy else f"{reason}; {remedy}"
    remedy = remedy or ("start the server" if reason.startswith("no response") else "correct tracking.uri")
    raise TrackingError(
        f"tracking.uri is {settings.shown_uri}: {reason}{'' if reason == NOT_KNOWN else f'; {remedy}'}, or set "
        "tracking.required=false to record to the spool and upload later with `ferhpo sync NAME`"
    )


def refuse_lost_store(folder: Path, settings: TrackingSettings) -> None:
    """Raise TrackingError if a SQLite file that had records of the sweep in `folder` is not there any more.

    Otherwise an empty store would be made in its place.
    """
    path = settings.sqlite_path
    if path is not None and not path.exists() and run_of(folder, settings, None) is not None:
        raise TrackingError(
            f"tracking.uri is {settings.shown_uri}: this file does not exist any more, and it had records of this "
            f"sweep; restore it, set tracking.uri=... to its new place, or delete {folder / SHIPPED} to upload all "
            "records to a new store"
        )


def _in_time(check: Callable[[], tuple[str | None, str]]) -> tuple[str | None, str]:
    """Return what `check` returns, or that it takes too long."""
    results: list[tuple[str | None, str]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(check())
        except BaseException as error:  # raised below, in the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, name="ferhpo-check", daemon=True)
    thread.start()
    thread.join(ALL_SECONDS)
    if errors:
        raise errors[0]
    return results[0] if results else (f"no response within {ALL_SECONDS} s (to write an artifact)", "")


def _server_fault(settings: TrackingSettings, model_name: str | None, read_only: bool) -> tuple[str | None, str]:
    """Return what is wrong with a server or a database, and what to do."""
    load_mlflow()
    from mlflow.exceptions import RestException
    from sqlalchemy.exc import ArgumentError

    action = ""
    try:
        client = connect(settings, CHECK_SECONDS)
        if read_only:
            client.get_experiment_by_name(settings.experiment)
            return None, ""
        experiment_id = open_experiment(client, settings)
        for action, call in _calls(client, experiment_id, model_name).items():  # noqa: B007 - used below
            _ask(call)
        action = "write an artifact"
        return _artifact_fault(settings, str(client.get_experiment(experiment_id).artifact_location))
    except (ImportError, ArgumentError) as error:
        return f"the driver for this database is not installed ({redact_error(str(error))})", ""
    except TrackingError:
        raise  # a deleted experiment, or a place that the store may not name
    except outages() as error:
        reason, remedy = reason_of(error), remedy_of(error)
        is_response = isinstance(error, RestException | ValueError) or re.match(
            r"error code|\d+ error|not in a", reason
        )
        if not action and not is_response and not remedy:
            return f"no response within {CHECK_SECONDS} s ({reason})", ""
        if action and _is_missing(error):
            return f"the server cannot {action} ({reason})", "use a server of MLflow 3"
        return f"the server responds with an error{f' to: {action}' if action else ''} ({reason})", remedy


def _calls(client: "MlflowClient", experiment_id: str, model_name: str | None) -> dict[str, Callable[[], Any]]:
    """Return a call of every API that a sweep uses. They change nothing but a tag of the experiment."""
    from mlflow.entities import DatasetInput, LoggedModelOutput, RunTag

    tag = [RunTag("ferhpo.check", "")]
    inputs: list[DatasetInput] = []
    calls: dict[str, Callable[[], Any]] = {
        "change an experiment": lambda: client.set_experiment_tag(experiment_id, "ferhpo.checked", "by ferhpo"),
        "search runs": lambda: client.search_runs([experiment_id], max_results=1),
        "log metrics": lambda: client.log_batch(_NO_RUN, tags=tag, synchronous=True),
        "log data sets": lambda: client.log_inputs(_NO_RUN, inputs),
        "change runs": lambda: client.update_run(_NO_RUN, status="RUNNING"),
        "search models": lambda: client.search_logged_models([experiment_id], max_results=1),
        "finish models": lambda: client.finalize_logged_model(_NO_MODEL, "READY"),
        "log models": lambda: client.log_outputs(_NO_RUN, [LoggedModelOutput(_NO_MODEL, 0)]),
    }
    if model_name is not None:
        calls["read the model registry"] = lambda: client.get_registered_model(model_name)
    return calls


def _ask(call: Callable[[], Any]) -> None:
    """Call an API with an id that does not exist; raises unless the server has the API and lets this account use it."""
    from mlflow.exceptions import MlflowException, RestException

    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            call()
            return
        except MlflowException as error:
            is_response = isinstance(error, RestException) or _is_missing(error)
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and not _is_missing(error):
                return
            if is_response or attempt == _NUM_ATTEMPTS:  # a response that was lost on the way is requested again
                raise


def _is_missing(error: Exception) -> bool:
    """Return whether a server of an earlier version does not have an API: its response is not JSON."""
    return getattr(error, "error_code", "") == "ENDPOINT_NOT_FOUND" or "error code 404" in str(error)


def _artifact_fault(settings: TrackingSettings, location: str) -> tuple[str | None, str]:
    """Write a small artifact into an experiment's location and remove it; return what is wrong, and a remedy."""
    if refusal := fault_of_owner(location, settings.store_uri):
        raise TrackingError(refusal)
    place = local_path(location)
    if place is not None:
        is_near = urlsplit(settings.store_uri).hostname in (None, *LOOPBACK) or settings.artifact_root is not None
        fault = _folder_fault(place, may_create=is_near)
        remedy = "start the server with --serve-artifacts, or mount that folder on this machine"
        return (None, "") if fault is None else (f"artifacts cannot be written to {place} ({fault})", remedy)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(location, tracking_uri=settings.store_uri)
    with tempfile.TemporaryDirectory(prefix="ferhpo-check-") as folder:
        path = Path(folder) / _FILE
        path.write_text("Written and removed by ferhpo to check that artifacts can be stored here.\n")
        try:
            repository.log_artifact(str(path))
        except Exception as error:  # of whatever library the storage needs
            if isinstance(error, ImportError):
                return f"artifacts cannot be written to {location} ({error})", "install that package"
            remedy = remedy_of(error) or "check the account and the storage of the server's artifacts"
            return f"artifacts cannot be written to {redact_error(location)} ({reason_of(error)})", remedy
    with suppress(Exception):  # not every account may remove; the next check replaces the file
        repository.delete_artifacts(_FILE)
    return None, ""


def _folder_fault(folder: Path, may_create: bool) -> str | None:
    """Return why files cannot be written into a folder on this machine. Whatever is created here is removed again."""
    if not may_create and not folder.exists() and not folder.parent.exists():
        return "it does not exist on this machine"
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".ferhpo-check-") as file:
            file.write(b"ferhpo")
            file.flush()
    except OSError as error:
        return str(error.strerror or error).lower()
    return None


def _sqlite_fault(settings: TrackingSettings, path: Path, read_only: bool) -> str | None:
    if read_only:
        return None if path.is_file() and os.access(path, os.R_OK) else "the database does not exist yet"
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
    found = location_of(settings)
    if found is not None and found[1] != "active":
        raise deleted_experiment(settings.experiment)
    with suppress(OSError):  # a database of another version of MLflow; connecting says so
        follow_move(settings)
    found = location_of(settings)
    if found is not None and (refusal := fault_of_owner(found[0], settings.store_uri)):
        raise TrackingError(refusal)
    place = Path(str(settings.artifact_root)) if found is None else local_path(found[0])
    fault = None if place is None else _folder_fault(place, may_create=True)
    return None if fault is None else f"artifacts cannot be written to {place} ({fault})"
