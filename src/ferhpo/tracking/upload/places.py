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
    return get_artifact_repository(location, tracking_uri=client.tracking_uri)


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
    if fault := _form_fault(location):
        return fault
    address = urlsplit(location)
    if address.scheme in _REFERENCES:
        return f"the store says to write to {location}, which is a reference; only places are accepted"
    if address.scheme not in ("", "file"):
        return fault_of_server(location, store_uri)
    path = Path(unquote(address.path) if address.scheme else location)
    is_id = re.fullmatch(r"(m-)?[0-9a-f]{32}", owner) and address.hostname in (None, "localhost")
    if not is_id or path.parts[-2:] != (owner, "artifacts") or ".." in PurePosixPath(unquote(location)).parts:
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
    if fault := _form_fault(location):
        return fault
    address = urlsplit(location)
    if address.scheme not in _SENT or (address.scheme == "mlflow-artifacts" and not address.netloc):
        return ""
    if address.netloc == urlsplit(store_uri).netloc:
        return ""
    fault = server_fault(f"http://{address.netloc}")
    return f"the store names {location} as a place of artifacts; {fault}" if fault else ""


def _form_fault(location: str) -> str:
    """Return why a location is refused by its form: libraries would read its server differently."""
    scheme, colon, rest = location.partition(":")
    if not colon or scheme.lower() not in _SENT:
        return ""
    server = re.match(r"//([^/?#]*)", rest)
    is_uncertain = re.search(r"[\\\x00-\x20]", location) or (server is not None and "@" in server[1])
    if is_uncertain or (scheme.lower() != "mlflow-artifacts" and (server is None or not server[1])):
        return f"the store names {location!r}, whose server is not certain; nothing is sent there"
    return ""
