"""Draw: the distribution of one hyperparameter."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Draw:
    """The distribution of one hyperparameter: bounds (low, high, step, log) or choices.

    path: dotted key that receives the value; name: the parameter's name in Optuna
    when: conditions (key, allowed values), all of which must hold for the draw to be active
    repeat: number of entries of a list-valued hyperparameter, or the key of that number
    option: the option of a config group that the draw belongs to, if the space chooses among options
    """

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
        """Whether both bounds are integers, and so the values."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def num_points(self) -> int | None:
        """The number of values that it can take; None if it is continuous."""
        if self.choices:
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        step = self.step if self.step is not None else (1 if self.is_int else None)
        if step is None:
            return None
        return math.floor((self.high - self.low) / step + 1e-9) + 1

    @property
    def ends(self) -> list[tuple[str, Any]]:
        """("low", value) and ("high", value), or ("choices", value) for each of its choices."""
        if self.choices:
            return [("choices", choice) for choice in self.choices]
        return [("low", self.low), ("high", self.high)]

    def values(self) -> Iterator[Any]:
        """Yield every value of a discrete draw."""
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
        """Return whether a discrete draw can take a value."""
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
        """Round a value to what a user would write: 0.3, not 0.30000000000000004. Stays within the bounds."""
        assert self.low is not None
        assert self.high is not None
        sizes = [abs(size) for size in (self.low, self.high, self.high - self.low, self.step) if size]
        decimals = 12 + max(0, -math.floor(math.log10(min(sizes))))
        return min(max(round(value, decimals), self.low), self.high)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Any:
        """Return the value that an Optuna trial suggests for the parameter `name`."""
        if self.choices:
            # Optuna stores only scalars, so a list is represented by its JSON text.
            texts = {choice_key(choice): choice for choice in self.choices}
            return texts[trial.suggest_categorical(name, list(texts))]
        assert self.low is not None
        assert self.high is not None
        if self.is_int:
            step = int(self.step) if self.step is not None else 1
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return self.tidy(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


def choice_key(choice: Any) -> Any:
    """Return what Optuna stores for a choice: lists and mappings as JSON text."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice
