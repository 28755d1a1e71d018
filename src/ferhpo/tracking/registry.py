"""The model registry: versions of a model, and the aliases that say which version is in use.

Note: MLflow overwrites an alias without comparing it to its previous value, so of two concurrent promotions one could
be lost silently. With a SQLite store a file lock serializes the promotions of one machine; with every store the alias
is read again after it was set.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.components.description import DIGEST_TAG
from ferhpo.errors import TrackingError
from ferhpo.parse import ParseError, parse_json
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.store import connect, file_lock, outages, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_ALIAS = "champion"
WEIGHTS_TAG = "ferhpo.weights_sha256"
_MODEL_TAG = "ferhpo.model_id"
_VERSIONS_TAG = "mlflow.modelVersions"


class ModelGone(TrackingError):  # noqa: N818 - a state, which `sync` repairs
    """A logged model was deleted in MLflow."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    model_id: str | None
    created: datetime
    tags: Mapping[str, str]
    description: str


def register(
    settings: TrackingSettings, model_id: str, name: str, tags: Mapping[str, str], note: str = "", about: str = ""
) -> int:
    """Register the logged model `model_id` as a version of `name` and return the version's number.

    note: the description of the version; about: of the registered model, unless it has a description already
    A model that is registered under this name keeps its version. Raises TrackingError; ModelGone for a deleted model.
    """
    with opened_store(settings, f"register {name}") as client, lock_of(settings):
        from mlflow.exceptions import MlflowException

        try:
            model = client.get_logged_model(model_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ModelGone(
                f"cannot register {name} in {settings.shown_uri}: its model {model_id} was deleted in MLflow"
            ) from None
        try:
            client.create_registered_model(name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if about and not client.get_registered_model(name).description:
                client.update_registered_model(name, about)
        for version in _search(client, name):
            if version.tags.get(_MODEL_TAG) == model_id:
                return version.number
        digest = {key: value for key, value in model.tags.items() if key == DIGEST_TAG}
        # The source is the model's folder: a SQLite store would look up models:/<id> in MLflow's global store.
        created = client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags={**tags, **digest, _MODEL_TAG: model_id},
            description=note,
            model_id=model_id,
        )
        # MLflow's UI finds the versions of a logged model by this tag.
        links = [*_links(model.tags), {"name": name, "version": created.version}]
        client.set_logged_model_tags(model_id, {_VERSIONS_TAG: json.dumps(links)})
        return int(created.version)


def add_model(
    settings: TrackingSettings,
    run_id: str,
    model_dir: Path,
    mark: str,
    title: str,
    name: str,
    tags: Mapping[str, str],
    note: str,
    about: str,
) -> int:
    """Log the exported model in `model_dir` under a run that has ended, and register it; return its version.

    mark: unique to this model, which is not logged again; title: of the logged model
    The others are those of `register`. Raises TrackingError.
    """
    from ferhpo.tracking.models import log_model

    with opened_store(settings, f"log the model {title}") as client:
        experiment_id = client.get_run(run_id).info.experiment_id
        model_id = log_model(client, experiment_id, run_id, model_dir, mark, title)
    return register(settings, model_id, name, tags, note, about)


def _links(tags: Mapping[str, str]) -> list[Any]:
    """Return the versions that a logged model's tag names; none if the tag was changed to something else."""
    try:
        found = parse_json(tags.get(_VERSIONS_TAG, "[]"))
    except ParseError:
        return []
    return found if isinstance(found, list) else []


def versions(settings: TrackingSettings, name: str) -> list[Version]:
    """Return every version of `name`, newest first; an empty list if there is none. Raises TrackingError."""
    with opened_store(settings, f"read {name}") as client:
        return _search(client, name)


def choose(known: Sequence[Version], name: str, sweep: str, version: int | None = None) -> Version:
    """Return one of the versions of `name`: by default the newest that a sweep, or a confirmation of it, registered.

    Raises TrackingError, with the versions that exist; another sweep may have registered under the same name.
    """
    if not known:
        raise TrackingError(f"{name} has no registered version; `ferhpo sweep` registers the best trial of a sweep")
    if version is not None:
        found = next((each for each in known if each.number == version), None)
        if found is None:
            numbers = ", ".join(str(each.number) for each in reversed(known))
            raise TrackingError(f"{name} has no version {version}; existing versions: {numbers}")
        return found
    own = [each for each in known if sweep in (each.tags.get("ferhpo.sweep"), each.tags.get("ferhpo.confirms"))]
    if not own:
        registered = ", ".join(sorted({str(each.tags.get("ferhpo.sweep")) for each in known}))
        raise TrackingError(
            f"{name} has no version of sweep {sweep}, but of {registered}; name the one to promote with --version"
        )
    return own[0]


def check_alias(alias: str) -> None:
    """Raise TrackingError for an alias that MLflow reserves or does not accept."""
    if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE):
        raise TrackingError(
            f"alias is {alias}; MLflow reserves latest and v<number>; choose another, e.g. {DEFAULT_ALIAS}"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise TrackingError(
            f"alias is {alias!r}; it must consist of 1 to 255 letters, digits, - and _, e.g. {DEFAULT_ALIAS}"
        )


def find(settings: TrackingSettings, name: str, which: str) -> Version:
    """Return the version of `name` that `which` (an alias, a number or "latest") refers to.

    Raises TrackingError, with the versions and aliases that exist.
    """
    known = versions(settings, name)
    if not known:
        raise TrackingError(
            f"{name} has no registered version in {settings.shown_uri}; list the sweeps with `ferhpo runs`"
        )
    if which == "latest":
        return known[0]
    for version in known:
        if which == str(version.number) or which in version.aliases:
            return version
    numbers = ", ".join(str(version.number) for version in reversed(known))
    aliases = ", ".join(sorted(alias for version in known for alias in version.aliases)) or "none"
    raise TrackingError(f"{name} has no version or alias {which}; existing versions: {numbers}; aliases: {aliases}")


def describe_version(settings: TrackingSettings, name: str, number: int, text: str) -> None:
    """Set the description of a version, in Markdown. Raises TrackingError."""
    with opened_store(settings, f"describe {name} version {number}") as client:
        client.update_model_version(name, str(number), text)


def run_tags(settings: TrackingSettings, run_id: str) -> dict[str, str]:
    """Return the tags of a run. Raises TrackingError."""
    with opened_store(settings, f"read run {run_id}") as client:
        return dict(client.get_run(run_id).data.tags)


def note_on_run(settings: TrackingSettings, run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Add tags and metrics to a run that has ended. Raises TrackingError."""
    with opened_store(settings, f"write to run {run_id}") as client:
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        for key, number in metrics.items():
            client.log_metric(run_id, key, number)


def _search(client: "MlflowClient", name: str) -> list[Version]:
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token or None)
        found += page
        token = page.token or None
    # On some stores the search does not return aliases; the registered model has all of them.
    aliases: dict[int, list[str]] = {}
    if found:
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases.setdefault(int(number), []).append(alias)
    versions = [
        Version(
            name=name,
            number=int(v.version),
            aliases=tuple(sorted(aliases.get(int(v.version), []))),
            run_id=v.run_id,
            model_id=v.tags.get(_MODEL_TAG),
            created=datetime.fromtimestamp(v.creation_timestamp / 1000, UTC),
            tags=dict(v.tags),
            description=v.description or "",
        )
        for v in found
    ]
    return sorted(versions, key=lambda v: v.number, reverse=True)


@contextmanager
def opened_store(settings: TrackingSettings, action: str) -> Iterator["MlflowClient"]:
    """Yield a client and raise its errors as TrackingError.

    action: for the message "cannot <action>: ..."
    """
    if settings.off:
        raise TrackingError(f"cannot {action}: tracking.uri is none; the model registry needs an MLflow store")
    path = settings.sqlite_path
    if path is not None and not path.exists():
        raise TrackingError(
            f"cannot {action}: there is no MLflow store at {settings.shown_uri}; if the sweep has another one, add "
            "tracking.uri=... to the command line"
        )
    try:
        yield connect(settings)
    except TrackingError:
        raise
    except outages() as error:
        # Without the original error, whose text may contain the password.
        raise TrackingError(f"cannot {action} in {settings.shown_uri}: {reason_of(error)}") from None


def lock_of(settings: TrackingSettings) -> Any:
    """Return a context manager that serializes changes of a SQLite registry on this machine."""
    path = settings.sqlite_path
    return nullcontext() if path is None else file_lock(path.with_name(path.name + ".registry"))
