"""Where artifacts are written and read. MLflow's client takes whatever place the store names.

A store may be someone else's (in a copied folder, or a server), and could name any folder of this machine, such as one
that Python imports from. MLflow itself only ever chooses <experiment>/<run id>/artifacts and <experiment>/models/
<model id>/artifacts, and no file in such a folder means anything to another program. So no other place is accepted.
A store that the user did not name may only name places of its own: in the folder of a SQLite file, or on the server.
What is read are single files with a limit, never a folder.

Note: functions import MLflow when they are called, because the import takes seconds.
"""

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ferhpo.addresses.secrets import redact_address
from ferhpo.addresses.trust import STORE, is_trusted, naming, server_fault
from ferhpo.disk import fault_of_file, read_file
from ferhpo.errors import TrackingError
from ferhpo.tracking.moved import local_path
from ferhpo.tracking.settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_REFERENCES, MOST_FILES = 5, 1000
_REFERENCES = ("runs", "models")  # the store would be asked again, and could name another place
_SENT = ("http", "https", "mlflow-artifacts")  # MLflow adds the account and token of the environment
_AZURE = (".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net")


class PlaceError(ValueError):
    """The store names a place that MLflow itself would not choose."""


def repository(client: "MlflowClient", location: str, owner: str) -> Any:
    """Return MLflow's artifact repository at a location that the store names. Raises PlaceError.

    owner: the id of the run or model that the artifacts belong to
    """
    if fault := fault_of_place(location, owner, client.tracking_uri):
        raise PlaceError(fault)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

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


class Artifacts:
    """The files of a run or model, to be read. Raises PlaceError for a place that MLflow itself would not choose.

    location: the folder that the store names
    """

    def __init__(self, client: "MlflowClient", settings: TrackingSettings, location: str) -> None:
        self.location = location
        self.path: Path | None = None
        self.remote: Any = None
        is_local = urlsplit(location).scheme in ("", "file")
        match = re.fullmatch(r"(.*/((?:m-)?[0-9a-f]{32})/artifacts)(/.*)?", location.rstrip("/")) if is_local else None
        place, owner = (match[1], match[2]) if match else (location, "")
        if fault := fault_of_place(place, owner, settings.store_uri, "read"):
            raise PlaceError(fault)
        if is_local:
            self.path = local_path(location)
            if self.path is None or ".." in self.path.parts:
                raise PlaceError(f"the store names {location}, which leads out of its folder; nothing is read there")
            return
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self.remote = get_artifact_repository(location, tracking_uri=client.tracking_uri)

    def fetch(self, name: str, most_bytes: int, folder: Path) -> bool:
        """Copy the file `name`, a path with slashes, into a folder; return whether it exists.

        Raises TrackingError if it is larger than `most_bytes`, or is not a file.
        """
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.remote is not None:
            parent = str(PurePosixPath(name).parent)
            listed = {found.path: found for found in self.remote.list_artifacts(None if parent == "." else parent)}
            if (found := listed.get(name)) is None or found.is_dir:
                return False
            if (found.file_size or 0) <= most_bytes:
                self.remote.download_artifacts(name, str(folder))
            if (found.file_size or target.stat().st_size) > most_bytes:
                raise TrackingError(
                    f"{name} in {self.location} is larger than {most_bytes / 1e6:,.0f} MB; nothing is read"
                )
            return True
        assert self.path is not None
        source = self.path / name
        try:
            if not source.exists():
                return False
            if fault := fault_of_file(source):
                raise OSError(fault)
            target.write_bytes(read_file(source, most_bytes))
        except OSError as error:
            raise TrackingError(f"{source} cannot be read: {error.strerror or error}") from None
        return True

    def names(self) -> list[str]:
        """Return the names of all files, paths with slashes. Raises TrackingError for more than MOST_FILES of them."""
        found = sorted(self._listed())
        if len(found) > MOST_FILES:
            raise TrackingError(f"{self.location} has more than {MOST_FILES:,} files; nothing is read")
        for name in found:
            if ".." in PurePosixPath(name).parts or name.startswith("/") or re.search(r"[\x00-\x1f\\\\]", name):
                raise TrackingError(f"{self.location} has a file {name!r:.80}, which is no name in this folder")
        return found

    def _listed(self) -> Iterator[str]:
        if self.path is not None:
            yield from (
                path.relative_to(self.path).as_posix()
                for path in itertools.islice(_below(self.path), 10 * MOST_FILES)
                if path.is_symlink() or not path.is_dir()
            )
            return
        folders: list[str | None] = [None]
        while folders and len(folders) < MOST_FILES:
            for found in self.remote.list_artifacts(folders.pop()):
                if found.is_dir:
                    folders.append(found.path)
                else:
                    yield found.path


def artifacts_at(client: "MlflowClient", source: str, settings: TrackingSettings) -> Artifacts:
    """Return the artifacts at a place that a store names, with references to runs and models followed.

    Raises TrackingError for a place that must not be read.
    """
    for _ in range(MOST_REFERENCES):
        if fault := fault_of_form(source):
            raise TrackingError(fault)
        match = re.match(r"(runs|models):/+([^/]+)(/.*)?$", source)
        if match is None or (match[1] == "models" and not match[2].startswith("m-")):
            break
        of_run, owner = match[1] == "runs", match[2]
        place = client.get_run(owner).info.artifact_uri if of_run else client.get_logged_model(owner).artifact_location
        source = f"{place.rstrip('/')}{match[3] or ''}"
    try:
        return Artifacts(client, settings, source)  # refuses what is still a reference
    except PlaceError as error:
        raise TrackingError(str(error)) from None


def fault_of_place(location: str, owner: str, store_uri: str, done: str = "written") -> str:
    """Return why nothing may be written to a location that a store names, or read from it; empty if it may be.

    store_uri: the address of the store
    done: "written" or "read", for the message
    """
    if fault := fault_of_owner(location, store_uri, done):
        return fault
    if urlsplit(location).scheme not in ("", "file"):
        return ""
    path, is_id = local_path(location), re.fullmatch(r"(m-)?[0-9a-f]{32}", owner)
    if (
        path is None
        or not is_id
        or not path.is_absolute()
        or path.parts[-2:] != (owner, "artifacts")
        or ".." in path.parts
    ):
        return (
            f"the store names {location}, which is not a folder that MLflow makes "
            f"(.../{owner or 'ID'}/artifacts); nothing is {done} there"
        )
    try:
        links = [part for part in (path, path.parent, *_below(path)) if part.is_symlink()]
    except OSError as error:
        return f"{path} in the store cannot be looked through ({error.strerror or error})"
    return f"{links[0]} in the store is a link; nothing is {done} through links" if links else ""


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder. Raises OSError for what cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    for place, names, files in os.walk(folder, onerror=refuse) if folder.is_dir() else ():
        yield from (Path(place, name) for name in (*names, *files))


def fault_of_owner(location: str, store_uri: str, done: str = "written") -> str:
    """Return why a location is none that this store may name, e.g. for the artifacts of an experiment; else empty.

    No server but the store's own receives an account or a token of the environment.
    """
    if fault := fault_of_form(location):
        return fault
    address, store = urlsplit(location), urlsplit(store_uri)
    if address.scheme in _REFERENCES:
        return f"the store names {location}, which refers to another place; only places are accepted"
    is_server = store.scheme in ("http", "https")
    if is_server and address.scheme in _SENT and address.netloc in (store.netloc.rpartition("@")[2], ""):
        return ""
    if is_trusted(STORE, store_uri):
        if address.scheme == "abfss" and not address.netloc.lower().endswith(_AZURE):
            return f"the store names {location}, which would receive a token of Azure and is not a server of Azure"
        fault = server_fault(f"http://{address.netloc}") if address.scheme in _SENT and address.netloc else ""
        return f"the store names {location} as a place of artifacts; {fault}" if fault else ""
    folder, path = Path(store_uri.removeprefix("sqlite:///")).parent, local_path(location)
    with suppress(OSError, RuntimeError):  # of links that lead nowhere
        if store.scheme == "sqlite" and path is not None and path.resolve().is_relative_to(folder.resolve()):
            return ""
    own = "on this server" if is_server else f"in the folder of this store ({folder})"
    return (
        f"the store names {location}, which is not {own}; nothing is {done} there; if you trust the store, "
        f"{naming(redact_address(store_uri))}"
    )


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
    try:
        urlsplit(location)
    except ValueError:
        is_odd = True
    fault = f"the store names {location!r}, whose meaning is not certain; nothing is sent or written there"
    return fault if is_odd else ""
