"""Open and close what a running sweep writes to: study, tracking, figures, checkpoints."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ferhpo.data.dataset import FaceData
from ferhpo.driver.ledger import Ledger
from ferhpo.driver.retention import Keeper
from ferhpo.errors import StorageError, first_line
from ferhpo.optional import optional
from ferhpo.publish import sweep_run
from ferhpo.publish.trial_runs import TrialRuns
from ferhpo.reports.live import Drawing
from ferhpo.states import RunState
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import Sweep, save_config
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings
from ferhpo.tuning.finish import is_exported

ERROR_SHIP_SECONDS = 15.0  # how long a sweep that ends early waits for uploads; `ferhpo sync` uploads the rest
Listener = Callable[[Ledger], None]


@contextmanager
def recording(
    sweep: Sweep,
    study: SweepStudy,
    settings: TrackingSettings,
    data: FaceData,
    num_trials: int | None,
    listener: Listener,
) -> Iterator[tuple[Ledger, Drawing, Keeper]]:
    """Open a sweep in tracking; close tracking and study at the end.

    After an error, the sweep's runs end as FAILED; after a KeyboardInterrupt, as STOPPED.
    """
    tracker = drawing = ledger = None
    try:
        sweep.meta.setdefault("data", {"digest": data.digest, "split_name": data.split_name})
        save_config(sweep)  # a resume may have changed it
        tracker = Tracker(sweep.folder, settings)
        sweep_run.open_sweep(sweep, tracker, data)
        tracker.start()
        drawing = Drawing(sweep, tracker, data, settings.report and not settings.off)
        keeper = Keeper(sweep, lambda trial: tracker.is_shipped(trial.number))

        def trial_ended(trial: TrialRecord) -> None:
            with optional("checkpoints were not removed"):
                keeper.measure(trial.number)
                keeper.tidy([trial], lambda other: is_exported(other, settings))
            if ledger is not None and not ledger.is_finished:
                keeper.check_space(num_slots=len(ledger.running) + 1)

        def show(shown: Ledger) -> None:
            with optional("the progress cannot be shown"):
                listener(shown)

        ledger = Ledger(sweep, study, tracker, num_trials, show, _opener(sweep, tracker, data), trial_ended)
        for trial in study.trials():
            keeper.measure(trial.number)
        with optional("checkpoints were not removed"):
            keeper.tidy(study.trials(), lambda other: is_exported(other, settings))
        if not ledger.is_finished:
            keeper.check_space(num_slots=1)
        show(ledger)
        yield ledger, drawing, keeper
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"Resume with: {sweep.resume_command}")
        if tracker is not None and tracker.is_open:
            with suppress(StorageError, OSError):
                end_early(sweep, tracker, ledger, error)
        raise
    finally:
        if drawing is not None:
            drawing.close()
        if tracker is not None:
            with suppress(StorageError, OSError):  # a disk that refuses this too must not hide the first message
                tracker.close(1.0)
        study.close()


def end_early(sweep: Sweep, tracker: Tracker, ledger: Ledger | None, error: BaseException) -> None:
    """Close the open runs in tracking after an error, or after an interruption by the user."""
    is_error = isinstance(error, Exception)
    state, reason = RunState.STOPPED, "interrupted by the user; can be resumed"
    if is_error:
        state, reason = RunState.FAILED, first_line(error)
    runs = TrialRuns(sweep, tracker) if ledger is None else ledger.runs
    runs.interrupt(sweep.trials(), state, str(error) if is_error else reason)
    tracker.close_sweep(state, f"**{sweep.name}** ended before all its trials: {reason}")
    tracker.flush(ERROR_SHIP_SECONDS)


def _opener(sweep: Sweep, tracker: Tracker, data: FaceData) -> Callable[[TrialRecord], None]:
    return lambda trial: sweep_run.open_trial(sweep, tracker, trial, data)
