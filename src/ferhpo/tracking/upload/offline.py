"""Upload to MLflow while no driver runs: the records left in a sweep's spool, and results obtained later."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.tracker import Tracker


def sync(folder: Path, settings: TrackingSettings, catch_up: Callable[[Tracker], None] = lambda tracker: None) -> int:
    """Upload the records left in a sweep's spool and return their number.

    catch_up: called first, to append what a killed driver had no time to record
    No driver runs, so runs that are still open are then closed as STOPPED; resuming the sweep reopens them.
    Raises StillRunning if a running sweep has the spool open, TrackingError if the store is unreachable.
    """
    tracker = Tracker(folder, settings)
    try:
        catch_up(tracker)
        tracker.close_open_runs()
        return tracker.upload_now()
    finally:
        tracker.close(0)


def add_to_run(
    folder: Path,
    settings: TrackingSettings,
    number: int | None,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    timeout_seconds: float,
) -> int:
    """Add tags and metrics to a run of the sweep in `folder` after its end.

    number: the trial's, or None for the parent run; a run that was never opened is left out
    Returns the number of records that are not in MLflow yet. Raises StillRunning if a running sweep has the spool open.
    """
    tracker = Tracker(folder, settings)
    try:
        if tracker.sweep_id is not None and (number is None or tracker.was_opened(number)):
            tracker.set_tags(number, tags)
            tracker.log_metrics(number, metrics)
            tracker.start()
        return tracker.flush(timeout_seconds)
    finally:
        tracker.close(1.0)
