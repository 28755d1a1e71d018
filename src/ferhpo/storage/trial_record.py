"""The trials of a sweep as its study records them.

Note: Optuna's own value of a pruned trial is the last one reported. The value used here is the objective at the best
epoch; for a cross-validated trial it is the mean over its folds, each at its best epoch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from ferhpo.config.folds import EPOCH, FOLD, KEPT_FOLD
from ferhpo.errors import SweepError
from ferhpo.scoring.metrics import DEDUP, with_present_names
from ferhpo.scoring.objective import Objective
from ferhpo.space import Sample, Space
from ferhpo.states import TrialState
from ferhpo.storage.journal import JOURNAL, check_is_file, load_journal, naming_damage


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study tells it.

    state: RUNNING (or interrupted), COMPLETE, PRUNED, INFEASIBLE, DIVERGED, FAILED
    epochs: the metrics of each recorded epoch, in order, with `epoch` counted from 1; of a cross-validated trial those
        of the fold whose network stands for it
    folds: of a cross-validated trial, the means over the folds done so far (folds.running_means), in order, with `fold`
        counted from 1; empty for any other
    fold_epochs: the epochs of each fold
    space: returns the sweep's space
    decisions, sequences: the scheduler's answer to each report (epoch or fold), and its place among those of the sweep
    value: the objective at `best_epoch`; of a cross-validated trial the mean over all folds it has, be it the best of
        its means or not: fewer folds never win by luck. None before the first report
    best_epoch: the epoch whose checkpoint is kept
    seconds: from start to end; of a trial that was interrupted, of its last run and of the epochs recorded before that
    """

    number: int
    state: TrialState
    sample: Sample
    seed: int
    epochs: list[dict[str, float]] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    value: float | None = None
    best_epoch: int | None = None
    reason: str = ""
    seconds: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    folds: list[dict[str, float]] = field(default_factory=list)
    fold_epochs: list[list[dict[str, float]]] = field(default_factory=list)
    space: Callable[[], Space] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole configuration of the trial: the sweep's, with the sample applied. Not to be changed."""
        assert self.space is not None, "trials of a sweep know its space"
        return self.space().apply(self.sample)

    @property
    def reports(self) -> list[dict[str, float]]:
        """What the trial reported to the scheduler: its folds, or its epochs."""
        return self.folds or self.epochs

    def std(self, metric: str) -> float | None:
        """The deviation of a metric (the objective) over the folds; None where there are not two."""
        return self.folds[-1].get(f"{metric}_std") if self.folds else None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that go with `value`: those of the best epoch, or the means over the folds; empty without one."""
        if self.folds:
            return {key: value for key, value in self.folds[-1].items() if key != FOLD}
        best = next((row for row in self.epochs if row[EPOCH] == self.best_epoch), {})
        return {key: value for key, value in best.items() if key != EPOCH}

    @property
    def dedup_acc(self) -> float | None:
        """val_acc without the images whose pixels are also in training; None if it is not known."""
        return self.metrics.get(DEDUP)


def read_trials(folder: Path, objective: Objective, space: Callable[[], Space] | None = None) -> list[TrialRecord]:
    """The trials of a sweep, also while a driver runs it. Raises SweepError where there is no study."""
    path = folder / JOURNAL
    if not path.exists():
        raise SweepError(f"{folder} holds no sweep")
    check_is_file(path)
    with naming_damage(path):
        storage, study_id = load_journal(path)
        if study_id < 0:
            return []
        return [record_of(trial, objective, space) for trial in storage.get_all_trials(study_id, deepcopy=False)]


def record_of(trial: FrozenTrial, objective: Objective, space: Callable[[], Space] | None) -> TrialRecord:
    attrs = trial.user_attrs
    unit = FOLD if any(key.startswith(f"{FOLD}:") for key in attrs) else EPOCH
    counts = sorted(int(key.partition(":")[2]) for key in attrs if key.startswith(f"{unit}:"))
    rows = [attrs[f"{unit}:{count}"] for count in counts]
    reports = [{unit: count, **with_present_names(row["metrics"])} for count, row in zip(counts, rows, strict=True)]
    fold_epochs = [[with_present_names(epoch) for epoch in row["epochs"]] for row in rows] if unit == FOLD else []
    epochs = fold_epochs[KEPT_FOLD] if unit == FOLD else reports
    best = objective.best_row(epochs)
    valued = reports[-1] if unit == FOLD else best
    outcome = attrs.get("outcome", {})
    return TrialRecord(
        number=trial.number,
        state=TrialState.RUNNING
        if trial.state == OptunaState.RUNNING
        else TrialState(outcome.get("state", trial.state.name)),
        sample=attrs["sample"],
        seed=attrs["seed"],
        epochs=epochs,
        decisions=[row["decision"] for row in rows],
        sequences=[row["sequence"] for row in rows],
        value=None if valued is None else valued[objective.metric],
        best_epoch=None if best is None else int(best["epoch"]),
        reason=outcome.get("reason", ""),
        seconds=outcome.get("seconds"),
        extra=outcome.get("extra", {}),
        folds=reports if unit == FOLD else [],
        fold_epochs=fold_epochs,
        space=space,
    )


def ranked(trials: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Complete trials best first, then the others best first, then those without a value."""
    return sorted(
        trials,
        key=lambda trial: (
            trial.value is None,
            trial.state != TrialState.COMPLETE,
            0.0 if trial.value is None else -objective.score(trial.value),
            trial.number,
        ),
    )


def best_of(trials: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """Return the best COMPLETE trial, the earlier one of equal ones; None if there is none."""
    first = next(iter(ranked(trials, objective)), None)
    return first if first is not None and first.state == TrialState.COMPLETE and first.value is not None else None
