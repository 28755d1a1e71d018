"""The budget of one start of a sweep: hours, GPU-hours and trials, after which it ends and can be resumed."""

import time
from collections.abc import Callable

from ferhpo.config.settings import BudgetSettings


class Budget:
    """Count what a start of a sweep has used.

    num_gpus: of each trial; now: the clock, in seconds
    """

    def __init__(
        self, settings: BudgetSettings, num_gpus: float = 0.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings, self.num_gpus, self._now = settings, num_gpus, now
        self._start = now()
        self._began: dict[int, float] = {}
        self._seconds = 0.0  # of trials that have ended
        self._given: set[int] = set()

    def gave(self, number: int) -> None:
        """Count a trial that is about to start; one that continues after a loss counts once."""
        self._given.add(number)

    def began(self, number: int) -> None:
        """Count the time of a trial from now on."""
        self.gave(number)
        self._began.setdefault(number, self._now())

    def ended(self, number: int) -> None:
        """Count a trial that no longer runs."""
        self._seconds += self._now() - self._began.pop(number, self._now())

    @property
    def has_trials(self) -> bool:
        """Whether another trial may start."""
        return self.settings.trials is None or len(self._given) < self.settings.trials

    def spent(self) -> str:
        """Return which limit of time is used up, e.g. "budget.hours is 2", or "" if none is."""
        now = self._now()
        gpu_seconds = self.num_gpus * (self._seconds + sum(now - began for began in self._began.values()))
        for key, seconds in (("hours", now - self._start), ("gpu_hours", gpu_seconds)):
            limit = getattr(self.settings, key)
            if limit is not None and seconds >= 3600 * limit:
                return f"budget.{key} is {limit:g}"
        return ""
