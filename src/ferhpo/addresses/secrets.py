"""Passwords in addresses: removed from the user's input, kept in this process's memory, never written to disk.

Note: a configuration never holds a password. `hide` replaces `http://user:password@host` by `http://***@host` before
anything else reads it, and `reveal` returns the full address to connect to. A new process, e.g. a resume, does not know
the password: the user gives the address again, or `reveal` finds it in the environment.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ferhpo.errors import ConfigError, TrackingError

HIDDEN = "***"
NOT_KNOWN = (
    "its password is not stored on disk; give the full address again with tracking.uri=..., "
    "or set MLFLOW_TRACKING_URI to it"
)
ESCAPE = "a password's special characters must be escaped: %2F for /, %40 for @, %3F for ?, %23 for #, %5C for \\"
_USER = re.compile(r"""(?<=://)(?:[^\s"'<>]*@|[^\s/]*@)""")  # to the last @: a password may contain an unescaped / or @
_USER_OF_ADDRESS = re.compile(r"(?<=://).*@", re.DOTALL)  # for a text that is one address: any character may occur
_PARAMETER = re.compile(
    r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|\w*api_?key|sslkey|odbc_connect)=)[^&;\s'\")]+"
)
_ADDRESS = re.compile(r"""[A-Za-z][\w+.-]*://[^\s"']+""")
_given: dict[str, str] = {}  # address without secrets: the address as it was given to this process


def redact(text: str) -> str:
    """Return `text` with the user names, passwords and tokens of all addresses in it replaced by ***."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def redact_address(uri: str) -> str:
    """Redact a text that is one address, whatever characters it contains."""
    return redact(_USER_OF_ADDRESS.sub(f"{HIDDEN}@", uri))


def redact_error(text: str) -> str:
    """Redact the text of an error, which may quote a password without its address."""
    for uri in _given.values():
        password = urlsplit(uri).password
        for word in {password, unquote(password)} if password else ():
            text = text.replace(word, HIDDEN)
    return redact(text)


def hide(uri: str, is_users: bool = False) -> str:
    """Return the address without its secrets, and remember them; an address without secrets is returned unchanged.

    is_users: whether the user has just given it; what a file says never replaces the secrets that are known
    Raises ConfigError if the address without them does not say which server it is of.
    """
    shown = redact_address(uri).rstrip("/")
    whole = uri.rstrip("/")
    if shown == whole or not _has_secret(uri):
        return uri
    if fault := _ambiguity(whole, shown):
        raise ConfigError("tracking", [f"tracking.uri is {shown}; {fault}"])
    if is_users:
        _given[shown] = whole
    else:
        _given.setdefault(shown, whole)
    return shown


def _ambiguity(uri: str, shown: str) -> str:
    """Return why an address and what is shown of it could be of two servers; empty if they are of one."""
    try:
        whole, rest = urlsplit(uri), urlsplit(shown)
    except ValueError:
        return ESCAPE
    is_web = whole.scheme in ("http", "https")
    hosts = [part.netloc.rpartition("@")[2] for part in (whole, rest)]
    if hosts[0] != hosts[1] or whole.path != rest.path or "@" in whole.query + whole.fragment or "\\" in uri:
        return ESCAPE
    if not is_web and whole.netloc.count("@") > 1:  # libraries end the password at the first, or at the last one
        return ESCAPE
    if "odbc_connect" in whole.query and _given.get(shown, uri) != uri:
        return "another address that looks the same without its hidden part was given before; start a new process"
    return ""


def hide_all(texts: Sequence[str]) -> list[str]:
    """Return overrides, as the user typed them, with the secrets of every address hidden."""
    return [_in_addresses(partial(hide, is_users=True), text) for text in texts]


def _in_addresses(change: Callable[[str], str], text: str) -> str:
    """Apply `change` to the addresses in an override. The whole value of tracking.uri is one, also with spaces."""
    match = re.fullmatch(r"""([+~]*tracking\.uri=(["']?))(.*?)(\2)""", text, re.DOTALL)
    if match is not None and "://" in match[3]:
        return f"{match[1]}{change(match[3])}{match[4]}"
    return _ADDRESS.sub(lambda address: change(address[0]), text)


def hide_command_line() -> None:
    """Overwrite the passwords in this process's command line, which `ps` shows and Ray records. Linux only."""
    with suppress(OSError):
        shown = Path("/proc/self/cmdline").read_bytes()
        hidden = "\0".join(_masked(part) for part in shown.decode("latin-1").split("\0")).encode("latin-1")
        if hidden != shown:
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(int(fields[45]))  # arg_start, field 48 of /proc/self/stat
                memory.write(hidden)


def _masked(text: str) -> str:
    """Redact a text and keep its length."""
    text = _in_addresses(lambda uri: _USER_OF_ADDRESS.sub(lambda match: "*" * (len(match[0]) - 1) + "@", uri), text)
    text = _USER.sub(lambda match: "*" * (len(match[0]) - 1) + "@", text)
    return _PARAMETER.sub(lambda match: match[1] + "*" * (len(match[0]) - len(match[1])), text)


def reveal(shown: str) -> str:
    """Return the address to connect to: as it was given to this process, else from the environment.

    Raises TrackingError if neither has its password.
    """
    if f"://{HIDDEN}@" not in shown and f"={HIDDEN}" not in shown:
        return shown
    if shown in _given:
        return _given[shown]
    standard = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if standard != shown and redact(standard) == shown:
        return standard
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")  # read by MLflow's client
    if shown.startswith(("http://", "https://")) and any(os.environ.get(name) for name in names):
        return shown.replace(f"://{HIDDEN}@", "://")
    raise TrackingError(f"tracking.uri is {shown}: {NOT_KNOWN}")


def can_reveal(shown: str) -> bool:
    """Return whether the secrets of an address are known, if it has any."""
    try:
        reveal(shown)
    except TrackingError:
        return False
    return True


def as_given(shown: str) -> str:
    """Return the address with its secrets if they were given to this process, else `shown`."""
    return _given.get(shown, shown)


def _has_secret(uri: str) -> bool:
    """Return whether an address that `redact` changes contains more than the user name of a database."""
    user = _USER_OF_ADDRESS.search(uri)
    is_web = uri.startswith(("http://", "https://"))  # the user name may be a token
    return user is None or is_web or ":" in user[0] or _PARAMETER.search(uri) is not None


def hide_password(config: Mapping[Any, Any]) -> None:
    """Remove the password from tracking.uri, so that nothing that is written, sent or printed contains it."""
    section = config.get("tracking")
    if isinstance(section, dict) and isinstance(section.get("uri"), str):
        section["uri"] = hide(section["uri"])
