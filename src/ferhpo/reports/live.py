"""The figures of a sweep that ends: curves and confusion matrix of its best trials, and its page, all uploaded.

Note: nothing is drawn while trials run, because drawing would take cores from training, and the figures of every trial
would keep a sweep of many small trials from ending. `ferhpo report --trial` draws those of any other trial.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ferhpo.config.settings import job_cpus
from ferhpo.data.dataset import FaceData
from ferhpo.errors import first_line
from ferhpo.reports.draw_trials import CONFUSION, CURVES, MOST_PROCESSES, draw, job_of
from ferhpo.states import TrialState
from ferhpo.storage.checkpoints import kept_confusion
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker

NUM_TRIALS = 10  # the best of a sweep, whose figures are drawn


class Drawing:
    """The figures of one sweep; does nothing if `is_on` is False."""

    def __init__(self, sweep: Sweep, tracker: Tracker, data: FaceData, is_on: bool) -> None:
        self.sweep, self.tracker, self.data, self.is_on = sweep, tracker, data, is_on
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="drawing")
        self._jobs: list[Future[None]] = []

    def sweep_ended(self, board: list[TrialRecord]) -> None:
        """Start to draw the figures of the best trials and the page. board: all trials, best first"""
        if self.is_on:
            best = [trial for trial in board if trial.state == TrialState.COMPLETE][:NUM_TRIALS]
            missing = [trial for trial in best if not (self._folder(trial) / CURVES).exists()]
            self._jobs += [self._threads.submit(self._draw_trials, missing), self._threads.submit(self._draw_page)]

    def wait(self) -> list[str]:
        """Wait for all figures; return a warning if some could not be drawn."""
        warnings: list[str] = []
        for job in self._jobs:
            try:
                job.result()
            except Exception as error:
                warnings = [f"figures are missing: {first_line(error)}; draw them with: {self.sweep.command('report')}"]
        return warnings

    def close(self) -> None:
        """Cancel the figures that are not drawn yet."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _folder(self, trial: TrialRecord) -> Path:
        return self.sweep.trial_folder(trial.number)

    def _draw_trials(self, trials: list[TrialRecord]) -> None:
        jobs = [
            job_of(trial, self._folder(trial), kept_confusion(self._folder(trial), len(trial.folds)))
            for trial in trials
        ]
        for number in draw(jobs, min(job_cpus(), MOST_PROCESSES)):
            for name in (CONFUSION, CURVES):
                if (path := self.sweep.trial_folder(number) / name).exists():
                    self.tracker.log_artifact(number, path)

    def _draw_page(self) -> None:
        from ferhpo.reports.report import sweep_report

        self.tracker.log_artifact(None, sweep_report(self.sweep, data=self.data, is_quick=True), "report")
