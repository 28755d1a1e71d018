"""Sign the files of a folder, and verify that they are those that were signed.

Source: OpenSSF Model Signing 1.1 (package model-signing): a Sigstore bundle with an in-toto statement, which lists the
name and sha256 of each file, signed with ECDSA. `model_signing verify key` of that package verifies it too.
"""

import base64
import tempfile
from pathlib import Path
from typing import Any

from ferhpo.errors import SigningError, first_line
from ferhpo.parse import ParseError, parse_json
from ferhpo.signing.keys import fingerprint_of, short, trusted

MOST_SIGNATURE_BYTES = 5_000_000


def sign(folder: Path, private_key: Path) -> bytes:
    """Return the signature of all files in a folder, in the form of a Sigstore bundle (JSON). Raises SigningError."""
    signing, _, hashing = _library()
    fingerprint_of(private_key)  # says what is wrong with the file
    with tempfile.TemporaryDirectory(prefix="ferhpo-signature-") as temporary:
        path = Path(temporary) / "model.sig"
        try:
            signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(
                _every_file(hashing)
            ).sign(folder, path)
        except (OSError, ValueError, TypeError) as error:
            raise SigningError(f"{folder} cannot be signed: {first_line(error)}") from None
        return path.read_bytes()


def verify(folder: Path, signature: bytes) -> str:
    """Verify that a folder has the files that were signed, and no other; return the fingerprint of the key.

    Raises SigningError for other files, a damaged signature, or a key that is not trusted.
    """
    _, verifying, hashing = _library()
    fingerprint = signer(signature)
    _check_base64(signature)
    key = next((key for key in trusted() if key.fingerprint == fingerprint), None)
    if key is None:
        raise SigningError(
            f"it is signed with the key {short(fingerprint)}, which is not trusted here; if you know whose key it is, "
            "run `ferhpo keys trust FILE.pub` with its public key"
        )
    with tempfile.TemporaryDirectory(prefix="ferhpo-signature-") as temporary:
        path = Path(temporary) / "model.sig"
        path.write_bytes(signature)
        config = verifying.Config().use_elliptic_key_verifier(public_key=key.path)
        try:
            config.set_hashing_config(_every_file(hashing)).verify(folder, path)
        except Exception as error:  # of several libraries, which read a file of anyone
            raise SigningError(f"its files are not those that the key {key.name} signed: {first_line(error)}") from None
    return fingerprint


def signer(signature: bytes) -> str:
    """Return the fingerprint of the key that a signature names; it may be a false one. Raises SigningError."""
    try:
        found: Any = parse_json(signature.decode("utf-8"))
        for key in ("verificationMaterial", "publicKey", "hint"):
            found = found[key]
        return str(found)
    except (ParseError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        raise SigningError("its signature is damaged: it names no key") from None


def _check_base64(signature: bytes) -> None:
    """Raise SigningError if bits of a signature were changed that decoding base64 leaves out."""
    try:
        envelope = parse_json(signature.decode("utf-8"))["dsseEnvelope"]
        for text in (envelope["payload"], *(each["sig"] for each in envelope["signatures"])):
            if base64.b64encode(base64.b64decode(text, validate=True)).decode() != text:
                raise SigningError("its signature is damaged")
    except (KeyError, TypeError, ValueError):
        raise SigningError("its signature is damaged") from None


def _every_file(hashing: Any) -> Any:
    """Return how files are hashed: each by itself, also those of git, and no links."""
    return hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)


def _library() -> tuple[Any, Any, Any]:
    """Return model_signing.signing, .verifying and .hashing. Raises SigningError if the package is not installed."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError:
        raise SigningError("model-signing is not installed; install ferhpo[signing]") from None
    return signing, verifying, hashing
