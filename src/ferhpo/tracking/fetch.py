"""Read models and configurations from a store: numbers and JSON only, no code is run.

Note: the places of artifacts come from the store, which may be someone else's (see upload/places.py).
"""

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ferhpo.components.build import instantiate
from ferhpo.components.bundle import target_of
from ferhpo.errors import ConfigError, TrackingError
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registry import WEIGHTS_TAG, Version, opened_store
from ferhpo.tracking.store import reason_of

MOST_REFERENCES = 5

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn


def download(settings: TrackingSettings, name: str, version: int | str, out_dir: Path) -> Path:
    """Download a version, given by number or alias, and return its folder for mlflow.pyfunc.load_model.

    Raises TrackingError.
    """
    with opened_store(settings, f"download {name}") as client:
        from mlflow.artifacts import download_artifacts

        number = version if isinstance(version, int) else int(client.get_model_version_by_alias(name, version).version)
        source = client.get_model_version_download_uri(name, str(number))
        place = _place_of(client, source, settings.store_uri)
        out_dir.mkdir(parents=True, exist_ok=True)
        return Path(download_artifacts(artifact_uri=place, dst_path=str(out_dir), tracking_uri=settings.store_uri))


def _place_of(client: "MlflowClient", source: str, store_uri: str) -> str:
    """Return the place of artifacts that a store names, with references to runs and models followed.

    Raises TrackingError for a server that must not be asked.
    """
    from ferhpo.tracking.upload.places import fault_of_form, fault_of_server

    for _ in range(MOST_REFERENCES):
        if fault := fault_of_form(source):
            raise TrackingError(fault)
        match = re.match(r"(runs|models):/+([^/]+)(/.*)?$", source)
        if match is None or (match[1] == "models" and not match[2].startswith("m-")):
            break
        of_run, owner = match[1] == "runs", match[2]
        place = client.get_run(owner).info.artifact_uri if of_run else client.get_logged_model(owner).artifact_location
        source = f"{place.rstrip('/')}{match[3] or ''}"
    if fault := fault_of_server(source, store_uri):  # also if it is still a reference
        raise TrackingError(fault)
    return source


def load(settings: TrackingSettings, version: Version) -> tuple["nn.Module", dict[str, Any]]:
    """Return the network of a version and the content of its model.json. Raises TrackingError.

    Only its numbers are read: the network is built from ferhpo, or from the user's own code, and the code in the
    registry is not run.
    """
    from safetensors import SafetensorError

    from ferhpo.models.exported import load_exported

    with tempfile.TemporaryDirectory(prefix="ferhpo-model-") as folder:
        path = download(settings, version.name, version.number, Path(folder))
        description = next(iter(sorted(path.rglob("model.json"))), None)
        if description is None:
            raise TrackingError(f"{version.name} version {version.number} is not a ferhpo model: it has no model.json")
        described = json.loads(description.read_text())
        expected, found = version.tags.get(WEIGHTS_TAG), described.get("weights_sha256")
        if expected not in (None, found):
            raise TrackingError(
                f"{version.name} version {version.number} was registered with weights of the sha256 {expected}; its "
                f"model.json says {found}, so its files were changed; use another version, or train the model again"
            )
        try:
            section = {"_target_": target_of(described["network"]), **described["network"]["arguments"]}
            return load_exported(instantiate(section, "model"), description.parent, described), described
        except ConfigError as error:
            name = f"{version.name} version {version.number}"
            raise TrackingError(f"{name} cannot be loaded: {' '.join(error.faults)}") from None
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            name = f"{version.name} version {version.number}"
            raise TrackingError(f"{name} cannot be loaded: {reason_of(error)}") from None


def run_config(settings: TrackingSettings, run_id: str) -> dict[str, Any]:
    """Return the configuration (config.yaml) of a trial's run. Raises TrackingError."""
    from mlflow.artifacts import download_artifacts

    with opened_store(settings, f"read run {run_id}") as client, tempfile.TemporaryDirectory() as folder:
        place = _place_of(client, client.get_run(run_id).info.artifact_uri, settings.store_uri)
        text = Path(
            download_artifacts(
                artifact_uri=f"{place.rstrip('/')}/config.yaml", dst_path=folder, tracking_uri=settings.store_uri
            )
        ).read_text()
    config: dict[str, Any] = yaml.safe_load(text)
    return config
