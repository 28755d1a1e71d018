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

if TYPE_CHECKING:
    from torch import nn


def download(settings: TrackingSettings, name: str, version: int | str, out_dir: Path) -> Path:
    """Download a version, given by number or alias, and return its folder for mlflow.pyfunc.load_model.

    Raises TrackingError.
    """
    with opened_store(settings, f"download {name}") as client:
        from mlflow.artifacts import download_artifacts

        from ferhpo.tracking.upload.places import fault_of_server

        number = version if isinstance(version, int) else int(client.get_model_version_by_alias(name, version).version)
        source = client.get_model_version_download_uri(name, str(number))
        place = source
        if match := re.match(r"models:/(m-\w+)", source):
            place = client.get_logged_model(match[1]).artifact_location
        if fault := fault_of_server(place, settings.store_uri):
            raise TrackingError(f"{name} version {number} cannot be downloaded: {fault}")
        out_dir.mkdir(parents=True, exist_ok=True)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(out_dir), tracking_uri=settings.store_uri))


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
    from ferhpo.tracking.upload.places import fault_of_server

    with opened_store(settings, f"read run {run_id}") as client, tempfile.TemporaryDirectory() as folder:
        if fault := fault_of_server(client.get_run(run_id).info.artifact_uri, settings.store_uri):
            raise TrackingError(f"the configuration of run {run_id} cannot be read: {fault}")
        text = Path(client.download_artifacts(run_id, "config.yaml", folder)).read_text()
    config: dict[str, Any] = yaml.safe_load(text)
    return config
