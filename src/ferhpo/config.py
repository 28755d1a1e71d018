"""What a configuration is: its groups, where its files are looked for, the settings that the program itself reads.

What a reader would get wrong: a composed configuration is a plain dictionary, resolved; only composing.py sees
OmegaConf. checking.py says whether it can run.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo import space as spaces
from ferhpo import space_lint
from ferhpo.errors import ConfigError

_HERE = Path(__file__).resolve().parent
GROUPS = ("data", "augment", "model", "optim", "lr_schedule", "trainer", "sampler", "scheduler", "compute", "tracking")


@dataclass(frozen=True)
class ComputeSettings:
    """Where trials run.

    address: null for this machine, auto for a running Ray cluster, or its address
    num_cpus, num_gpus: what this machine offers to trials; null finds out
    cpus_per_trial: CPU cores of a slot; null shares the cores among the slots
    gpus_per_trial: GPUs of a slot, 0.5 puts two trials on one; null is 1 where there is a GPU, else 0
    max_concurrent: the most trials at a time; null is as many as fit
    isolate_trials: a fresh process for every trial, at the cost of its imports
    max_retries: how often a trial whose worker died goes on from its checkpoint without an epoch in between
    trial_timeout: seconds without an epoch after which a trial counts as hanging; null is never
    stop_after_failures: the sweep stops when its first so many trials all fail for one reason; null is never
    stop_grace_seconds: from ctrl-C or SIGTERM on, for running epochs to come to their end
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    isolate_trials: bool = False
    max_retries: int = 2
    trial_timeout: float | None = 4 * 3600.0
    stop_after_failures: int | None = 3
    stop_grace_seconds: float = 20.0

    def __post_init__(self) -> None:
        for key in ("num_cpus", "max_concurrent", "stop_after_failures"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{key} is {value}; it must be 1 or more, or null")
        for key in ("num_gpus", "cpus_per_trial", "gpus_per_trial", "max_retries", "stop_grace_seconds"):
            value = getattr(self, key)
            if value is not None and not (_is_finite(value) and value >= 0):
                raise ValueError(f"{key} is {value}; it must be 0 or more")
        if self.trial_timeout is not None and not (_is_finite(self.trial_timeout) and self.trial_timeout > 0):
            raise ValueError(
                f"trial_timeout is {self.trial_timeout}; it must be more than 0 seconds, or null for never"
            )
        if self.gpus_per_trial is not None and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial is {self.gpus_per_trial}; above 1 it must be a whole number")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises: a metric of the epochs, and `max` or `min`."""

    metric: str = "val_acc"
    mode: str = "max"

    METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1")

    def __post_init__(self) -> None:
        if self.metric not in self.METRICS:
            raise ValueError(f"metric is {self.metric}; {spaces.nearest(self.metric, self.METRICS)}")
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode is {self.mode}; it must be max or min")

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats `than`."""
        return than is None or (value > than if self.mode == "max" else value < than)

    def best_row(self, rows: Iterable[Mapping[str, float]]) -> Mapping[str, float] | None:
        """The epoch whose checkpoint is kept: the best of some rows of metrics, the first of equal ones.

        Rows without the metric, or where it is not a number, do not count; None where no row does.
        """
        best: Mapping[str, float] | None = None
        for row in rows:
            value = row.get(self.metric)
            if value is None or value != value:
                continue
            if best is None or self.is_better(value, best[self.metric]):
                best = row
        return best


@dataclass(frozen=True)
class Composed:
    """A composed configuration.

    config: the whole of it, resolved, as plain dictionaries and lists
    groups: the option that each group stands at
    group_options: all options of each group
    options, slices: for each group that the space chooses among, each option's section and its slice of the space
    origins: for each dotted path of a leaf, the file or the override that set it
    """

    name: str
    config: dict[str, Any]
    groups: dict[str, str] = field(default_factory=dict)
    group_options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def space(self) -> spaces.Space:
        """The compiled space. Raises ConfigError with every fault of it."""
        space, faults = self.read_space()
        if faults:
            raise ConfigError(self.name, faults)
        return space

    def read_space(self) -> tuple[spaces.Space, list[str]]:
        """The compiled space and its faults."""
        return space_lint.read(
            self.config.get("space") or {}, self.config, self.groups, self.group_options, self.options, self.slices
        )


def config_shape(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a whole configuration without which nothing else can be asked of it: its sections and the objective."""
    for section in (*GROUPS, "objective"):
        if not isinstance(config.get(section), Mapping):
            shown = f"is {config[section]!r:.60}" if section in config else "is missing"
            yield f"{section} {shown}, and it is a section with keys; a file begins with `defaults: [config, _self_]`"
    folder = config.get("output_dir")
    if not isinstance(folder, str) or not folder or "\0" in folder:
        yield f"output_dir is {folder!r:.60}; it must be the name of a folder, as mlruns"
    if not isinstance(config.get("space") or {}, Mapping):
        yield f"space is {config['space']!r:.60}; it must be a section, as {{optim: {{lr: {{low: 0.001, high: 0.1}}}}}}"
    if isinstance(config.get("objective"), Mapping):
        try:
            Objective(**config["objective"])
        except (TypeError, ValueError) as error:
            yield f"objective.{error}"


def config_roots(config_dir: Path | None = None) -> list[Path]:
    """The folders searched for configurations, first one first: the user's, then ferhpo's own conf/ and sweeps/.

    The user's is `config_dir`, else $FERHPO_CONFIG_DIR, else conf/ and sweeps/ of the current folder where they exist.
    """
    package = _HERE if (_HERE / "conf").is_dir() else _HERE.parents[1]
    own = [package / "conf", package / "sweeps"]
    chosen = config_dir or (Path(os.environ["FERHPO_CONFIG_DIR"]) if os.environ.get("FERHPO_CONFIG_DIR") else None)
    if chosen is not None:
        if not chosen.is_dir():
            raise ConfigError(f"--config-dir is {chosen}", ["there is no such folder"])
        users = [chosen, chosen / "conf", chosen / "sweeps"]
    else:
        users = [Path("conf"), Path("sweeps")]
    roots: list[Path] = []
    for root in [*users, *own]:
        if root.is_dir() and root.resolve() not in roots:
            roots.append(root.resolve())
    return roots


def sweep_files(config_dir: Path | None = None) -> dict[str, Path]:
    """Every named sweep or training and its file; a user's file hides one of ours with the same name."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted(root.glob("*.yaml")):
            if path.stem != "config":
                files.setdefault(path.stem, path)
    return files


def group_files(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Every option of a group and its file."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted((root / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def headline(path: Path) -> str:
    """The first comment of a configuration file that says something: its line in `ferhpo list`."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
        if line.strip() and not line.startswith("#"):
            break
    return ""
