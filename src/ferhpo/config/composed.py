"""A composed configuration: plain dictionaries, resolved. Only compose.py sees OmegaConf."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ferhpo.config.files import GROUPS
from ferhpo.errors import ConfigError
from ferhpo.keys import nearest
from ferhpo.scoring.metrics import objective_names
from ferhpo.scoring.objective import Objective
from ferhpo.space import Space, lint


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

    def space(self) -> Space:
        """The compiled space. Raises ConfigError with every fault of it."""
        space, faults = self.read_space()
        if faults:
            raise ConfigError(self.name, faults)
        return space

    def read_space(self) -> tuple[Space, list[str]]:
        """The compiled space and its faults."""
        return lint.read(
            self.config.get("space") or {}, self.config, self.groups, self.group_options, self.options, self.slices
        )


def config_shape(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a whole configuration without which nothing else can be asked of it: its sections and the objective."""
    for section in (*GROUPS, "objective"):
        if not isinstance(config.get(section), Mapping):
            shown = f"is {config[section]!r:.60}" if section in config else "is missing"
            yield f"{section} {shown}, and it is a section with keys; a file begins with `defaults: [config, _self_]`"
    if not isinstance(config.get("metrics") or {}, Mapping):
        shown = f"{config['metrics']!r:.60}"
        yield f"metrics is {shown}; it must be a section, e.g. {{kappa: {{_target_: my_metrics.kappa}}}}"
        return
    folder = config.get("output_dir")
    if not isinstance(folder, str) or not folder or "\0" in folder:
        yield f"output_dir is {folder!r:.60}; it must be the name of a folder, as mlruns"
    if not isinstance(config.get("space") or {}, Mapping):
        yield f"space is {config['space']!r:.60}; it must be a section, as {{optim: {{lr: {{low: 0.001, high: 0.1}}}}}}"
    if isinstance(config.get("objective"), Mapping):
        names = objective_names(config.get("metrics") or ())
        try:
            metric = Objective(**config["objective"]).metric
            if metric not in names:
                raise ValueError(f"metric is {metric}; {nearest(metric, names)}")
        except (TypeError, ValueError) as error:
            yield f"objective.{error}"
