"""What a confirmation returns."""

from dataclasses import dataclass
from typing import Any

from ferhpo.storage.sweep import Sweep
from ferhpo.tuning.result import SweepResult

RESULT = "confirm.json"


@dataclass(frozen=True)
class Confirmation(SweepResult):
    """What a confirmation ended with; see SweepResult. `best` is the trial whose network is registered.

    confirmed: the sweep whose trials were candidates
    found: what confirm.json holds; None while trainings are left
    """

    confirmed: Sweep | None = None
    found: dict[str, Any] | None = None
