"""The model registry: versions of a model, and the aliases that say which one is in use.

MLflow moves an alias without asking where it stood, so two promotions at once could hide each other: a lock of our own
serialises those of one machine on a SQLite store, and the alias is read again afterwards on every store.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ferhpo.errors import TrackingError
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.store import connect, file_lock, outages, reason_of, user_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

DEFAULT_ALIAS = "champion"
_MODEL_TAG = "ferhpo.model_id"


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


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved: `previous` is the version it stood at before, if any."""

    name: str
    alias: str
    version: int
    previous: int | None


def register(
    settings: TrackingSettings, model_id: str, name: str, tags: Mapping[str, str], description: str = ""
) -> int:
    """Make a version of `name` from the logged model `model_id` and return its number.

    A model that is registered there already keeps its version. Raises TrackingError.
    """
    with _store(settings, f"registering {name}") as client, _lock(settings):
        from mlflow.exceptions import MlflowException

        model = client.get_logged_model(model_id)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in _search(client, name):
            if version.tags.get(_MODEL_TAG) == model_id:
                return version.number
        # The model's folder, and not models:/<id>, which a SQLite store would look up in MLflow's global store.
        created = client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags={**tags, _MODEL_TAG: model_id},
            description=description,
            model_id=model_id,
        )
        return int(created.version)


def versions(settings: TrackingSettings, name: str) -> list[Version]:
    """Every version of `name`, newest first; none where the name is unknown. Raises TrackingError."""
    with _store(settings, f"reading {name}") as client:
        return _search(client, name)


def promote(settings: TrackingSettings, name: str, version: int | None = None, alias: str = DEFAULT_ALIAS) -> Promotion:
    """Point `alias` at a version, the newest by default, and note on that version who did it, when, and from where.

    Raises TrackingError for an unknown name or version, a reserved alias, or if somebody else moved it meanwhile.
    """
    check_alias(alias)
    with _store(settings, f"promoting {name}") as client, _lock(settings):
        known = _search(client, name)
        if not known:
            raise TrackingError(f"{name} has no registered version; `ferhpo sweep` registers the best trial of a sweep")
        number = known[0].number if version is None else version
        if number not in {v.number for v in known}:
            have = ", ".join(str(v.number) for v in reversed(known))
            raise TrackingError(f"{name} has no version {number}; it has {have}")
        previous = next((v.number for v in known if alias in v.aliases), None)
        client.set_registered_model_alias(name, alias, str(number))
        found = int(client.get_model_version_by_alias(name, alias).version)
        if found != number:
            raise TrackingError(f"{name}@{alias} is version {found}, set by somebody else just now; promote again")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = "none" if previous is None else f"version {previous}"
        note = f"{now} by {user_name()}, before: {before}"
        client.set_model_version_tag(name, str(number), f"ferhpo.promoted.{alias}", note)
        return Promotion(name, alias, number, previous)


def check_alias(alias: str) -> None:
    """Raise TrackingError for an alias that MLflow keeps for itself or cannot read."""
    if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE):
        raise TrackingError(
            f"alias is {alias}; MLflow reserves latest and v<number>; choose another, as {DEFAULT_ALIAS}"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise TrackingError(f"alias is {alias!r}; letters, digits, - and _ are allowed, as {DEFAULT_ALIAS}")


def download(settings: TrackingSettings, name: str, version: int | str, out_dir: Path) -> Path:
    """Fetch a version, given by number or alias, and return its folder, which mlflow.pyfunc.load_model opens."""
    with _store(settings, f"fetching {name}") as client:
        from mlflow.artifacts import download_artifacts

        number = version if isinstance(version, int) else int(client.get_model_version_by_alias(name, version).version)
        source = client.get_model_version_download_uri(name, str(number))
        out_dir.mkdir(parents=True, exist_ok=True)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(out_dir), tracking_uri=settings.store_uri))


def find(settings: TrackingSettings, name: str, which: str) -> Version:
    """The version of `name` that an alias, a number or "latest" means. Raises TrackingError with those there are."""
    known = versions(settings, name)
    if not known:
        raise TrackingError(f"{name} has no registered version in {settings.shown_uri}; ferhpo runs lists the sweeps")
    if which == "latest":
        return known[0]
    for version in known:
        if which == str(version.number) or which in version.aliases:
            return version
    numbers = ", ".join(str(version.number) for version in reversed(known))
    aliases = ", ".join(sorted(alias for version in known for alias in version.aliases)) or "none"
    raise TrackingError(f"{name} has no version or alias {which}; it has versions {numbers} and aliases {aliases}")


def load(settings: TrackingSettings, version: Version) -> tuple["nn.Module", dict[str, Any]]:
    """The network of a version, and what model.json says of it. Raises TrackingError."""
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from safetensors import SafetensorError

    with tempfile.TemporaryDirectory(prefix="ferhpo-model-") as folder:
        path = download(settings, version.name, version.number, Path(folder))
        described = next(iter(sorted(path.rglob("model.json"))), None)
        if described is None:
            raise TrackingError(f"{version.name} version {version.number} is no model of ferhpo: it has no model.json")
        os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        try:
            served = mlflow.pyfunc.load_model(str(path)).unwrap_python_model()
            return served.network, json.loads(described.read_text())
        except (MlflowException, SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            name = f"{version.name} version {version.number}"
            raise TrackingError(f"{name} cannot be loaded: {reason_of(error)}") from None


def run_config(settings: TrackingSettings, run_id: str) -> dict[str, Any]:
    """The configuration that a trial's run was made with. Raises TrackingError."""
    with _store(settings, f"reading run {run_id}") as client, tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, "config.yaml", folder)).read_text()
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def run_tags(settings: TrackingSettings, run_id: str) -> dict[str, str]:
    """The tags of a run. Raises TrackingError."""
    with _store(settings, f"reading run {run_id}") as client:
        return dict(client.get_run(run_id).data.tags)


def note_on_run(settings: TrackingSettings, run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Set tags and metrics of a run that has ended. Raises TrackingError."""
    with _store(settings, f"writing to run {run_id}") as client:
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
    # The search leaves out aliases on some stores; the model itself has them all.
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
def _store(settings: TrackingSettings, doing: str) -> Iterator["MlflowClient"]:
    """A client whose errors become TrackingError."""
    if settings.off:
        raise TrackingError(f"{doing}: tracking.uri is none; the registry needs a store")
    try:
        yield connect(settings)
    except TrackingError:
        raise
    except outages() as error:
        raise TrackingError(f"{doing} in {settings.shown_uri}: {reason_of(error)}") from None  # it shows the password


def _lock(settings: TrackingSettings) -> Any:
    path = settings.sqlite_path
    return nullcontext() if path is None else file_lock(path.with_name(path.name + ".registry"))
