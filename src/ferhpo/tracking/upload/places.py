"""Where artifacts are written. MLflow's client writes them itself, to whatever place the store names.

A store may be someone else's (in a copied folder, or a server), and could name any folder of this machine, such as one
that Python imports from. MLflow itself only ever chooses <experiment>/<run id>/artifacts and <experiment>/models/
<model id>/artifacts, and no file in such a folder means anything to another program. So no other place is accepted.
"""

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFERENCES = ("runs", "models")  # the store would be asked again, and could name another place


class PlaceError(ValueError):
    """The store names a place that MLflow itself would not choose."""


def repository(client: "MlflowClient", location: str, owner: str) -> Any:
    """Return MLflow's artifact repository at a location that the store names. Raises PlaceError.

    owner: the id of the run or model that the artifacts belong to
    """
    if fault := fault_of_place(location, owner):
        raise PlaceError(fault)
    return get_artifact_repository(location, tracking_uri=client.tracking_uri)


def log_text(place: Any, name: str, text: str) -> None:
    """Write a text into an artifact repository, as the file `name`, a path with slashes."""
    path = PurePosixPath(name)
    with tempfile.TemporaryDirectory(prefix="ferhpo-text-") as folder:
        file = Path(folder) / path.name
        file.write_text(text, encoding="utf-8")
        place.log_artifact(str(file), None if str(path.parent) == "." else str(path.parent))


def fault_of_place(location: str, owner: str) -> str:
    """Return why nothing may be written to a location that a store names; empty if it may be."""
    address = urlsplit(location)
    if address.scheme in _REFERENCES:
        return f"the store says to write to {location}, which is a reference; only places are accepted"
    if address.scheme not in ("", "file"):
        return ""
    path = PurePosixPath(unquote(address.path) if address.scheme else location)
    is_id = re.fullmatch(r"(m-)?[0-9a-f]{32}", owner) and address.hostname in (None, "localhost")
    if is_id and path.parts[-2:] == (owner, "artifacts") and ".." not in PurePosixPath(unquote(location)).parts:
        return ""
    return (
        f"the store says to write to {location}, which is not a folder that MLflow makes (.../{owner}/artifacts); "
        "nothing is written there"
    )
