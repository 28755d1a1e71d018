"""Signatures of registered versions: beside the files of the model, as model.sig; the version's tag says by which key.

Whoever may write artifacts but not the registry can therefore neither change a signed model nor remove its signature.
"""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo import signing
from ferhpo.components.bundle import model_source, requirements
from ferhpo.components.description import read_description
from ferhpo.errors import SigningError, TrackingError
from ferhpo.parse import ParseError, parse_yaml
from ferhpo.signing.folders import MOST_SIGNATURE_BYTES, signer
from ferhpo.signing.keys import fingerprint_of, own_key, short
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registry import Version, opened_store
from ferhpo.tracking.upload.places import artifacts_at, repository

if TYPE_CHECKING:
    from ferhpo.tracking.upload.places import Artifacts

SIGNATURE, SIGNED_TAG = "model.sig", "ferhpo.signed_by"
MOST_BYTES = 8_000_000_000  # of all files of a model
# The lines of the files that say what a model needs, beside its packages
_LINE = re.compile(
    r"(channels|dependencies|build_dependencies|- pip):|- conda-forge|name: mlflow-env|- -r requirements.txt"
)
_PACKAGE = re.compile(r"(?:- )?([A-Za-z0-9_.-]+)(?:(?:==?|<=|: )\d[\w.]*)?")
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
            if fault := code_fault(folder):
                return f"the version is not signed: {fault}"
            file = Path(temporary) / SIGNATURE
            file.write_bytes(signing.sign(folder, private))
            model = client.get_logged_model(version.model_id)
            repository(client, model.artifact_location, model.model_id).log_artifact(str(file), None)
        client.set_model_version_tag(version.name, str(version.number), SIGNED_TAG, own)
    return ""


def code_fault(folder: Path) -> str:
    """Return why the code of a downloaded model must not be signed; empty if ferhpo generates the same.

    Whoever loads a signed model with MLflow runs its code, and installs what it needs.
    """
    try:
        flavor: Any = parse_yaml((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
        inner = folder / str(flavor["artifacts"]["model"]["path"])
        code = model_source(read_description(inner / "model.json"))
        if (flavor["loader_module"], flavor["code"], Path(flavor["model_code_path"]).name) != (
            "mlflow.pyfunc.loaders.code_model", None, "model.py",
        ):  # fmt: skip
            return "its MLmodel runs other code than its model.py"
        for path in (folder / "model.py", inner / "model.py"):
            if path.read_text(encoding="utf-8") != code:
                return "its model.py is not the code that this version of ferhpo generates; export it again"
        packages = {name.partition("==")[0].lower() for name in requirements(code)}
        return _needs_fault(folder, packages)
    except (OSError, ValueError, KeyError, TypeError, ParseError) as error:
        return f"it is not a model of ferhpo ({error})"


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
