"""Where artifacts are written. MLflow's client writes them itself, to whatever place the store names.

A store may be someone else's (in a copied folder, or a server), and could name any folder of this machine, such as one
that Python imports from. MLflow itself only ever chooses <experiment>/<run id>/artifacts and <experiment>/models/
<model id>/artifacts, and no file in such a folder means anything to another program. So no other place is accepted.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from ferhpo.addresses.trust import server_fault
from ferhpo.tracking.moved import local_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFERENCES = ("runs", "models")  # the store would be asked again, and could name another place
_SENT = ("http", "https", "mlflow-artifacts")  # MLflow adds the account and token of the environment


class PlaceError(ValueError):
    """The store names a place that MLflow itself would not choose."""


def repository(client: "MlflowClient", location: str, owner: str) -> Any:
    """Return MLflow's artifact repository at a location that the store names. Raises PlaceError.

    owner: the id of the run or model that the artifacts belong to
    """
    if fault := fault_of_place(location, owner, client.tracking_uri):
        raise PlaceError(fault)
    found = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    folder = getattr(found, "artifact_dir", None)  # of a place on this machine
    if folder is not None and Path(folder) != local_path(location):
        raise PlaceError(f"the store says to write to {location}, which MLflow takes for {folder}; nothing is written")
    return found


def log_text(place: Any, name: str, text: str) -> None:
    """Write a text into an artifact repository, as the file `name`, a path with slashes."""
    path = PurePosixPath(name)
    with tempfile.TemporaryDirectory(prefix="ferhpo-text-") as folder:
        file = Path(folder) / path.name
        file.write_text(text, encoding="utf-8")
        place.log_artifact(str(file), None if str(path.parent) == "." else str(path.parent))


def fault_of_place(location: str, owner: str, store_uri: str) -> str:
    """Return why nothing may be written to a location that a store names; empty if it may be.

    store_uri: the address of the store
    """
    if fault := fault_of_form(location):
        return fault
    if urlsplit(location).scheme not in ("", "file"):
        return fault_of_server(location, store_uri)
    path, is_id = local_path(location), re.fullmatch(r"(m-)?[0-9a-f]{32}", owner)
    if (
        path is None
        or not is_id
        or not path.is_absolute()
        or path.parts[-2:] != (owner, "artifacts")
        or ".." in path.parts
    ):
        return (
            f"the store says to write to {location}, which is not a folder that MLflow makes (.../{owner}/artifacts); "
            "nothing is written there"
        )
    try:
        links = [part for part in (path, path.parent, *_below(path)) if part.is_symlink()]
    except OSError as error:
        return f"{path} in the store cannot be looked through ({error.strerror or error})"
    return f"{links[0]} in the store is a link; nothing is written through links" if links else ""


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder. Raises OSError for what cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    for place, names, files in os.walk(folder, onerror=refuse) if folder.is_dir() else ():
        yield from (Path(place, name) for name in (*names, *files))


def fault_of_server(location: str, store_uri: str) -> str:
    """Return why artifacts must not be sent to, or asked from, the server of a location; empty if they may be."""
    if fault := fault_of_form(location):
        return fault
    address = urlsplit(location)
    if address.scheme in _REFERENCES:
        return f"the store names {location}, which refers to another place; only places are accepted"
    if address.scheme not in _SENT or (address.scheme == "mlflow-artifacts" and not address.netloc):
        return ""
    if address.netloc == urlsplit(store_uri).netloc:
        return ""
    fault = server_fault(f"http://{address.netloc}")
    return f"the store names {location} as a place of artifacts; {fault}" if fault else ""


def fault_of_form(location: str) -> str:
    """Return why a location is refused by its form: libraries would read its scheme, server or path differently."""
    scheme, colon, rest = location.partition(":")
    is_odd = bool(re.search(r"[\x00-\x1f\x7f]", location)) or location != location.strip()
    if colon and "/" not in scheme:
        server = (re.match(r"//([^/?#]*)", rest) or ["", ""])[1]
        is_odd |= not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or bool(re.search(r"[\s\\]", location))
        is_odd |= scheme == "file" and server not in ("", "localhost")
        is_odd |= scheme in _SENT and "@" in server
        is_odd |= scheme in ("http", "https") and not server
    else:
        is_odd |= unquote(location) != location  # MLflow would decode it
    fault = f"the store names {location!r}, whose meaning is not certain; nothing is sent or written there"
    return fault if is_odd else ""
