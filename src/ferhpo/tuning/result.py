"""What a sweep returns."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ferhpo.data.dataset import FaceData
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings


@dataclass(frozen=True)
class SweepResult:
    """What a sweep ended with.

    counts: trials by state
    finished: false if a person stopped it before its last trial
    registered: (model name, version) of the best trial, or None
    unshipped: records that wait for `ferhpo sync`
    view: address of the sweep's view on a server; {server} stands for its address
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
