"""Which sweeps this user started here, and what a sweep from elsewhere must not choose.

sweep.json of a sweep that was copied from someone may name both a server and the files whose content would be sent to
it. Such a sweep is trained only if the user names one of them. That a sweep is the user's own is shown by a mark over
these settings, made with a secret that only this user has: ~/.config/ferhpo/keys/origin.secret (or $FERHPO_KEYS_DIR).
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ferhpo.addresses import trust
from ferhpo.config.input.final import settings_of
from ferhpo.config.input.layers import deep_leaves, is_for_a_server, is_read
from ferhpo.disk import read_file
from ferhpo.signing.keys import keys_folder

MARK, SECRET = "origin", "origin.secret"
_SECRET_BYTES = 32


def mark(meta: Mapping[str, Any]) -> str:
    """Return the mark of a sweep.json that this user wrote; empty if the secret can be neither read nor made."""
    secret = _secret()
    content = json.dumps([_uri(meta), sorted((key, json.dumps(value)) for key, value in _files(meta))])
    return hmac.new(secret, content.encode(), hashlib.sha256).hexdigest() if secret else ""


def is_own(meta: Mapping[str, Any]) -> bool:
    """Return whether this user wrote what a sweep.json says of a server and of files."""
    found, expected = meta.get(MARK), mark(meta)
    return bool(expected) and isinstance(found, str) and hmac.compare_digest(found, expected)


def foreign_faults(meta: Mapping[str, Any], own: bool, overrides: Sequence[str] = ()) -> list[str]:
    """Return the faults of a sweep whose server and files may be a stranger's choice, before it is trained.

    meta: sweep.json with the overrides applied; own: whether it was the user's own before
    """
    uri = _uri(meta)
    if own or not is_for_a_server(uri):
        return []
    given = {text.partition("=")[0] for text in overrides}
    return [
        f"{key} is {value!r:.200}; what is there would be sent to {trust.shown(str(uri))}, and this user did not start "
        f"the sweep here; if you trust it, {trust.naming(trust.shown(str(uri)))}"
        for key, value in _files(meta)
        if key not in given
    ]


def _uri(meta: Mapping[str, Any]) -> Any:
    return meta["composed"]["config"]["tracking"].get("uri")


def _files(meta: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings and the values of draws that name a file or folder which is read."""
    composed = meta["composed"]
    sections = [composed["config"], *(trial["sample"] for trial in meta.get("listed", ()))]
    sections += [{group: option} for group, found in composed["options"].items() for option in found.values()]
    for section in sections:
        for key, value in deep_leaves(section):
            if any(is_read(name, item) for name, item in settings_of(key, value)):
                yield key, value


def _secret() -> bytes:
    """Return the user's secret, made at the first use; empty if the folder can be neither read nor written."""
    path = keys_folder() / SECRET
    with suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_name(f".{SECRET}.{os.getpid()}.{secrets.token_hex(4)}")
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            with suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
            temporary.unlink()
        found = read_file(path, 1000)
        if len(found) == _SECRET_BYTES and not path.stat().st_mode & 0o077:
            return found
    return b""
