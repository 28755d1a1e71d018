"""Remove the checkpoints that a sweep need not keep, and stop it before its disk is full.

The rule (docs/decisions/0011): the `keep_checkpoints` best finished trials keep all their checkpoints. Any other trial
loses last.ckpt when it ends, because a finished trial never resumes, and best.ckpt and epoch_*.ckpt once MLflow has
them. The predictions that a trial keeps for statistics stay if it is complete.

Note: a trial that is not among the best never will be, because the ranking only grows. So each trial is ranked once.
"""

import logging
import shutil
from bisect import insort
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ferhpo.disk import START_BYTES, disk_refused
from ferhpo.errors import StorageError
from ferhpo.scoring.kept import FILE
from ferhpo.states import TrialState
from ferhpo.storage.checkpoints import LAST, num_kept
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, rank

# A running trial writes its next checkpoints next to the old ones, and its best one again into the MLflow store.
COPIES = 3
WARNING_FACTOR = 5  # warn below this multiple of the least free space
log = logging.getLogger("ferhpo.disk")


class Keeper:
    """Remove the checkpoints that a sweep need not keep, and stop it before its disk is full.

    is_settled: whether an ended trial's checkpoints are no longer needed: they are in MLflow
    free_bytes: returns the free space of a folder's disk
    """

    def __init__(
        self,
        sweep: Sweep,
        is_settled: Callable[[TrialRecord], bool],
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self.sweep, self.is_settled, self.free_bytes = sweep, is_settled, free_bytes
        self.num_kept = num_kept(sweep.config)
        self._seen: set[int] = set()
        self._best: list[TrialRecord] = []  # at most num_kept, best first
        self._waiting: dict[int, TrialRecord] = {}  # not among the best, and not in MLflow yet
        self._largest_bytes = 0
        self._has_warned = self._was_refused = False

    def tidy(self, trials: Iterable[TrialRecord], wanted: Callable[[TrialRecord], bool] = lambda trial: False) -> None:
        """Remove the checkpoints of ended trials that are not among the best.

        trials: at least those that have ended since the last call; wanted: trials to keep anyway
        """
        if self.num_kept is None:
            return
        for trial in trials:
            if trial.state.is_over and trial.number not in self._seen:
                self._seen.add(trial.number)
                if trial.state != TrialState.COMPLETE:  # only complete trials are compared
                    self._remove(trial, FILE)
                insort(self._best, trial, key=lambda other: rank(other, self.sweep.objective))
                if len(self._best) > self.num_kept:
                    dropped = self._best.pop()
                    self._waiting[dropped.number] = dropped
                    self._remove(dropped, LAST)
        for trial in list(self._waiting.values()):
            if self.is_settled(trial) and not wanted(trial):
                del self._waiting[trial.number]
                self._remove(trial, "*.ckpt")

    def _remove(self, trial: TrialRecord, pattern: str) -> None:
        try:
            for path in self.sweep.trial_folder(trial.number).rglob(pattern):
                path.unlink(missing_ok=True)
        except OSError as error:  # the trials do not depend on it; a full disk ends the sweep in check_space
            self._warn_refused(error)
            self._waiting.pop(trial.number, None)

    def _warn_refused(self, error: OSError) -> None:
        if not self._was_refused:
            self._was_refused = True
            log.warning(
                "disk: checkpoints that the sweep no longer needs cannot be removed (%s: %s); remove them yourself",
                error.filename or self.sweep.folder,
                error.strerror,
            )

    def measure(self, number: int) -> None:
        """Measure an ended trial's folder, as an estimate of what the next trial may need."""
        num_bytes = 0
        with suppress(OSError):  # an estimate from the files that can be read
            for path in self.sweep.trial_folder(number).rglob("*"):
                with suppress(FileNotFoundError):  # renamed meanwhile by the thread that draws figures
                    num_bytes += path.stat().st_size if path.is_file() else 0
        self._largest_bytes = max(self._largest_bytes, num_bytes)

    def check_space(self, num_slots: int) -> None:
        """Warn once if little space is left; raise StorageError if the next trials could fill the disk.

        num_slots: number of trials that may write at the same time
        """
        least = num_slots * COPIES * self._largest_bytes + START_BYTES
        try:
            free = self.free_bytes(self.sweep.folder)
        except OSError as error:
            raise disk_refused(self.sweep.folder, error) from None
        if free < least:
            raise StorageError(
                f"{self.sweep.folder} has {_megabytes(free)} MB of free space, and the next trials may need "
                f"{_megabytes(least)} MB; free some space and resume"
            )
        if free < WARNING_FACTOR * least and not self._has_warned:
            self._has_warned = True
            log.warning(
                "disk: %s has %s MB of free space; the sweep stops when it has less than %s MB",
                self.sweep.folder,
                _megabytes(free),
                _megabytes(least),
            )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f}"
