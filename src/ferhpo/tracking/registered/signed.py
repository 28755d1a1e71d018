"""Signatures of registered versions: beside the files of the model, as model.sig; the version's tag says by which key.

Whoever may write artifacts but not the registry can therefore neither change a signed model nor remove its signature.
"""

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo import signing
from ferhpo.components.bundle import model_source, requirements
from ferhpo.components.description import DIGEST_TAG, read_description
from ferhpo.disk import read_file
from ferhpo.errors import SigningError, TrackingError, first_line
from ferhpo.models.exported import FITTED, MEMBERS, WEIGHTS, verified_content, verify_members
from ferhpo.parse import ParseError, parse_yaml
from ferhpo.signing.folders import MOST_SIGNATURE_BYTES, signer
from ferhpo.signing.keys import fingerprint_of, own_key, short
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registry import WEIGHTS_TAG, Version, opened_store
from ferhpo.tracking.upload.places import artifacts_at, repository

if TYPE_CHECKING:
    from ferhpo.tracking.upload.places import Artifacts

SIGNATURE, SIGNED_TAG = "model.sig", "ferhpo.signed_by"
MOST_YAML_BYTES = 200_000
MOST_BYTES = 8_000_000_000  # of all files of a model
# The lines of the files that say what a model needs, beside its packages
_LINE = re.compile(
    r"(channels|dependencies|build_dependencies|- pip):|- conda-forge|name: mlflow-env|- -r requirements.txt"
)
_PACKAGE = re.compile(r"(?:- )?([A-Za-z0-9_.-]+)(?:(?:==?|<=|: )\d[\w.]*)?")
_VOLATILE = ("metadata", "mlflow_version", "model_id", "model_size_bytes", "model_uuid", "utc_time_created")
_TOOLS = ("python", "pip", "setuptools", "wheel")


def fetch_signed(found: "Artifacts", version: Version, folder: Path, is_required: bool) -> str:
    """Copy all files of a signed version into a folder, and verify them; return a warning if it is not signed.

    Raises TrackingError for a version whose files or signature were changed, or that an unknown key signed.
    """
    shown = f"{version.name} version {version.number}"
    signature = _signature(found)
    expected = version.tags.get(SIGNED_TAG)
    if signature is None:
        if expected is not None:
            raise TrackingError(
                f"{shown} was signed with the key {short(expected)}, but has no {SIGNATURE} any more, so its files "
                "were changed; use another version"
            )
        if is_required:
            raise TrackingError(
                f"{shown} is not signed, and security.require_signature is true; `ferhpo promote` signs a version if "
                "there is a key (`ferhpo keys create`)"
            )
        return f"{shown} is not signed, so only its digests were compared"
    _fetch_all(found, folder)
    try:
        if expected not in (None, signer(signature)):
            raise SigningError(f"it was signed with the key {short(str(expected))}, and now with another one")
        signing.verify(folder, signature)
    except SigningError as error:
        raise TrackingError(f"{shown} is refused: {error}") from None
    return ""


def sign_version(settings: TrackingSettings, version: Version) -> str:
    """Sign the files of a version with the user's own key; return a note if it is not signed.

    A version that this key signed keeps its signature. Code is only signed if it is what ferhpo generates for the
    network in model.json. Raises TrackingError, SigningError.
    """
    private = own_key()
    if private is None:
        return "the version is not signed, for there is no key; `ferhpo keys create` creates one"
    if version.model_id is None:
        return "the version is not signed: ferhpo did not register it"
    own = fingerprint_of(private)
    with opened_store(settings, f"sign {version.name}") as client, tempfile.TemporaryDirectory() as temporary:
        source = client.get_model_version_download_uri(version.name, str(version.number))
        found, folder = artifacts_at(client, source, settings), Path(temporary) / "model"
        folder.mkdir()
        signature = _signature(found)
        _fetch_all(found, folder)
        if signature is not None and signer(signature) == own:
            signing.verify(folder, signature)
        else:
            try:
                fault = digest_fault(version, folder) or code_fault(folder)
            except (OSError, ValueError) as error:
                fault = first_line(error)
            if fault:
                return f"the version is not signed: {fault}"
            file = Path(temporary) / SIGNATURE
            file.write_bytes(signing.sign(folder, private))
            model = client.get_logged_model(version.model_id)
            repository(client, model.artifact_location, model.model_id).log_artifact(str(file), None)
        client.set_model_version_tag(version.name, str(version.number), SIGNED_TAG, own)
    return ""


def export_folder(folder: Path) -> Path:
    """Return the folder of the exported model in a downloaded one, as its MLmodel says. Raises ValueError."""
    try:
        found: Any = parse_yaml(read_file(folder / "MLmodel", MOST_YAML_BYTES).decode("utf-8"))
        path = found["flavors"]["python_function"]["artifacts"]["model"]["path"]
    except FileNotFoundError:
        raise ValueError("it has no MLmodel") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"its MLmodel: it is not UTF-8 ({error.reason} at byte {error.start})") from None
    except (OSError, ParseError) as error:
        raise ValueError(f"its MLmodel: {error}") from None
    except (KeyError, TypeError, IndexError):
        path = None
    if not isinstance(path, str) or not re.fullmatch(r"artifacts/[^/\x00-\x1f]{1,255}", path) or path.endswith("/.."):
        raise ValueError("its MLmodel names no folder artifacts/NAME with a model.json")
    return folder / path


def digest_fault(version: Version, folder: Path) -> str:
    """Return which digest in a version's tags is not that of its downloaded files; empty if all are.

    Raises ValueError for weights that are not those of model.json, or a model.json that cannot be read.
    """
    path = export_folder(folder) / "model.json"
    description = read_description(path)
    digests = (
        ("weights", WEIGHTS_TAG, description.get("weights_sha256")),
        ("a model.json", DIGEST_TAG, hashlib.sha256(path.read_bytes()).hexdigest()),
    )
    for what, tag, found in digests:
        if version.tags.get(tag) not in (None, found):
            return (
                f"it was registered with {what} of the sha256 {version.tags[tag]}; now it is {found}, so its files "
                "were changed; use another version, or train the model again"
            )
    if members := description.get("members"):
        verify_members(description)
    for place, member in enumerate(members or [description]):
        inside = path.parent / MEMBERS / str(place) if members else path.parent
        verified_content(inside / (FITTED if (inside / FITTED).exists() else WEIGHTS), member)
    return ""


def code_fault(folder: Path) -> str:
    """Return why a downloaded model must not be signed; empty if ferhpo makes the same of its network.

    Whoever loads a signed model with MLflow runs its code, and installs what it needs. So the package is made anew from
    model.json and the weights, and compared: the same files, the same settings, the same code.
    """
    from ferhpo.tracking.models import package

    try:
        found = parse_yaml(read_file(folder / "MLmodel", MOST_YAML_BYTES).decode("utf-8"))
        inner = export_folder(folder).relative_to(folder).as_posix()
        description = read_description(folder / inner / "model.json")
        with tempfile.TemporaryDirectory(prefix="ferhpo-package-") as temporary:
            made = Path(temporary) / "made"
            package(folder / inner, made)
            expected = parse_yaml((made / "MLmodel").read_text(encoding="utf-8"))
            if more := sorted(_files(folder) ^ _files(made)):
                return f"it has other files than a model of ferhpo: {more[0]!r:.80}"
            if _settled(found) != _settled(expected):
                return "its MLmodel says something else than that of a model of ferhpo"
        code = model_source(description)
        for path in (folder / "model.py", folder / inner / "model.py"):
            if path.read_text(encoding="utf-8") != code:
                exported = description.get("versions", {}).get("ferhpo", "another version")
                return (
                    "its model.py is not the code that this version of ferhpo generates; promote it with the version "
                    f"that exported it ({exported}), or train it again"
                )
        return _needs_fault(folder, {name.partition("==")[0].lower() for name in requirements(code)})
    except (OSError, ValueError, KeyError, TypeError, ParseError) as error:
        return f"it is not a model of ferhpo ({first_line(error)})"


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def _settled(content: Any) -> Any:
    """Return the content of an MLmodel without what differs from one export to the next: times, versions, sizes."""
    flavor = dict(content["flavors"]["python_function"])
    if Path(flavor["model_code_path"]).name != "model.py":  # MLflow takes the name of the file only
        raise ValueError(f"its code is in {flavor['model_code_path']!r:.80}")
    artifacts = {key: {**value, "uri": ""} for key, value in flavor["artifacts"].items()}
    flavor = {**flavor, "artifacts": artifacts, "model_code_path": ""}
    plain = {key: value for key, value in flavor.items() if not key.endswith("_version")}
    flavors = {**content["flavors"], "python_function": plain}
    return {key: value for key, value in {**content, "flavors": flavors}.items() if key not in _VOLATILE}


def _needs_fault(folder: Path, packages: set[str]) -> str:
    """Return which file asks for a package that the code does not import; empty if none does."""
    for name in ("requirements.txt", "conda.yaml", "python_env.yaml"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            match = _PACKAGE.fullmatch(line.strip())
            known = match is not None and match[1].lower() in {*packages, *_TOOLS}
            if line.strip() and not known and not _LINE.fullmatch(line.strip()):
                return f"its {name} asks for {line.strip()!r:.80}, which its code does not import"
    return ""


def _signature(found: "Artifacts") -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        is_there = found.fetch(SIGNATURE, MOST_SIGNATURE_BYTES, Path(folder))
        return (Path(folder) / SIGNATURE).read_bytes() if is_there else None


def _fetch_all(found: "Artifacts", folder: Path) -> None:
    """Copy all files but the signature. Raises TrackingError if they are too large, or are links or devices."""
    left = MOST_BYTES
    for name in found.names():
        if name != SIGNATURE and found.fetch(name, left, folder):
            left -= (folder / name).stat().st_size
