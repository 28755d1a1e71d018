"""The objective of a sweep, and what "best" means: the one definition for training, study, leaderboard and reports."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ferhpo.scoring.metrics import direction


@dataclass(frozen=True)
class Objective:
    """What a sweep optimizes: a metric that every epoch reports, and the mode "max" or "min".

    Without a mode, larger values are better, except of a metric that metrics.py lists as minimized, e.g. val_loss.
    """

    metric: str = "val_acc"
    mode: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise ValueError(f"metric is {self.metric}; it must be the name of a metric, e.g. val_acc")
        if not self.mode and isinstance(self.metric, str):
            object.__setattr__(self, "mode", direction(self.metric))
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode is {self.mode}; it must be max or min")

    def score(self, value: float) -> float:
        """Return the value with its sign such that larger is better."""
        return value if self.mode == "max" else -value

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether `value` is strictly better than `than`; any value is better than None.

        A value that is not finite, e.g. NaN, is never better.
        """
        if not math.isfinite(value):
            return False
        return than is None or self.score(value) > self.score(than)

    def best_row(self, rows: Iterable[Mapping[str, float]]) -> Mapping[str, float] | None:
        """Return the epoch whose checkpoint is kept: the best row of metrics, the first of equal ones.

        Rows without the metric, or with a value that is not finite, do not count; None if no row does.
        """
        best: Mapping[str, float] | None = None
        for row in rows:
            value = row.get(self.metric)
            if value is None or not math.isfinite(value):
                continue
            if best is None or self.is_better(value, best[self.metric]):
                best = row
        return best

    def why_no_value(self, rows: Iterable[Mapping[str, float]]) -> str:
        """Return why none of these epochs has a value, as the reason of a trial."""
        row = next(iter(rows), None)
        if row is None or self.metric not in row:
            return "ended without a report"
        name = f"metrics.{self.metric.removeprefix('val_')}" if self.metric.startswith("val_") else self.metric
        return (
            f"{name} returned {row[self.metric]} at epoch {row['epoch']:g}, and no later epoch has a finite number; "
            "the objective must be a finite number in at least one epoch"
        )
