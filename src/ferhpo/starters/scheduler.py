"""A trial scheduler of your own: a class with the interface of Ray's TrialScheduler that never pauses a trial.

ferhpo calls on_trial_add, on_trial_result and on_trial_complete, with None as the controller and with a trial that has
only a trial_id. A resumed sweep replays every result, so the state may live in the object.
"""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class Starter(FIFOScheduler):
    """Stop a trial that is far below the best value that any trial had at the same epoch.

    metric, mode: the objective, passed by ferhpo
    margin: how far below it may be; grace_period: epochs that every trial gets
    time_attr: "epoch", or "fold" with cross-validation
    """

    def __init__(
        self, metric: str, mode: str, margin: float = 0.2, grace_period: int = 2, time_attr: str = "epoch"
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.objective, self.sign = metric, 1 if mode == "max" else -1
        self.margin, self.grace_period, self.time_attr = margin, grace_period, time_attr
        self.best: dict[int, float] = {}  # epoch -> best value so far

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        epoch, value = int(result[self.time_attr]), self.sign * result[self.objective]
        self.best[epoch] = max(value, self.best.get(epoch, value))
        stops = epoch > self.grace_period and value < self.best[epoch] - self.margin
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE
