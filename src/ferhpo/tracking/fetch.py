"""Read models and configurations from a store: numbers, JSON and YAML only, no code is run.

Note: the places of artifacts come from the store, which may be someone else's (see upload/places.py).
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.components.build import instantiate
from ferhpo.components.bundle import target_of
from ferhpo.components.description import read_description
from ferhpo.errors import ConfigError, TrackingError
from ferhpo.models.exported import FITTED, MEMBERS, WEIGHTS, verify_members
from ferhpo.models.files.fitting import build_fitting
from ferhpo.parse import ParseError, parse_yaml
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registered.signed import MOST_YAML_BYTES, digest_fault, export_folder, fetch_signed
from ferhpo.tracking.registry import Version, find, opened_store
from ferhpo.tracking.store import reason_of
from ferhpo.tracking.upload.places import artifacts_at

MOST_REFERENCES = 5
# The files of a ferhpo model as an MLflow model, and of the export inside it, with the most bytes that are read.
PACKAGE_FILES = {
    "MLmodel": MOST_YAML_BYTES, "model.py": 5_000_000, "requirements.txt": 100_000, "conda.yaml": 100_000,
    "python_env.yaml": 100_000,
}  # fmt: skip
EXPORT_FILES = {
    "model.json": 10_000_000, "model.py": 5_000_000, "network.safetensors": 4_000_000_000,
    "estimator.skops": 1_000_000_000,
}  # fmt: skip

if TYPE_CHECKING:
    from torch import nn


def download(
    settings: TrackingSettings, name: str, version: int | str, out_dir: Path, is_signature_required: bool = False
) -> Path:
    """Download a version, given by number or alias, and return its folder for mlflow.pyfunc.load_model.

    A signed version is verified; of another, only the files of a ferhpo model are read. Raises TrackingError.
    """
    _fetch(settings, find(settings, name, str(version)), out_dir, is_signature_required)
    return out_dir


def _fetch(settings: TrackingSettings, version: Version, out_dir: Path, is_signature_required: bool) -> str:
    """Copy the files of a version into a folder, verified if it is signed; otherwise return a warning."""
    name, number = version.name, version.number
    with opened_store(settings, f"download {name}") as client:
        found = artifacts_at(client, client.get_model_version_download_uri(name, str(number)), settings)
        out_dir.mkdir(parents=True, exist_ok=True)
        warning = fetch_signed(found, version, out_dir, is_signature_required)
        if not warning:
            return ""
        for file, most_bytes in PACKAGE_FILES.items():
            found.fetch(file, most_bytes, out_dir)
        try:
            inner = export_folder(out_dir).relative_to(out_dir).as_posix()
        except ValueError as error:
            raise TrackingError(
                f"{name} version {number} is not a ferhpo model: {error}; choose another version"
            ) from None
        for file, most_bytes in EXPORT_FILES.items():
            found.fetch(f"{inner}/{file}", most_bytes, out_dir)
        for place in range(_num_members(out_dir / inner / "model.json")):
            for file in (WEIGHTS, FITTED):
                found.fetch(f"{inner}/{MEMBERS}/{place}/{file}", EXPORT_FILES[file], out_dir)
    return warning


def _num_members(path: Path) -> int:
    """Return the number of networks of an ensemble, 0 for another model; whoever loads it says what is wrong."""
    try:
        return len(read_description(path).get("members") or [])
    except ValueError:
        return 0


def _text(path: Path) -> str:
    """Return the content of a downloaded file. Raises ParseError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParseError(f"it is not UTF-8 ({error.reason} at byte {error.start})") from None


def load(
    settings: TrackingSettings,
    version: Version,
    preprocess_of: Callable[[dict[str, Any]], Any] | None = None,
    is_signature_required: bool = False,
    warnings: list[str] | None = None,
) -> tuple["nn.Module", dict[str, Any]]:
    """Return the network of a version and the content of its model.json. Raises TrackingError.

    preprocess_of: Preprocess.from_dict, which an ensemble needs for its members
    is_signature_required: whether a version without a signature is refused; warnings: appended to if there is none
    Only its numbers are read: the network is built from ferhpo, or from the user's own code, and the code in the
    registry is not run. It is built after its shapes were compared with those in the file of weights.
    """
    from safetensors import SafetensorError

    with tempfile.TemporaryDirectory(prefix="ferhpo-model-") as folder:
        path = fetch_export(settings, version, Path(folder), is_signature_required, warnings)
        shown = f"{version.name} version {version.number}"
        try:
            described = read_description(path / "model.json")
            return _built(described, path, preprocess_of), described
        except ConfigError as error:
            raise TrackingError(f"{shown} cannot be loaded: {' '.join(error.faults)}") from None
        except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise TrackingError(f"{shown} cannot be loaded: {reason_of(error).replace(f'{path}/', '')}") from None


def fetch_export(
    settings: TrackingSettings,
    version: Version,
    out_dir: Path,
    is_signature_required: bool = False,
    warnings: list[str] | None = None,
) -> Path:
    """Copy the files of a version below `out_dir`, and return the folder of the exported model among them.

    Raises TrackingError if they are not those that were signed and registered. The parameters are those of `load`.
    """
    shown = f"{version.name} version {version.number}"
    warning = _fetch(settings, version, out_dir, is_signature_required)
    if warning and warnings is not None:
        warnings.append(warning)
    try:
        folder = export_folder(out_dir)
    except ValueError as error:
        raise TrackingError(f"{shown} is not a ferhpo model: {error}; choose another version") from None
    if not (folder / "model.json").exists():
        raise TrackingError(f"{shown} is not a ferhpo model: it has no model.json; choose another version")
    try:
        fault = digest_fault(version, out_dir)
    except ValueError as error:
        raise TrackingError(f"{shown} cannot be loaded: {str(error).replace(f'{folder}/', '')}") from None
    if fault:
        raise TrackingError(f"{shown}: {fault}")
    return folder


def _built(
    described: Mapping[str, Any], folder: Path, preprocess_of: Callable[[dict[str, Any]], Any] | None
) -> "nn.Module":
    """Return the network, or the ensemble, that model.json describes, with the weights beside it."""
    from ferhpo.models.ensemble import Ensemble

    members = described.get("members")
    if not members:
        return _built_alone(described, folder)
    if preprocess_of is None:
        raise ValueError("it is an ensemble, whose members have a preprocessing of their own")
    verify_members(described)
    return Ensemble(
        [_built_alone(member, folder / MEMBERS / str(place)) for place, member in enumerate(members)],
        [preprocess_of(member["preprocess"]) for member in members],
        [member["share"] for member in members],
        [member["hog"] is not None for member in members],
    ).eval()


def _built_alone(described: Mapping[str, Any], folder: Path) -> "nn.Module":
    from safetensors import safe_open

    from ferhpo.models.exported import load_exported

    target = target_of(described["network"])
    section = {**described["network"]["arguments"], "_target_": target}
    shapes = {}
    if (folder / WEIGHTS).exists():
        with safe_open(str(folder / WEIGHTS), "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - it is no dict
    is_own = not target.startswith("ferhpo.")
    return load_exported(build_fitting(lambda: instantiate(section, "model"), shapes, is_own), folder, described)


def run_config(settings: TrackingSettings, run_id: str) -> dict[str, Any]:
    """Return the configuration (config.yaml) of a trial's run. Raises TrackingError."""
    with opened_store(settings, f"read run {run_id}") as client, tempfile.TemporaryDirectory() as folder:
        found = artifacts_at(client, client.get_run(run_id).info.artifact_uri, settings)
        if not found.fetch("config.yaml", MOST_YAML_BYTES, Path(folder)):
            raise TrackingError(f"run {run_id} has no config.yaml; it is written at the start of a trial")
        try:
            config: Any = parse_yaml(_text(Path(folder) / "config.yaml"))
        except ParseError as error:
            raise TrackingError(f"config.yaml of run {run_id}: {error}; the file was changed") from None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("data", "model")):
        raise TrackingError(f"config.yaml of run {run_id} is not the configuration of a trial; the file was changed")
    return config
