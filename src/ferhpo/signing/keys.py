"""The keys that sign models, and those whose signatures are accepted: PEM files in a folder of the user's.

FOLDER/private.pem      the user's own key, readable for the user alone; it never leaves this folder
FOLDER/trusted/*.pub    the public keys whose signatures are accepted, the user's own among them

FOLDER is $FERHPO_KEYS_DIR, otherwise ~/.config/ferhpo/keys.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferhpo.disk import read_file
from ferhpo.errors import SigningError
from ferhpo.text import plural

FOLDER = "FERHPO_KEYS_DIR"
PRIVATE, TRUSTED = "private.pem", "trusted"
CURVES = ("secp256r1", "secp384r1", "secp521r1")  # of the standard
_MOST_KEY_BYTES = 20_000


@dataclass(frozen=True)
class Key:
    """A public key. name: of its file, without .pub; fingerprint: the sha256 of its PEM text; path: of its file"""

    name: str
    fingerprint: str
    path: Path


def keys_folder() -> Path:
    """Return the folder of the user's keys, which may not exist yet."""
    return Path(os.environ.get(FOLDER) or "~/.config/ferhpo/keys").expanduser()


def create(name: str = "own") -> Key:
    """Create the user's own key (ECDSA on the curve P-256), and trust it.

    name: under which it is trusted here and, if the file is passed on, elsewhere
    Raises SigningError if there is a key already, or if the folder cannot be written.
    """
    _check_name(name)
    serialization, ec = _cryptography()
    folder = keys_folder()
    private, public = folder / PRIVATE, folder / TRUSTED / f"{name}.pub"
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        if public.exists() and not private.exists():
            raise SigningError(f"{public} exists; choose another name with --name")
        public.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(private, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secret)
        public.write_bytes(_pem(key.public_key()))
    except FileExistsError:
        raise SigningError(
            f"there is a key in {private}; models that it signed are verified with it, so it is not replaced; move it "
            f"away, or set {FOLDER} to another folder"
        ) from None
    except OSError as error:
        raise SigningError(
            f"cannot write keys into {folder} ({error.strerror}); set {FOLDER} to another folder"
        ) from None
    return _key(public)


def trust(file: Path, name: str | None = None) -> Key:
    """Accept the signatures of a public key from now on.

    file: a PEM file, e.g. one of a colleague's folder trusted/; name: by default that of the file
    Raises SigningError for a file that is no public key of the curves P-256, P-384 and P-521.
    """
    name = name or file.stem
    _check_name(name)
    public = _public_key(file)
    target = keys_folder() / TRUSTED / f"{name}.pub"
    fingerprint = hashlib.sha256(_pem(public)).hexdigest()
    for known in trusted():
        if known.fingerprint == fingerprint:
            return known
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with target.open("xb") as opened:
            opened.write(_pem(public))
    except FileExistsError:
        raise SigningError(f"another key is trusted as {name}; choose another name with --name") from None
    except OSError as error:
        raise SigningError(
            f"cannot write {target} ({error.strerror}); set {FOLDER} to a folder that you may write"
        ) from None
    return _key(target)


def trusted() -> list[Key]:
    """Return the public keys whose signatures are accepted, by name. Raises SigningError for a file that is none."""
    return [_key(path) for path in sorted((keys_folder() / TRUSTED).glob("*.pub"))]


def own_key() -> Path | None:
    """Return the file of the user's own private key, or None. Raises SigningError if others may read it."""
    path = keys_folder() / PRIVATE
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise SigningError(f"{path} may be read by other users; run: chmod 600 {path}")
    return path


def fingerprint_of(private: Path) -> str:
    """Return the fingerprint of the public key that belongs to a private one. Raises SigningError."""
    serialization, _ = _cryptography()
    try:
        key = serialization.load_pem_private_key(read_file(private, _MOST_KEY_BYTES), None)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"{private} is not a private key without a password ({error})") from None
    return hashlib.sha256(_pem(key.public_key())).hexdigest()


def short(fingerprint: str) -> str:
    """Return the beginning of a fingerprint, as messages show it."""
    return fingerprint[:16]


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name) or name.startswith("."):
        raise SigningError(
            f"--name is {name!r:.80}; a key's name has {plural(60, 'character')} at most: A-Z a-z 0-9 _ . -"
        )


def _key(path: Path) -> Key:
    return Key(path.stem, hashlib.sha256(_pem(_public_key(path))).hexdigest(), path)


def _public_key(file: Path) -> Any:
    serialization, ec = _cryptography()
    try:
        content = read_file(file, _MOST_KEY_BYTES)
        if b"PRIVATE KEY" in content:
            raise SigningError(f"{file} is a private key; pass on, and trust, only the file trusted/NAME.pub beside it")
        key = serialization.load_pem_public_key(content)
    except OSError as error:
        raise SigningError(f"{file} cannot be read ({error.strerror or error})") from None
    except ValueError:
        raise SigningError(f"{file} is not a public key in PEM; `ferhpo keys create` writes one") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SigningError(f"{file} is not a key of the curves P-256, P-384 or P-521; `ferhpo keys create` makes one")
    return key


def _pem(public: Any) -> bytes:
    serialization, _ = _cryptography()
    found: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _cryptography() -> tuple[Any, Any]:
    """Return the modules for keys. Raises SigningError if they are not installed."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise SigningError("cryptography is not installed; install ferhpo[signing]") from None
    return serialization, ec
