"""Upload to MLflow while no driver runs: what a sweep left in its folder, and what is learned about it later."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.tracker import Tracker


def sync(folder: Path, settings: TrackingSettings, catch_up: Callable[[Tracker], None] = lambda tracker: None) -> int:
    """Ship what a sweep left in its folder and return the number of records.

    catch_up: records what a driver that was killed had no time to record
    No driver runs it, so runs that are still open after that are ended first; a resume opens them again.
    Raises StillRunning if a running sweep holds the folder, TrackingError if the store is away.
    """
    tracker = Tracker(folder, settings)
    try:
        catch_up(tracker)
        tracker.close_left_open()
        return tracker.ship_now()
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
    """Set tags and values of a run of the sweep in `folder` after its end; returns the records that are left to ship.

    Does nothing for a run that was never opened. Raises TrackingError if a running sweep holds the folder.
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
