"""Define the result of a sweep, and the function that makes it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from ferhpo.data.dataset import FaceData
from ferhpo.evaluation.chosen import Corrected
from ferhpo.states import TrialState
from ferhpo.storage.frames import sentence, sweep_html
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class SweepResult:
    """The result of a sweep.

    counts: trials by state
    finished: False if it ended before its last trial
    stop_reason: which part of the budget was used up; "" if the user interrupted the sweep
    registered: (model name, version) of the best trial, or None
    unshipped: number of records that are not in MLflow yet; `ferhpo sync` uploads them
    view: address of the sweep in MLflow's UI; {server} is to be replaced by the server's address
    corrected: the best value corrected for the choice among the trials; None if it cannot be computed
    forecast: how far the forecast of `ferhpo plan` was off; "" if there is none
    """

    sweep: Sweep
    counts: dict[TrialState, int]
    finished: bool
    best: TrialRecord | None
    registered: tuple[str, int] | None = None
    unshipped: int = 0
    view: str = ""
    warnings: list[str] = field(default_factory=list)
    stop_reason: str = ""
    forecast: str = ""
    corrected: Corrected | None = None

    def frame(self) -> "pd.DataFrame":
        """Return the leaderboard as a pandas frame, best first (see Sweep.frame)."""
        return self.sweep.frame()

    def curves(self) -> "pd.DataFrame":
        """Return every recorded epoch as a pandas frame (see Sweep.curves)."""
        return self.sweep.curves()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({sentence(self.sweep)}{self._state()})"

    def _repr_html_(self) -> str:
        return f"{sweep_html(self.sweep)}<p>{escape(self._state().removeprefix('; '))}</p>"

    def _state(self) -> str:
        if not self.finished:
            return f"; {self.stop_reason or 'interrupted'}; resume with: {self.sweep.resume_command}"
        return "" if self.registered is None else f"; registered as {self.registered[0]} version {self.registered[1]}"


Finisher = Callable[[Sweep, Tracker, TrackingSettings, FaceData, bool, list[str]], SweepResult]
