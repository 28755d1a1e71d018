"""Where a sweep is recorded, and how a store's address is shown.

An address may carry a password: show it only through `redact`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from ferhpo.errors import ConfigError

OFF = "none"
MODEL_CHOICES = ("all", "best", "none")
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` section of a configuration, checked. Raises ConfigError with every fault.

    output_dir: holds the default store (mlflow.db and artifacts/)
    uri: an MLflow tracking address, "none" to record nothing, or None for the default store
    experiment: MLflow's experiment, made if it is missing
    required: whether a sweep refuses to start while the store cannot be reached
    models: which completed trials get a loadable model: "all", "best" (of the sweep) or "none"
    report: whether a sweep ends with its page, and its complete trials with figures, as artifacts
    registered_model_name: the name in the registry, or None for ferhpo-<sweep>
    store_uri: what MLflow is given: absolute, whatever the working directory becomes later
    """

    output_dir: Path
    uri: str | None = None
    experiment: str = "ferhpo"
    required: bool = True
    models: str = "best"
    report: bool = True
    registered_model_name: str | None = None
    store_uri: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        faults = [] if self.uri in (None, OFF) else _uri_faults(str(self.uri))
        if not self.experiment or "/" in self.experiment:
            faults.append(f"tracking.experiment is {self.experiment!r}; a name without / is needed, as ferhpo")
        if self.models not in MODEL_CHOICES:
            faults.append(f"tracking.models is {self.models}; choose one of {', '.join(MODEL_CHOICES)}")
        for key in ("required", "report"):
            if not isinstance(getattr(self, key), bool):
                faults.append(f"tracking.{key} is {getattr(self, key)!r}; write true or false")
        if faults:
            raise ConfigError("tracking", faults)
        object.__setattr__(self, "output_dir", Path(self.output_dir).absolute())
        object.__setattr__(self, "store_uri", self._store_uri())

    @classmethod
    def from_config(cls, section: Mapping[str, object], output_dir: Path) -> "TrackingSettings":
        """Settings from the `tracking` section. Raises ConfigError, also for a key that does not exist."""
        known = {f.name for f in fields(cls) if f.init} - {"output_dir"}
        unknown = sorted(set(section) - known)
        if unknown:
            raise ConfigError(
                "tracking",
                [f"tracking.{key} matches no key; tracking has: {', '.join(sorted(known))}" for key in unknown],
            )
        return cls(output_dir=output_dir, **section)  # type: ignore[arg-type]

    @property
    def off(self) -> bool:
        """Whether nothing is recorded at all."""
        return self.uri == OFF

    @property
    def sqlite_path(self) -> Path | None:
        """The database file, where the store is one."""
        return Path(self.store_uri.removeprefix("sqlite:///")) if self.store_uri.startswith("sqlite:") else None

    @property
    def artifact_root(self) -> str | None:
        """Where a new experiment keeps its files; None where a server decides. MLflow's own choice for a database
        would be a folder in the working directory."""
        if self.store_uri.startswith(("http:", "https:")):
            return None
        return str((self.sqlite_path.parent if self.sqlite_path else self.output_dir) / "artifacts")

    def registered_name(self, sweep: str) -> str:
        """The name that a sweep's models have in the registry."""
        return self.registered_model_name or f"ferhpo-{sweep}"

    @property
    def shown_uri(self) -> str:
        """The address without its password, for messages and files."""
        return redact(self.store_uri)

    def _store_uri(self) -> str:
        if self.uri is None:
            return f"sqlite:///{self.output_dir / 'mlflow.db'}"
        if self.uri.startswith("sqlite:///"):
            return f"sqlite:///{Path(self.uri.removeprefix('sqlite:///')).absolute()}"
        return self.uri.rstrip("/")


def redact(text: str) -> str:
    """`text` with user names, passwords and tokens of any address in it replaced by ***."""
    text = re.sub(r"(?<=://)[^\s/]*@", "***@", text)
    return re.sub(
        r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|\w*api_?key|sslkey)=)[^&;\s'\")]+", r"\1***", text
    )


def _uri_faults(uri: str) -> list[str]:
    scheme = urlsplit(uri).scheme.split("+")[0]
    shown = f"tracking.uri is {redact(uri)}"
    if scheme in ("", "file") or len(scheme) == 1:  # one letter: a Windows drive
        return [f"{shown}; MLflow refuses plain file stores since 3.13; use sqlite:///<absolute path>/mlflow.db"]
    if scheme not in _SCHEMES:
        return [f"{shown}; its scheme must be one of {', '.join(_SCHEMES)}, or null for the default store"]
    if scheme == "sqlite" and (not uri.startswith("sqlite:///") or uri.removeprefix("sqlite:///") in ("", ":memory:")):
        return [f"{shown}; a database in memory keeps nothing; use sqlite:///<absolute path>/mlflow.db"]
    if scheme in ("http", "https") and not urlsplit(uri).hostname:
        return [f"{shown}; it names no host; write http://127.0.0.1:5000"]
    return []
