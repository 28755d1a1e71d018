"""What tracking is told of the trials of a sweep: their parameters, facts, epochs (or folds), outcome.

What a reader would get wrong: the study is always written first. So a driver that is killed between the two leaves
tracking one event behind, and `catch_up` hands over what is missing, in a resume as in a `ferhpo sync`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ferhpo.config.folds import EPOCH, fold_folder, report_unit
from ferhpo.config.model_section import is_estimator
from ferhpo.errors import StorageError, SweepError
from ferhpo.keys import leaves
from ferhpo.scoring.collapse import collapse
from ferhpo.scoring.metrics import DEDUP
from ferhpo.states import RunState
from ferhpo.storage.checkpoints import BEST, kept_confusion
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker

PARAM_SECTIONS = ("data", "augment", "model", "optim", "lr_schedule", "trainer")
ESTIMATOR_SECTIONS = ("data", "model", "trainer")  # the others say nothing of what is fitted once


class TrialRuns:
    """The runs of a sweep's trials in tracking.

    on_new_trial: called with a trial when its run was opened; describes it, its data set last
    """

    def __init__(
        self,
        sweep: Sweep,
        tracker: Tracker,
        on_new_trial: Callable[[TrialRecord], None] = lambda trial: None,
    ) -> None:
        self.sweep, self.tracker, self.on_new_trial = sweep, tracker, on_new_trial
        self.unit = report_unit(sweep.config)

    def open(self, trial: TrialRecord) -> None:
        """Open a trial's run, or open it again."""
        self.tracker.open_trial(trial.number, self._params(trial), {"ferhpo.seed": str(trial.seed)})
        if not self.tracker.was_described(trial.number):
            self.on_new_trial(trial)

    def _params(self, trial: TrialRecord) -> dict[str, object]:
        """What was sampled and what was fixed, by dotted path."""
        sections = ESTIMATOR_SECTIONS if is_estimator(trial.config["model"]) else PARAM_SECTIONS
        fixed = dict(leaves({section: trial.config[section] for section in sections}))
        fixed = {path: value for path, value in fixed.items() if not path.endswith("_target_")}
        groups = {section: self.sweep.composed.groups[section] for section in sections if section != "trainer"}
        return {**groups, **fixed, **trial.sample, "seed": trial.seed}

    def log_facts(self, number: int, facts: Mapping[str, Any]) -> None:
        """What a worker knows of its trial before the first epoch."""
        counts = {key: float(facts[key]) for key in ("num_parameters", "macs") if key in facts}
        self.tracker.log_metrics(number, counts)
        tags = {f"ferhpo.{key}": str(value) for key, value in facts.items() if key not in counts and value != ""}
        self.tracker.set_tags(number, tags)

    def log_fold(self, number: int, fold: int, epochs: Sequence[Mapping[str, float]]) -> None:
        """An ended fold, whole: its epochs, its value, its checkpoint."""
        best = self.sweep.objective.best_row(epochs)
        assert best is not None
        metric = self.sweep.objective.metric
        # Not best_<metric>: sorted by that, a lucky fold would stand above every trial.
        once = {f"fold_{metric}": best[metric], "best_epoch": best[EPOCH]}
        checkpoint = fold_folder(self.sweep.trial_folder(number), fold) / BEST
        self.tracker.log_fold(number, fold, epochs, once, checkpoint if checkpoint.exists() else None)

    def close(self, trial: TrialRecord) -> None:
        """The value, the kept checkpoint and the outcome."""
        if trial.value is not None and trial.best_epoch is not None:
            of = {"num_folds": len(trial.folds)} if trial.folds else {"best_epoch": trial.best_epoch}
            dedup = {} if trial.dedup_acc is None else {f"best_{DEDUP}": trial.dedup_acc}
            best = {f"best_{self.sweep.objective.metric}": trial.value, **of, **dedup}
            self.tracker.log_metrics(trial.number, best)
        folder = self.sweep.trial_folder(trial.number)
        if (folder / BEST).exists():
            self.tracker.log_artifact(trial.number, folder / BEST, "checkpoint")
        kept = kept_confusion(folder, len(trial.folds))
        if kept is not None:
            self.tracker.log_text(trial.number, json.dumps(kept), "confusion.json")
        collapsed_to = collapse(trial.extra.get("most_answered"))
        tags = {"ferhpo.collapse": collapsed_to} if collapsed_to else {}
        # Also an empty reason is written: it takes the place of that of an earlier interruption.
        self.tracker.close_trial(trial.number, trial.state, {"ferhpo.reason": trial.reason, **tags})

    def catch_up(self, trials: Iterable[TrialRecord], on_close: Callable[[TrialRecord], None]) -> None:
        """Hand over what the study has and tracking has not: whole trials too, where the sweep began without tracking.

        on_close: called with each trial whose run was closed here
        """
        for trial in trials:
            if not trial.reports and not trial.state.is_over:
                continue
            if not self.tracker.was_opened(trial.number):
                self.open(trial)
                self.log_facts(trial.number, trial.extra)
            for row in trial.reports:
                metrics = {key: value for key, value in row.items() if key != self.unit}
                self.tracker.log_epoch(trial.number, int(row[self.unit]), metrics)
            for fold, epochs in enumerate(trial.fold_epochs):
                self.log_fold(trial.number, fold, epochs)
            if trial.state.is_over and not self.tracker.was_closed(trial.number, trial.state):
                self.close(trial)
                on_close(trial)

    def interrupt(self, trials: Iterable[TrialRecord], state: RunState, reason: str) -> None:
        """Close each run that is open: the sweep ends before its trials.

        state: STOPPED (KILLED in MLflow) for a person's doing, FAILED for an error's
        """
        for trial in trials:
            if not self.tracker.was_opened(trial.number) or self.tracker.was_closed(trial.number):
                continue
            if not trial.state.is_over:
                self.tracker.close_trial(trial.number, state, {"ferhpo.reason": reason})
                continue
            try:  # an end that the study has, and that was cut off on its way here
                self.close(trial)
            except (SweepError, StorageError, OSError):
                self.tracker.close_trial(trial.number, trial.state, {"ferhpo.reason": trial.reason})
