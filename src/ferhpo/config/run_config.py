"""The sections of a configuration that ferhpo itself reads, each read once, as typed settings."""

from functools import cached_property
from pathlib import Path

from ferhpo.config.composed import Composed
from ferhpo.config.settings import BudgetSettings, ComputeSettings
from ferhpo.scoring.objective import Objective
from ferhpo.space import Space
from ferhpo.tracking import TrackingSettings


class RunConfig:
    """Typed views of a composed configuration.

    A section is read when it is first asked for, so that a sweep with a fault in one section can still be listed. Later
    changes of the configuration are not seen: make a new RunConfig after them.
    Raises TypeError or ValueError for a section that `check` would refuse.
    """

    def __init__(self, composed: Composed) -> None:
        self._composed = composed

    @cached_property
    def compute(self) -> ComputeSettings:
        """Where trials run."""
        return ComputeSettings(**self._composed.config["compute"])

    @cached_property
    def budget(self) -> BudgetSettings:
        """When a start of the sweep ends early."""
        return BudgetSettings(**self._composed.config["budget"])

    @cached_property
    def tracking(self) -> TrackingSettings:
        """Where the sweep is recorded."""
        config = self._composed.config
        return TrackingSettings.from_config(config["tracking"], Path(config["output_dir"]))

    @cached_property
    def objective(self) -> Objective:
        """What the sweep optimizes."""
        return Objective(**self._composed.config["objective"])

    @cached_property
    def space(self) -> Space:
        """The compiled search space. Raises ConfigError with every fault of it."""
        return self._composed.space()
