"""One draw: the distribution of one hyperparameter."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Draw:
    """One thing that may vary. `path` is where its value goes, `name` what Optuna calls it."""

    path: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    repeat: str | int | None = None
    option: str | None = None
    name: str = ""

    @property
    def is_int(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def num_points(self) -> int | None:
        """How many values it can take; None when continuous."""
        if self.choices:
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        step = self.step if self.step is not None else (1 if self.is_int else None)
        if step is None:
            return None
        return math.floor((self.high - self.low) / step + 1e-9) + 1

    def values(self) -> Iterator[Any]:
        """Every value of a draw that is not continuous."""
        if self.choices:
            yield from self.choices
            return
        num_points = self.num_points
        assert num_points is not None
        assert self.low is not None
        step = self.step if self.step is not None else 1
        for index in range(num_points):
            yield self.low + index * step if self.is_int else self.tidy(self.low + index * step)

    def holds(self, value: Any) -> bool:
        """Whether it can take a value; of one that is not continuous."""
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.step or 1
        index = round((value - self.low) / step)
        return bool((self.low + index * step if self.is_int else self.tidy(self.low + index * step)) == value)

    def tidy(self, value: float) -> float:
        """0.1 + 2 * 0.1 is 0.30000000000000004: people should read 0.3. Never beyond the bounds."""
        assert self.low is not None
        assert self.high is not None
        sizes = [abs(size) for size in (self.low, self.high, self.high - self.low, self.step) if size]
        decimals = 12 + max(0, -math.floor(math.log10(min(sizes))))
        return min(max(round(value, decimals), self.low), self.high)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Any:
        """Ask Optuna for a value under `name`."""
        if self.choices:
            # Optuna stores only scalars: a list is drawn as its JSON text.
            texts = {choice_key(choice): choice for choice in self.choices}
            return texts[trial.suggest_categorical(name, list(texts))]
        assert self.low is not None
        assert self.high is not None
        if self.is_int:
            step = int(self.step) if self.step is not None else 1
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return self.tidy(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


def choice_key(choice: Any) -> Any:
    """What Optuna stores for a choice."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice
