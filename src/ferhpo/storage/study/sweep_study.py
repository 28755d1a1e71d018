"""Read and write the Optuna study of a sweep: open, ask, record, finish, resume.

One driver writes it, under a lock on the sweep's folder; other processes may read it meanwhile (trial_record.py). The
sampler works on a copy of the study in memory, and its sample is then appended to the journal as one line, so a kill
cannot leave half an ask. A sample depends on (history, sweep seed, trial number) only, so a resumed sweep asks for the
same samples as an uninterrupted one.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from ferhpo.components.build import instantiate, locate
from ferhpo.components.kinds import derives_from, is_grid
from ferhpo.config import Objective
from ferhpo.config.folds import EPOCH, FOLD
from ferhpo.errors import SweepError
from ferhpo.seeds import derive_seed
from ferhpo.space import Sample, Space
from ferhpo.space.given import parameters
from ferhpo.states import TrialState
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.study.journal import JOURNAL, check_is_file, cut_torn_line, load_journal, naming_damage
from ferhpo.storage.study.outcomes import OPTUNA_STATES, earlier_trial
from ferhpo.storage.study.sampler_state import check_study_attrs, with_pickle, without_pickle
from ferhpo.storage.trial_record import TrialRecord, best_of, record_of

STUDY_NAME = "sweep"
FIXED_SEED_SAMPLERS = {"GridSampler", "QMCSampler"}  # these enumerate points: a new seed for each ask would repeat some


def random_sample(space: Space, seed: int) -> Sample:
    """Return one random sample of a space, outside any sweep."""
    return space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask())


class SweepStudy:
    """The study of a sweep, opened by its driver.

    listed: the `sample` and `seed` of each trial, in order, if they are listed and not sampled (a confirmation)
    first: values that the first trials have; what a sample lacks is sampled
    earlier: trials of earlier sweeps that the sampler is given (tuning/warm_start.py). In memory they come before those
        of this sweep, which keep their own numbers
    Raises SweepError if another driver holds it, or if its journal is damaged.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        sampler: Mapping[str, Any],
        seed: int,
        objective: Objective,
        listed: Sequence[Mapping[str, Any]] = (),
        first: Sequence[Mapping[str, Any]] = (),
        earlier: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.folder, self.space, self.sampler, self.seed, self.objective = folder, space, sampler, seed, objective
        self.listed, self.first, self.earlier = listed, first, earlier
        self.lock = FolderLock(folder)
        path = folder / JOURNAL
        try:
            check_is_file(path)
            with naming_damage(path):
                cut_torn_line(path)
                self._open(path)
        except BaseException:
            self.lock.release()
            raise

    def _open(self, path: Path) -> None:
        storage, study_id = load_journal(path)
        direction = StudyDirection.MAXIMIZE if self.objective.mode == "max" else StudyDirection.MINIMIZE
        if study_id < 0:
            optuna.create_study(storage=storage, study_name=STUDY_NAME, direction=direction)
            study_id = storage.get_study_id_from_name(STUDY_NAME)
        self._storage, self._study_id = storage, study_id
        self._ended: dict[int, TrialRecord] = {}
        self._memory = optuna.create_study(direction=direction)
        self._num_earlier = 0
        for record in self.earlier:
            if (given := earlier_trial(self.space, record)) is not None:
                self._memory.add_trial(given)
                self._num_earlier += 1
        for trial in storage.get_all_trials(study_id):
            study_attrs = trial.user_attrs.get("study_attrs", {})
            check_study_attrs(study_attrs)
            for key, value in study_attrs.items():
                self._memory._storage.set_study_system_attr(self._memory._study_id, key, value)
            try:
                trial._system_attrs = with_pickle(trial.system_attrs)
            except ValueError as error:
                raise SweepError(
                    f"{path}: trial {trial.number}: {error}; restore the file from a copy, or start another sweep "
                    "with name=..."
                ) from None
            self._memory.add_trial(trial)
        self._open_numbers = {self._number(trial) for trial in self._frozen() if trial.state == OptunaState.RUNNING}
        self._sequence = max((s for t in self.trials() for s in t.sequences), default=0)
        self._complete_partial_writes()

    def close(self) -> None:
        self.lock.release()

    def trials(self) -> list[TrialRecord]:
        """Return all trials, ordered by number."""
        return [self._record(trial) for trial in self._frozen()]

    def trial(self, number: int) -> TrialRecord:
        return self._record(self._frozen()[number])

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        """Return the record of a trial; that of an ended trial is cached, because it does not change."""
        number = self._number(trial)
        if number not in self._ended:
            record = replace(record_of(trial, self.objective, lambda: self.space), number=number)
            if not record.state.is_over:
                return record
            self._ended[number] = record
        return self._ended[number]

    def _number(self, trial: FrozenTrial) -> int:
        """Return the number of a trial of this sweep, which in memory comes after earlier ones."""
        return trial.number - self._num_earlier

    @property
    def num_asked(self) -> int:
        return len(self._frozen())

    def interrupted(self) -> list[int]:
        """Return the numbers of the trials that were asked and have not ended."""
        return sorted(self._open_numbers)

    def best(self) -> TrialRecord | None:
        """Return the best COMPLETE trial, the earlier one in a tie."""
        return best_of(self.trials(), self.objective)

    def ask(self) -> TrialRecord:
        """Sample the next trial, or take it from the list, and append it to the journal."""
        number = self.num_asked
        if self.listed:
            return self._ask_listed(number)
        self._memory.sampler = self._make_sampler(number)
        before = self._study_attrs()
        if number < len(self.first):
            self._memory.enqueue_trial(parameters(self.space, self.first[number]))
        trial = self._memory.ask()
        assert trial.number == number + self._num_earlier
        sample = self.space.suggest(trial)
        attrs: dict[str, Any] = {"sample": sample, "seed": derive_seed(self.seed, number, "trial")}
        changed = {key: value for key, value in self._study_attrs().items() if before.get(key) != value}
        if changed:  # what a sampler stores in the study (QMC counts its points) must be in the same line as the ask
            attrs["study_attrs"] = changed
        for key, value in attrs.items():
            trial.set_user_attr(key, value)
        asked = self._frozen()[number]
        self._open_numbers.add(number)
        self._storage.create_new_trial(
            self._study_id,
            template_trial=create_trial(
                state=OptunaState.RUNNING,
                params=asked.params,
                distributions=asked.distributions,
                user_attrs=attrs,
                system_attrs=without_pickle(asked.system_attrs),
            ),
        )
        return self.trial(number)

    def _ask_listed(self, number: int) -> TrialRecord:
        """Append a listed trial. Nothing is sampled, so Optuna has no parameters for it."""
        attrs = {key: self.listed[number][key] for key in ("sample", "seed")}
        asked = create_trial(state=OptunaState.RUNNING, user_attrs=attrs)
        self._open_numbers.add(number)
        self._storage.create_new_trial(self._study_id, template_trial=asked)
        self._memory.add_trial(asked)
        return self.trial(number)

    def record_epoch(self, number: int, epoch: int, metrics: Mapping[str, float], decision: str) -> None:
        """Record an epoch and the scheduler's decision on it."""
        self._record_report(number, EPOCH, epoch, metrics, {"decision": decision})

    def record_fold(
        self,
        number: int,
        num_done: int,
        metrics: Mapping[str, float],
        epochs: Sequence[Mapping[str, float]],
        decision: str,
    ) -> None:
        """Record the means over the first `num_done` folds, the epochs of the last one, and the decision."""
        self._record_report(number, FOLD, num_done, metrics, {"decision": decision, "epochs": list(epochs)})

    def _record_report(
        self, number: int, unit: str, count: int, metrics: Mapping[str, float], more: Mapping[str, Any]
    ) -> None:
        self._sequence += 1
        row = {"sequence": self._sequence, "metrics": dict(metrics), **more}
        for storage, trial_id in self._both(number):
            storage.set_trial_user_attr(trial_id, f"{unit}:{count}", row)
        self._report_value(number, count, metrics[self.objective.metric])

    def _report_value(self, number: int, count: int, value: float) -> None:
        for storage, trial_id in self._both(number):
            storage.set_trial_intermediate_value(trial_id, count, value)

    def finish(
        self,
        number: int,
        state: TrialState,
        reason: str = "",
        seconds: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> TrialRecord:
        """Record how a trial ended.

        extra: further facts for readers, e.g. num_parameters
        A COMPLETE trial without a report, or without a finite value of the objective, is recorded as FAILED.
        """
        if state == TrialState.COMPLETE and self.trial(number).value is None:
            state, reason = TrialState.FAILED, self.objective.why_no_value(self.trial(number).epochs)
        outcome = {"state": state, "reason": reason, "seconds": seconds, "extra": dict(extra or {})}
        for storage, trial_id in self._both(number):
            storage.set_trial_user_attr(trial_id, "outcome", outcome)
        self._tell(number, state)
        return self.trial(number)

    def _tell(self, number: int, state: TrialState) -> None:
        infeasible = 1.0 if state in (TrialState.INFEASIBLE, TrialState.DIVERGED) else 0.0
        value = self.trial(number).value
        values = [value] if state == TrialState.COMPLETE and value is not None else None
        for storage, trial_id in self._both(number):
            if state != TrialState.FAILED:
                storage.set_trial_system_attr(trial_id, "constraints:infeasible", infeasible)
            storage.set_trial_state_values(trial_id, OPTUNA_STATES[state], values)
        self._open_numbers.discard(number)

    def _complete_partial_writes(self) -> None:
        """Write what is missing after a kill between the lines of a report, or between an outcome and its state.

        Samplers rank a pruned trial by its last intermediate value; without it the next sample would be different.
        """
        for trial in self._frozen():
            if trial.state != OptunaState.RUNNING:
                continue
            number = self._number(trial)
            for report in self.trial(number).reports:
                count = int(report[FOLD if FOLD in report else EPOCH])
                if count not in trial.intermediate_values:
                    self._report_value(number, count, report[self.objective.metric])
            if "outcome" in trial.user_attrs:
                self._tell(number, TrialState(trial.user_attrs["outcome"]["state"]))

    def _study_attrs(self) -> dict[str, Any]:
        return self._memory._storage.get_study_system_attrs(self._memory._study_id)

    def _frozen(self) -> list[FrozenTrial]:
        """Return the trials of this sweep."""
        return self._memory.get_trials(deepcopy=False)[self._num_earlier :]

    def _both(self, number: int) -> list[tuple[optuna.storages.BaseStorage, int]]:
        """Return (storage, trial id) of journal and memory; the journal first, because only what it has is recorded."""
        journal_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return [(self._storage, journal_id), (self._memory._storage, self._frozen()[number]._trial_id)]

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        extra: dict[str, Any] = {}
        if is_grid(self.sampler):
            extra["search_space"] = self.space.grid()
        if "seed" in inspect.signature(locate(self.sampler["_target_"], "sampler")).parameters:
            fixed = derives_from(self.sampler, "sampler", "optuna", FIXED_SEED_SAMPLERS)
            extra["seed"] = self.seed if fixed else derive_seed(self.seed, number, "ask")
        return instantiate(self.sampler, "sampler", **extra)  # type: ignore[no-any-return]
