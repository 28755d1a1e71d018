"""Draw the figures of a running sweep in a thread of the driver and upload them: curves and confusion matrix of each
complete trial, and at the end the sweep's page.

Note: matplotlib's settings are global to the process, so one thread does all drawing of a driver. A trial that ended
before a crash and has no figures yet gets them at the end of the resumed sweep.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ferhpo.data.dataset import FaceData
from ferhpo.errors import first_line
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker

CURVES, CONFUSION = "curves.png", "confusion.png"


class Drawing:
    """The figures of one sweep; does nothing if `is_on` is False."""

    def __init__(self, sweep: Sweep, tracker: Tracker, data: FaceData, is_on: bool) -> None:
        self.sweep, self.tracker, self.data, self.is_on = sweep, tracker, data, is_on
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        self._jobs: list[Future[None]] = []
        self._submitted: dict[int, Future[None]] = {}

    def trial_ended(self, trial: TrialRecord) -> None:
        """Submit the figures of a trial, if it is complete."""
        if self.is_on and trial.state == TrialState.COMPLETE:
            self._submitted[trial.number] = self._thread.submit(self._draw_trial, trial)
            self._jobs.append(self._submitted[trial.number])

    def is_drawn(self, trial: TrialRecord) -> bool:
        """Return whether no figure of a trial is missing; always true for trials that get none."""
        if not self.is_on or trial.state != TrialState.COMPLETE:
            return True
        job = self._submitted.get(trial.number)
        return (self._folder(trial) / CURVES).exists() if job is None else job.done()

    def sweep_ended(self) -> None:
        """Submit the page, and before it the figures that an earlier driver did not draw."""
        if not self.is_on:
            return
        for trial in self.sweep.trials():
            if trial.number not in self._submitted and not (self._folder(trial) / CURVES).exists():
                self.trial_ended(trial)
        self._jobs.append(self._thread.submit(self._draw_page))

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
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _folder(self, trial: TrialRecord) -> Path:
        return self.sweep.trial_folder(trial.number)

    def _draw_trial(self, trial: TrialRecord) -> None:
        import numpy as np

        from ferhpo.reports.trial import confusion, curves
        from ferhpo.storage.checkpoints import kept_confusion

        folder = self._folder(trial)
        folder.mkdir(parents=True, exist_ok=True)
        kept = kept_confusion(folder, len(trial.folds))
        if kept is not None:
            matrix = np.asarray(kept["confusion"])
            path = confusion.draw(folder / CONFUSION, matrix, kept["class_names"], ["images", "shares"])
            self.tracker.log_artifact(trial.number, path)
        # The curves come last: for a resumed sweep their file means that all figures of the trial are drawn.
        self.tracker.log_artifact(trial.number, curves.draw(folder / CURVES, trial, ["acc", "loss"]))

    def _draw_page(self) -> None:
        from ferhpo.reports.report import sweep_report

        self.tracker.log_artifact(None, sweep_report(self.sweep, data=self.data, is_quick=True), "report")
