"""Define the result of a sweep, and the function that makes it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ferhpo.data.dataset import FaceData
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    counts: trials by state
    finished: False if the user interrupted it before its last trial ended
    registered: (model name, version) of the best trial, or None
    unshipped: number of records that are not in MLflow yet; `ferhpo sync` uploads them
    view: address of the sweep in MLflow's UI; {server} is to be replaced by the server's address
    """

    sweep: Sweep
    counts: dict[TrialState, int]
    finished: bool
    best: TrialRecord | None
    registered: tuple[str, int] | None = None
    unshipped: int = 0
    view: str = ""
    warnings: list[str] = field(default_factory=list)


Finisher = Callable[[Sweep, Tracker, TrackingSettings, FaceData, bool, list[str]], SweepResult]
