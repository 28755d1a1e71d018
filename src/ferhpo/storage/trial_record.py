"""Read the trials of a sweep from its study.

Note: Optuna's own value of a pruned trial is the last one reported. `TrialRecord.value` is the objective at the best
epoch; for a cross-validated trial, the mean over its folds, each at its best epoch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from ferhpo.config.folds import EPOCH, FOLD, KEPT_FOLD
from ferhpo.errors import SweepError
from ferhpo.scoring.metrics import DEDUP, with_present_names
from ferhpo.scoring.objective import Objective
from ferhpo.space import Sample, Space
from ferhpo.space.given import can_take, draws_of
from ferhpo.states import TrialState
from ferhpo.storage.frames import curves_frame, trial_html, trial_sentence
from ferhpo.storage.study.journal import JOURNAL, check_is_file, load_journal, naming_damage

if TYPE_CHECKING:
    import pandas as pd


CANDIDATE = "confirm.candidate"  # of the trials of a confirmation, which are listed and not sampled
NOT_SAMPLED = ("data", "tracking", "compute", "output_dir", "name", "allowed_targets")


@dataclass(frozen=True, repr=False)
class TrialRecord:
    """A trial as recorded in the study.

    state: RUNNING (or interrupted), COMPLETE, PRUNED, INFEASIBLE, DIVERGED or FAILED
    epochs: the metrics of each recorded epoch, in order, with `epoch` counted from 1; for a cross-validated trial,
        those of the fold whose network is kept
    folds: for a cross-validated trial, the means over the folds done so far (cross_validation.running_means), in order,
        with `fold` counted from 1; empty for any other trial
    fold_epochs: the epochs of each fold
    space: returns the sweep's space; sweep_folder: the folder that it was read from
    decisions, sequences: the scheduler's decision on each report (epoch or fold), and the report's number in the sweep
    value: the objective at `best_epoch`; for a cross-validated trial, the mean over all its folds, even if an earlier
        mean was better, so that fewer folds never win by luck. None before the first report
    best_epoch: the epoch whose checkpoint is kept
    seconds: duration from start to end; for a trial that was interrupted, its last attempt plus the epochs recorded
        before
    extra: facts from the worker, e.g. num_parameters and device
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
    space: Callable[[], Space] | None = field(default=None, compare=False)
    sweep_folder: Path | None = field(default=None, compare=False)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the trial: that of the sweep with the sample applied. Do not modify it."""
        assert self.space is not None, "trials of a sweep have its space"
        space = self.space()
        if unknown := [key for key in self.sample if key != CANDIDATE and not draws_of(space, key)]:
            raise SweepError(
                f"the sample of trial {self.number} has {unknown[0]}, which the space does not vary; the study was "
                "edited, so restore it from a copy"
            )
        if strange := [key for key, value in self.sample.items() if not _may_be_drawn(space, key, value)]:
            raise SweepError(
                f"the sample of trial {self.number} has {self.sample[strange[0]]!r:.80} for {strange[0]}, which the "
                "space does not have; the study was edited, so restore it from a copy"
            )
        return space.apply(self.sample)

    def frame(self) -> "pd.DataFrame":
        """Return the recorded epochs as a pandas frame: a row for each epoch, a column for each metric.

        The index is the epoch; for a cross-validated trial (fold, epoch).
        """
        return curves_frame([self]).droplevel("trial")

    def __repr__(self) -> str:
        return f"TrialRecord({trial_sentence(self)})"

    def _repr_html_(self) -> str:
        return trial_html(self)

    @property
    def reports(self) -> list[dict[str, float]]:
        """The reports to the scheduler: folds of a cross-validated trial, epochs of any other."""
        return self.folds or self.epochs

    def std(self, metric: str) -> float | None:
        """Return the standard deviation of the objective over the folds; None with fewer than two folds."""
        return self.folds[-1].get(f"{metric}_std") if self.folds else None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that belong to `value`: of the best epoch, or the means over the folds; empty if it is None."""
        if self.folds:
            return {key: value for key, value in self.folds[-1].items() if key != FOLD}
        best = next((row for row in self.epochs if row[EPOCH] == self.best_epoch), {})
        return {key: value for key, value in best.items() if key != EPOCH}

    @property
    def dedup_acc(self) -> float | None:
        """val_acc without the images whose pixels are also in training; None if it is not known."""
        return self.metrics.get(DEDUP)


def read_trials(folder: Path, objective: Objective, space: Callable[[], Space] | None = None) -> list[TrialRecord]:
    """Return the trials of a sweep, which may be running. Raises SweepError if there is no study, or a damaged one."""
    path = folder / JOURNAL
    if not path.exists():
        raise SweepError(f"{folder} does not contain a sweep")
    check_is_file(path)
    with naming_damage(path):
        storage, study_id = load_journal(path)
        if study_id < 0:
            return []
        return [
            record_of(trial, objective, space, folder) for trial in storage.get_all_trials(study_id, deepcopy=False)
        ]


def record_of(
    trial: FrozenTrial, objective: Objective, space: Callable[[], Space] | None, folder: Path | None = None
) -> TrialRecord:
    """Return the record of a trial in Optuna's study."""
    attrs = trial.user_attrs
    if strange := [key for key in attrs.get("sample", {}) if key.split(".")[0] in NOT_SAMPLED]:
        raise SweepError(
            f"the sample of trial {trial.number} has {strange[0]}, which no space can vary; the study was edited, so "
            "restore it from a copy"
        )
    unit = FOLD if any(key.startswith(f"{FOLD}:") for key in attrs) else EPOCH
    counts = sorted(int(key.partition(":")[2]) for key in attrs if key.startswith(f"{unit}:"))
    rows = [attrs[f"{unit}:{count}"] for count in counts]
    reports = [{unit: count, **with_present_names(row["metrics"])} for count, row in zip(counts, rows, strict=True)]
    fold_epochs = [[with_present_names(epoch) for epoch in row["epochs"]] for row in rows] if unit == FOLD else []
    epochs = fold_epochs[KEPT_FOLD] if unit == FOLD else reports
    best = objective.best_row(epochs)
    value_row = reports[-1] if unit == FOLD else best
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
        value=None if value_row is None else value_row[objective.metric],
        best_epoch=None if best is None else int(best["epoch"]),
        reason=outcome.get("reason", ""),
        seconds=outcome.get("seconds"),
        extra=outcome.get("extra", {}),
        folds=reports if unit == FOLD else [],
        fold_epochs=fold_epochs,
        space=space,
        sweep_folder=folder,
    )


def ranked(trials: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Sort trials: COMPLETE ones best first, then the others best first, then those without a value."""
    return sorted(trials, key=lambda trial: rank(trial, objective))


def rank(trial: TrialRecord, objective: Objective) -> tuple[bool, bool, float, int]:
    """Return the key by which `ranked` sorts a trial."""
    score = 0.0 if trial.value is None else -objective.score(trial.value)
    return trial.value is None, trial.state != TrialState.COMPLETE, score, trial.number


def best_of(trials: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """Return the best COMPLETE trial, the earlier one in a tie; None if there is none."""
    return next(iter(completed(ranked(trials, objective))), None)


def completed(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the COMPLETE trials, which have a value, in the given order."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]


def _may_be_drawn(space: Space, key: str, value: Any) -> bool:
    """Return whether a text or a section in a sample is a choice of its draw; numbers name no file."""
    if isinstance(value, int | float) or value is None or key == CANDIDATE:
        return True
    return any(can_take(draw, value) for draw, _ in draws_of(space, key))
