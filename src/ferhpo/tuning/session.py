"""Open and close what records a running sweep: study, tracking, figures, checkpoints on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ferhpo.data.dataset import FaceData
from ferhpo.driver.ledger import Ledger
from ferhpo.driver.retention import Keeper
from ferhpo.errors import StorageError, first_line
from ferhpo.publish import sweep_run
from ferhpo.publish.trial_runs import TrialRuns
from ferhpo.reports.live import Drawing
from ferhpo.states import RunState
from ferhpo.storage.study import SweepStudy
from ferhpo.storage.sweep import Sweep, save_config
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings
from ferhpo.tuning.finish import is_exported

ERROR_SHIP_SECONDS = 15.0  # and one that an error ended; `ferhpo sync` ships the rest
Listener = Callable[[Ledger], None]


@contextmanager
def recording(
    record: Sweep,
    study: SweepStudy,
    settings: TrackingSettings,
    data: FaceData,
    num_trials: int | None,
    listener: Listener,
) -> Iterator[tuple[Ledger, Drawing, Keeper]]:
    """Open a sweep in tracking; let go of tracking and study at the end. An error ends it there too, as FAILED."""
    tracker = drawing = ledger = None
    try:
        record.meta.setdefault("data", {"digest": data.digest, "split_name": data.split_name})
        save_config(record)  # a resume may have changed it
        tracker = Tracker(record.folder, settings)
        sweep_run.open_sweep(record, tracker, data)
        tracker.start()
        drawing = Drawing(record, tracker, data, settings.report and not settings.off)
        keeper = Keeper(record, lambda trial: drawing.is_drawn(trial) and tracker.is_shipped(trial.number))

        def trial_ended(trial: TrialRecord) -> None:
            drawing.trial_ended(trial)
            keeper.measure(trial.number)
            keeper.tidy(study.trials(), lambda other: is_exported(other, settings))
            if ledger is not None and not ledger.is_finished:
                keeper.check_space(num_slots=len(ledger.running) + 1)

        ledger = Ledger(record, study, tracker, num_trials, listener, _opener(record, tracker, data), trial_ended)
        for trial in study.trials():
            keeper.measure(trial.number)
        if not ledger.is_finished:
            keeper.check_space(num_slots=1)
        yield ledger, drawing, keeper
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"{record.resume_command} goes on")
        if tracker is not None and tracker.is_open:
            with suppress(StorageError):
                end_early(record, tracker, ledger, error)
        raise
    finally:
        if drawing is not None:
            drawing.close()
        if tracker is not None:
            tracker.close(1.0)
        study.close()


def end_early(record: Sweep, tracker: Tracker, ledger: Ledger | None, error: BaseException) -> None:
    """End the runs in tracking that are open, because of an error or of a person."""
    is_error = isinstance(error, Exception)
    state, why = RunState.STOPPED, "interrupted by the user; can be resumed"
    if is_error:
        state, why = RunState.FAILED, first_line(error)
    runs = TrialRuns(record, tracker) if ledger is None else ledger.runs
    runs.interrupt(record.trials(), state, str(error) if is_error else why)
    tracker.close_sweep(state, f"**{record.name}** ended before its trials: {why}")
    tracker.flush(ERROR_SHIP_SECONDS)


def _opener(record: Sweep, tracker: Tracker, data: FaceData) -> Callable[[TrialRecord], None]:
    return lambda trial: sweep_run.open_trial(record, tracker, trial, data)
