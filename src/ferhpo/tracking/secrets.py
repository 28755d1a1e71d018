"""Passwords in addresses: taken out of what a person gave, kept in this process's memory, and nowhere on disk.

What a reader would get wrong: a configuration never holds a password. `hide` puts `http://***@host` in the place of
`http://user:password@host` before anything else sees it; `whole` gives the address back where a connection is made. A
new process, as that of a resume, knows nothing of it and looks into the environment.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ferhpo.errors import TrackingError

HIDDEN = "***"
NOT_KNOWN = (
    "its password is not kept on disk; give the whole address again as tracking.uri=..., "
    "or set MLFLOW_TRACKING_URI to it"
)
_USER = re.compile(r"""(?<=://)(?:[^\s"'<>]*@|[^\s/]*@)""")  # to the last @: a password may hold / and @ by mistake
_WHOLE_USER = re.compile(r"(?<=://).*@", re.DOTALL)  # of an address alone, with what it may not hold
_PARAMETER = re.compile(
    r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|\w*api_?key|sslkey|odbc_connect)=)[^&;\s'\")]+"
)
_ADDRESS = re.compile(r"""[A-Za-z][\w+.-]*://[^\s"']+""")
_given: dict[str, str] = {}  # by the address without secrets: as it was given in this process


def redact(text: str) -> str:
    """`text` with user names, passwords and tokens of any address in it replaced by ***."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def redact_address(uri: str) -> str:
    """`redact` for a text that is one address, whatever stands in it."""
    return redact(_WHOLE_USER.sub(f"{HIDDEN}@", uri))


def redact_error(text: str) -> str:
    """`redact` for what others say of an error: they may quote a password without its address."""
    for uri in _given.values():
        password = urlsplit(uri).password
        for word in {password, unquote(password)} if password else ():
            text = text.replace(word, HIDDEN)
    return redact(text)


def hide(uri: str) -> str:
    """The address without its secrets, which this process remembers; one that has none stays as it is."""
    shown = redact_address(uri).rstrip("/")
    if shown == uri.rstrip("/") or not _has_secret(uri):
        return uri
    _given[shown] = uri.rstrip("/")
    return shown


def hide_all(texts: Sequence[str]) -> list[str]:
    """Overrides as a person typed them, with every address in them hidden."""
    return [_in_addresses(hide, text) for text in texts]


def _in_addresses(change: Callable[[str], str], text: str) -> str:
    """An override with its addresses changed: what follows tracking.uri= is one, also with spaces or quotes in it."""
    found = re.fullmatch(r"""([+~]*tracking\.uri=(["']?))(.*?)(\2)""", text, re.DOTALL)
    if found is not None and "://" in found[3]:
        return f"{found[1]}{change(found[3])}{found[4]}"
    return _ADDRESS.sub(lambda address: change(address[0]), text)


def hide_command_line() -> None:
    """Overwrite the passwords in this process's command line, which `ps` shows and Ray notes (on Linux alone)."""
    with suppress(OSError):
        shown = Path("/proc/self/cmdline").read_bytes()
        hidden = "\0".join(_masked(part) for part in shown.decode("latin-1").split("\0")).encode("latin-1")
        if hidden != shown:
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(int(fields[45]))  # arg_start, the 48th field of all
                memory.write(hidden)


def _masked(text: str) -> str:
    """`redact` that keeps the length."""
    text = _in_addresses(lambda uri: _WHOLE_USER.sub(lambda found: "*" * (len(found[0]) - 1) + "@", uri), text)
    text = _USER.sub(lambda found: "*" * (len(found[0]) - 1) + "@", text)
    return _PARAMETER.sub(lambda found: found[1] + "*" * (len(found[0]) - len(found[1])), text)


def whole(shown: str) -> str:
    """The address to connect to: as it was given in this process, else from the environment.

    Raises TrackingError where neither knows its password.
    """
    if f"://{HIDDEN}@" not in shown and f"={HIDDEN}" not in shown:
        return shown
    if shown in _given:
        return _given[shown]
    standard = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if standard != shown and redact(standard) == shown:
        return standard
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")  # MLflow's client reads them itself
    if shown.startswith(("http://", "https://")) and any(os.environ.get(name) for name in names):
        return shown.replace(f"://{HIDDEN}@", "://")
    raise TrackingError(f"tracking.uri is {shown}: {NOT_KNOWN}")


def is_known(shown: str) -> bool:
    """Whether `whole` knows the address."""
    try:
        whole(shown)
    except TrackingError:
        return False
    return True


def as_given(shown: str) -> str:
    """The address with its secrets where this process was given them, else as it is shown."""
    return _given.get(shown, shown)


def _has_secret(uri: str) -> bool:
    """Whether an address that `redact` changes holds more than the name of a database's user."""
    user = _WHOLE_USER.search(uri)
    is_web = uri.startswith(("http://", "https://"))  # where the user's name may be a token
    return user is None or is_web or ":" in user[0] or _PARAMETER.search(uri) is not None
