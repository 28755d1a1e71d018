"""Addresses that a file may not decide alone: the MLflow store that is written to, the Ray cluster that is joined.

A database driver can load files, a cluster sends pickled objects, and a server receives what the environment has for
another one. So the user names them: on the command line (or in a call), in the configuration folder (see own_code), or
in the environment. What a sweep file or the folder of a sweep says gives no trust: anyone may have written it.

Note: trust holds for the process, like that in own code.
"""

import netrc
import os
import re
from contextlib import suppress
from pathlib import Path

from ferhpo.addresses.secrets import redact_address, reveal
from ferhpo.errors import TrackingError

STORE, CLUSTER = "tracking.uri", "compute.address"
VARIABLES = {STORE: "MLFLOW_TRACKING_URI", CLUSTER: "RAY_ADDRESS"}
ALWAYS = ("auto", "local")  # clusters of this machine
# What MLflow's client reads from the environment and sends to any server.
CREDENTIALS = (
    "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)  # fmt: skip
CREDENTIALS_FILE, NETRC = "~/.mlflow/credentials", "~/.netrc"
_named: set[tuple[str, str]] = set()


def trust_address(key: str, value: object) -> None:
    """Trust an address, because the user named it; other keys are ignored."""
    if key in VARIABLES and isinstance(value, str):
        _named.add((key, _whole(value)))


def is_trusted(key: str, value: str) -> bool:
    """Return whether the user named this address in this process, or in the environment."""
    whole = _whole(value)
    return bool(whole) and ((key, whole) in _named or _whole(os.environ.get(VARIABLES[key], "")) == whole)


def cluster_fault(address: str | None) -> str:
    """Return why a Ray cluster must not be joined; empty if it may be, e.g. "auto" or one at 127.0.0.1."""
    if address is None or address in ALWAYS or is_trusted(CLUSTER, str(address)):
        return ""
    if re.fullmatch(r"(ray://)?(localhost|127\.0\.0\.1):\d+", str(address)):
        return ""
    rule = "a Ray cluster can run code in every process that joins it, so a file cannot choose one"
    return _fault(CLUSTER, str(address), rule)


def server_fault(uri: str) -> str:
    """Return why a server or database must not be the MLflow store; empty if it may be."""
    if is_trusted(STORE, uri):
        return ""
    if not uri.startswith(("http://", "https://")):
        rule = "the driver of a database can load and send files, so a file cannot choose one"
        return _fault(STORE, uri, rule)
    found = [name for name in CREDENTIALS if os.environ.get(name)]
    found += [CREDENTIALS_FILE] if Path(CREDENTIALS_FILE).expanduser().exists() else []
    found += [f"the default account of {NETRC}"] if _has_default_account() else []
    if not found:  # a server of this machine is no exception: any user may have started it
        return ""
    return _fault(STORE, uri, f"{', '.join(found)} would be sent to it, and a file cannot decide that")


def _has_default_account() -> bool:
    """Return whether ~/.netrc has an account for every server; MLflow's client would send it."""
    for path in (os.environ.get("NETRC"), NETRC, "~/_netrc"):
        try:
            if path and "default" in netrc.netrc(str(Path(path).expanduser())).hosts:
                return True
        except (OSError, RuntimeError, netrc.NetrcParseError):
            continue
    return False


def sqlite_fault(uri: str) -> str:
    """Return why a file must not become an MLflow store; empty if the user named it."""
    if is_trusted(STORE, uri):
        return ""
    rule = "it is not a database of MLflow yet, or in a hidden folder, and a file cannot decide that it becomes a store"
    return _fault(STORE, uri, rule)


def shown(address: str) -> str:
    """Return an address without its secrets."""
    return redact_address(address)


def _fault(key: str, value: str, rule: str) -> str:
    given = value if shown(value) == value and "***" not in value else "..."
    return f"{key} is {shown(value)} in a file; {rule}; if you trust it, {naming(given, key)}"


def naming(value: str, key: str = STORE) -> str:
    """Return how the user names an address, for messages."""
    return f"add {key}={value} to the command line or set {VARIABLES[key]} to it"


def _whole(value: str) -> str:
    """Return an address with its secrets, as far as they are known, and that of a SQLite file with its absolute path.

    Without them, two addresses could look the same: what is hidden may contain the name of the server.
    """
    text = value.strip()
    with suppress(TrackingError):
        text = reveal(text)
    scheme, is_file, path = text.partition("sqlite:///")
    return f"sqlite:{Path(path).absolute()}" if is_file and not scheme else text.rstrip("/")


def forget() -> None:
    """Trust no address any more."""
    _named.clear()
