"""Record the trials of a sweep in tracking: parameters, facts, epochs (or folds), outcome.

Note: the study is always written first. A driver that is killed between the two leaves tracking one event behind;
`catch_up` then records what is missing, in a resume as well as in `ferhpo sync`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ferhpo.components.kinds import has_estimator
from ferhpo.config.folds import EPOCH, fold_folder, report_unit
from ferhpo.errors import StorageError, SweepError
from ferhpo.keys import leaves
from ferhpo.optional import optional
from ferhpo.publish.sweep_run import environment_tags
from ferhpo.scoring.collapse import collapse
from ferhpo.scoring.metrics import DEDUP
from ferhpo.states import RunState, TrialState
from ferhpo.storage.checkpoints import BEST, kept_confusion
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, best_of
from ferhpo.tracking import Tracker
from ferhpo.tracking.view import rounded

PARAM_SECTIONS = ("data", "augment", "model", "optim", "lr_schedule", "trainer")
ESTIMATOR_SECTIONS = ("data", "model", "trainer")  # the others do not apply to a model that is fitted once


class TrialRuns:
    """The runs of a sweep's trials in tracking.

    on_new_trial: called with a trial after its run is opened, to log its configuration and, last, its data set
    """

    def __init__(
        self,
        sweep: Sweep,
        tracker: Tracker,
        on_new_trial: Callable[[TrialRecord], None] = lambda trial: None,
    ) -> None:
        self.sweep, self.tracker, self.on_new_trial = sweep, tracker, on_new_trial
        self.unit = report_unit(sweep.config)
        self._best_so_far: float | None = None

    def open(self, trial: TrialRecord) -> None:
        """Open a trial's run, or reopen it."""
        self.tracker.open_trial(trial.number, self._params(trial), {"ferhpo.seed": str(trial.seed)})
        if not self.tracker.was_described(trial.number):
            self.on_new_trial(trial)
            return
        tags = environment_tags(self.sweep, self.tracker, trial.number)
        if tags != self.tracker.environment(trial.number):
            self.tracker.set_tags(trial.number, tags)

    def _params(self, trial: TrialRecord) -> dict[str, object]:
        """Return the sampled and the fixed values, by dotted path."""
        sections = ESTIMATOR_SECTIONS if has_estimator(trial.config) else PARAM_SECTIONS
        fixed = dict(leaves({section: trial.config[section] for section in sections}))
        fixed = {path: value for path, value in fixed.items() if not path.endswith("_target_")}
        groups = {section: self.sweep.composed.groups[section] for section in sections if section != "trainer"}
        return {**groups, **fixed, **trial.sample, "seed": trial.seed}

    def log_facts(self, number: int, facts: Mapping[str, Any]) -> None:
        """Log what a worker knows about its trial before the first epoch."""
        counts = {key: float(facts[key]) for key in ("num_parameters", "macs") if key in facts}
        self.tracker.log_metrics(number, counts)
        tags = {f"ferhpo.{key}": str(value) for key, value in facts.items() if key not in counts and value != ""}
        self.tracker.set_tags(number, tags)

    def log_fold(self, number: int, fold: int, epochs: Sequence[Mapping[str, float]]) -> None:
        """Log a fold that has ended: its epochs, value and checkpoint."""
        best = self.sweep.objective.best_row(epochs)
        assert best is not None
        metric = self.sweep.objective.metric
        # Not best_<metric>: sorted by it, a lucky fold would rank above every trial.
        once = {f"fold_{metric}": best[metric], "best_epoch": best[EPOCH]}
        checkpoint = fold_folder(self.sweep.trial_folder(number), fold) / BEST
        self.tracker.log_fold(number, fold, epochs, once, checkpoint if checkpoint.exists() else None)

    def close(self, trial: TrialRecord) -> None:
        """Log a trial's value, checkpoint and outcome, and close its run."""
        if trial.value is not None and trial.best_epoch is not None:
            count = {"num_folds": len(trial.folds)} if trial.folds else {"best_epoch": trial.best_epoch}
            dedup = {} if trial.dedup_acc is None else {f"best_{DEDUP}": rounded(trial.dedup_acc)}
            best = {f"best_{self.sweep.objective.metric}": rounded(trial.value), **count, **dedup}
            self.tracker.log_metrics(trial.number, best)
        folder = self.sweep.trial_folder(trial.number)
        if (folder / BEST).exists():
            self.tracker.log_artifact(trial.number, folder / BEST, "checkpoint")
        tags = {}
        with optional("confusion matrices are not in MLflow"):
            kept = kept_confusion(folder, len(trial.folds))
            if kept is not None:
                self.tracker.log_text(trial.number, json.dumps(kept), "confusion.json")
            collapsed_to = collapse(trial.extra.get("most_answered"))
            tags = {"ferhpo.collapse": collapsed_to} if collapsed_to else {}
        with optional("the best value so far is not in MLflow"):
            self._log_best_so_far(trial)
        # An empty reason is written too: it replaces the reason of an earlier interruption.
        self.tracker.close_trial(trial.number, trial.state, {"ferhpo.reason": trial.reason, **tags})

    def _log_best_so_far(self, trial: TrialRecord) -> None:
        """Log the best value of the complete trials up to this one as a curve of the sweep's run, over trials."""
        objective = self.sweep.objective
        if trial.state != TrialState.COMPLETE or trial.value is None:
            return
        if self._best_so_far is None:  # the first trial that this process closes; a resume has others before it
            best = best_of(self.sweep.trials(), objective)
            self._best_so_far = None if best is None else best.value
        if self._best_so_far is None or objective.is_better(trial.value, self._best_so_far):
            self._best_so_far = trial.value
        self.tracker.log_epoch(None, trial.number + 1, {f"best_so_far_{objective.metric}": rounded(self._best_so_far)})

    def catch_up(self, trials: Iterable[TrialRecord], on_close: Callable[[TrialRecord], None]) -> None:
        """Record what the study has and tracking does not, including whole trials if the sweep began without tracking.

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
        """Close each open run because the sweep ends early.

        state: STOPPED (KILLED in MLflow) if the user interrupted the sweep, FAILED after an error
        """
        for trial in trials:
            if not self.tracker.was_opened(trial.number) or self.tracker.was_closed(trial.number):
                continue
            if not trial.state.is_over:
                self.tracker.close_trial(trial.number, state, {"ferhpo.reason": reason})
                continue
            try:  # the study has the outcome, but the driver was interrupted before it was recorded here
                self.close(trial)
            except (SweepError, StorageError, OSError):
                self.tracker.close_trial(trial.number, trial.state, {"ferhpo.reason": trial.reason})
