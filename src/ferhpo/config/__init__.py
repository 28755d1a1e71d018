"""Compose, read and check configurations.

compose.py        turn files and overrides into one configuration; the only user of Hydra
composed.py       Composed: the result
settings.py       the settings of the section compute
run_config.py     RunConfig: the sections that ferhpo itself reads, typed
files.py          find configuration files, sweeps, and options of groups
targets.py        what a `_target_` may name, and how it is called
kinds.py          what kind a component is: an estimator, a grid, ...
folds.py          what cross-validation changes in a configuration
model_section.py  what a model requires of data and training
validate.py       the verb `check`: every fault at once
rules.py          rules between sections
input/            what the user wrote: overrides, files and values, read as they are meant
"""

from ferhpo.config.composed import Composed
from ferhpo.config.files import GROUPS
from ferhpo.config.settings import ComputeSettings
from ferhpo.scoring.objective import Objective

__all__ = ["GROUPS", "Composed", "ComputeSettings", "Objective"]
