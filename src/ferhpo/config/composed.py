"""Composed: a resolved configuration in plain dictionaries. Only compose.py uses OmegaConf."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ferhpo.components import own_code
from ferhpo.config.files import GROUPS, NAMED
from ferhpo.errors import ConfigError
from ferhpo.keys import leaves, nearest
from ferhpo.scoring.metrics import objective_names
from ferhpo.scoring.objective import Objective
from ferhpo.space import Space, lint

EXAMPLES = {
    "metrics": "kappa: true, brier: {_target_: my_metrics.brier}",
    "callbacks": "log: {_target_: my_callbacks.Log}",
    "panels": "slowest: {_target_: my_panels.slowest}",
    "exports": "onnx: {_target_: my_exports.onnx}",
}
# Sections that configurations of earlier versions do not have.
ADDED: dict[str, Any] = {
    "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
    "callbacks": {},
    "panels": {},
    "exports": {},
    "budget": {"hours": None, "gpu_hours": None, "trials": None},
    "first": [],
    "warm_start": [],
}


@dataclass(frozen=True)
class Composed:
    """A composed configuration.

    config: the resolved configuration as plain dictionaries and lists
    groups: the chosen option of each config group
    group_options: all options of each config group
    options, slices: for each group that the space chooses among, the section and the slice of the space of each option
    origins: for each dotted path of a leaf, the file or the override that set it
    warnings: what is allowed, but probably not meant
    """

    name: str
    config: dict[str, Any]
    groups: dict[str, str] = field(default_factory=dict)
    group_options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def is_sweep(self) -> bool:
        """Whether the space has an entry; without one, the configuration describes a single training."""
        return any(value not in (None, {}) for _, value in leaves(self.config.get("space") or {}))

    def with_slices(self) -> dict[str, Any]:
        """Return the configuration with the draws of every option in its space, e.g. at space.optim.sgd.lr."""
        space = dict(self.config.get("space") or {})
        for group, of_options in self.slices.items():
            space[group] = {"options": list(of_options), **of_options}
        return {**self.config, "space": space}

    def space(self) -> Space:
        """Return the compiled space. Raises ConfigError with every fault of the space."""
        space, faults = self.read_space()
        if faults:
            raise ConfigError(self.name, faults)
        return space

    def read_space(self) -> tuple[Space, list[str]]:
        """Return the compiled space and its faults."""
        return lint.read(
            self.config.get("space") or {}, self.config, self.groups, self.group_options, self.options, self.slices
        )


def config_shape(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a configuration's overall shape, without which nothing else can be checked."""
    for section in (name for name in (*GROUPS, "objective", "budget") if name in config or name not in ADDED):
        if not isinstance(config.get(section), Mapping):
            shown = f"is {config[section]!r:.60}" if section in config else "is missing"
            yield f"{section} {shown}; it must be a section with keys; start the file with `defaults: [config, _self_]`"
    for section in NAMED:
        if not isinstance(config.get(section) or {}, Mapping):
            yield f"{section} is {config[section]!r:.60}; it must be a section, e.g. {{{EXAMPLES[section]}}}"
            return
    folder = config.get("output_dir")
    if not isinstance(folder, str) or not folder or "\0" in folder:
        yield f"output_dir is {folder!r:.60}; it must be the name of a folder, e.g. mlruns"
    if not isinstance(config.get("space") or {}, Mapping):
        yield f"space is {config['space']!r:.60}; it must be a section, e.g. {{optim: {{lr: {{low: 0.1, high: 0.5}}}}}}"
    if isinstance(config.get("objective"), Mapping):
        names = objective_names(config.get("metrics") or ())
        try:
            metric = Objective(**config["objective"]).metric
            if metric not in names:
                own = [*names, *(f"val_{name}" for name in own_code.options("metrics"))]
                raise ValueError(f"metric is {metric}; {nearest(metric, own)}")
        except (TypeError, ValueError) as error:
            yield f"objective.{error}"
