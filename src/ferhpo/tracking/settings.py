"""The `tracking` section of a configuration: which MLflow store records a sweep, and how its address is shown.

Note: `uri` never holds a password (addresses/secrets.py). `store_uri` may; pass it to MLflow only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from ferhpo.addresses.secrets import ESCAPE, as_given, can_reveal, hide, redact, redact_address, reveal
from ferhpo.errors import ConfigError

DATABASE = "mlflow.db"  # the default store, in output_dir
OFF = "none"
MAX_MODEL_NAME = 250  # in every database that MLflow supports
MODEL_CHOICES = ("all", "best", "none")
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` section of a configuration, validated. Raises ConfigError with every fault.

    output_dir: the folder of the default store (mlflow.db and artifacts/)
    uri: an MLflow tracking URI, "none" to disable tracking, or None for the default store; without its password
    experiment: the MLflow experiment; it is created if it does not exist
    required: whether a sweep refuses to start while the store is unreachable
    models: which completed trials are logged as MLflow models: "all", "best" (of the sweep) or "none"
    report: whether the report of the sweep, and figures of its complete trials, are logged as artifacts
    registered_model_name: the name in the model registry, or None for ferhpo-<sweep>
    """

    output_dir: Path
    uri: str | None = None
    experiment: str = "ferhpo"
    required: bool = True
    models: str = "best"
    report: bool = True
    registered_model_name: str | None = None

    def __post_init__(self) -> None:
        if self.uri is not None:
            object.__setattr__(self, "uri", hide(str(self.uri)))
        faults = [] if self.uri in (None, OFF) else _uri_faults(as_given(str(self.uri)))
        if not self.experiment or "/" in self.experiment or not self.experiment.isprintable():
            rule = "it must be a name without / and control characters, e.g. ferhpo"
            faults.append(f"tracking.experiment is {self.experiment!r}; {rule}")
        if self.models not in MODEL_CHOICES:
            faults.append(f"tracking.models is {self.models}; it must be one of {', '.join(MODEL_CHOICES)}")
        if self.registered_model_name is not None and (fault := model_name_fault(self.registered_model_name)):
            faults.append(f"tracking.registered_model_name is {self.registered_model_name!r}; {fault}, e.g. faces")
        for key in ("required", "report"):
            if not isinstance(getattr(self, key), bool):
                faults.append(f"tracking.{key} is {getattr(self, key)!r}; it must be true or false")
        if faults:
            raise ConfigError("tracking", faults)
        object.__setattr__(self, "output_dir", Path(self.output_dir).absolute())

    @classmethod
    def from_config(cls, section: Mapping[str, object], output_dir: Path) -> "TrackingSettings":
        """Return the settings of a `tracking` section. Raises ConfigError, also for unknown keys."""
        known = {f.name for f in fields(cls)} - {"output_dir"}
        unknown = sorted(set(section) - known)
        if unknown:
            raise ConfigError(
                "tracking",
                [f"tracking.{key} matches no key; tracking has: {', '.join(sorted(known))}" for key in unknown],
            )
        return cls(output_dir=output_dir, **section)  # type: ignore[arg-type]

    @property
    def off(self) -> bool:
        """Whether tracking is disabled."""
        return self.uri == OFF

    @property
    def sqlite_path(self) -> Path | None:
        """The database file of a SQLite store, else None."""
        uri = self._absolute_uri()
        return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else None

    @property
    def artifact_root(self) -> str | None:
        """The artifact location of a new experiment; None for a server, which chooses it itself.

        Without it, MLflow would put the artifacts of a database store into the working directory.
        """
        if self._absolute_uri().startswith(("http:", "https:")):
            return None
        return str((self.sqlite_path.parent if self.sqlite_path else self.output_dir) / "artifacts")

    def registered_name(self, sweep: str) -> str:
        """Return the name of a sweep's models in the registry."""
        return self.registered_model_name or f"ferhpo-{sweep}"

    @property
    def store_uri(self) -> str:
        """The URI for MLflow's client: with its password, and absolute, because the working directory may change.

        Raises TrackingError if the password is not known.
        """
        return reveal(self._absolute_uri())

    @property
    def lacks_password(self) -> bool:
        """Whether the URI has a password that this process does not know."""
        return not can_reveal(self._absolute_uri())

    @property
    def shown_uri(self) -> str:
        """The absolute URI without its password, for messages and files."""
        return redact(self._absolute_uri())

    def _absolute_uri(self) -> str:
        if self.uri is None:
            return f"sqlite:///{self.output_dir / DATABASE}"
        if self.uri.startswith("sqlite:///"):
            return f"sqlite:///{Path(self.uri.removeprefix('sqlite:///')).absolute()}"
        return self.uri.rstrip("/")


def model_name_fault(name: object) -> str:
    """Return why MLflow's registry would refuse a model's name; empty if it would not."""
    if not isinstance(name, str) or not name.strip():
        return "it must be a text that is not empty"
    if len(name) > MAX_MODEL_NAME:
        return f"it has {len(name)} characters; it must have at most {MAX_MODEL_NAME}"
    if re.search(r"[/:'\"\\\x00-\x1f]", name) or name in (".", "..") or name != name.strip() or not name.isprintable():
        return "it must have no / : ' \" \\ and no control characters, and no space at its ends"
    return ""


def _uri_faults(uri: str) -> list[str]:
    shown = f"tracking.uri is {redact_address(uri)}"
    try:
        address = urlsplit(uri)
    except ValueError as error:
        return [f"{shown}; it is not an address ({error}); use e.g. http://127.0.0.1:5000"]
    scheme = address.scheme.split("+")[0]
    if scheme in ("", "file") or len(scheme) == 1:  # one letter: a Windows drive
        return [f"{shown}; MLflow 3.13 and later refuse file stores; use sqlite:///<absolute path>/mlflow.db"]
    if scheme not in _SCHEMES:
        return [f"{shown}; its scheme must be one of {', '.join(_SCHEMES)}; use null for the default store"]
    if scheme == "sqlite" and (not uri.startswith("sqlite:///") or uri.removeprefix("sqlite:///") in ("", ":memory:")):
        return [f"{shown}; a database in memory is lost at exit; use sqlite:///<absolute path>/mlflow.db"]
    if scheme == "sqlite" and re.search(r"[?#\x00-\x1f]", uri):
        return [f"{shown}; the path of the database must have no ? and no #, which SQLAlchemy cuts off; rename it"]
    if scheme != "sqlite" and re.search(r"[\s\"'<>\\\x00-\x1f]", uri):
        return [f"{shown}; special characters must be escaped: %20 for a space, %22 for \", %27 for ', %5C for \\"]
    if scheme != "sqlite" and "@" in address.path + address.query + address.fragment:
        return [f"{shown}; {ESCAPE}"]
    if scheme in ("http", "https") and not address.hostname:
        return [f"{shown}; it has no host; use e.g. http://127.0.0.1:5000"]
    try:
        _ = address.port
    except ValueError:  # its text is not shown: what is in the place of the port may be a password
        return [f"{shown}; its port must be a number from 0 to 65535; use e.g. http://127.0.0.1:5000"]
    return []
