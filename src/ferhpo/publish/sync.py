"""The verbs `sync` and `promote`: upload what a sweep could not, and set an alias of its registered model."""

from typing import TYPE_CHECKING

from ferhpo.config.compose import hide_password
from ferhpo.storage.sweep import Sweep, load_sweep, save_config

if TYPE_CHECKING:
    from ferhpo.tracking import Tracker
    from ferhpo.tracking.registry import Promotion


def promote(name: str, alias: str = "champion", version: int | None = None, output_dir: str = "mlruns") -> "Promotion":
    """Point an alias at a version (the newest by default) of the model that sweep `name` registered."""
    from ferhpo.tracking import registry

    record = load_sweep(name, output_dir)
    return registry.promote(record.tracking, record.tracking.registered_name(record.name), version, alias)


def store_of(name: str, output_dir: str = "mlruns") -> str:
    """The address of the MLflow store of a sweep, without a password."""
    return load_sweep(name, output_dir).tracking.shown_uri


def sync(name: str, output_dir: str = "mlruns", uri: str | None = None) -> int:
    """Ship what a sweep's spool still holds to MLflow; returns the number of records. See `ship_and_register`."""
    return ship_and_register(name, output_dir, uri)[0]


def ship_and_register(
    name: str, output_dir: str = "mlruns", uri: str | None = None
) -> tuple[int, tuple[str, int] | None]:
    """Ship what a sweep's spool still holds, then register its best model, for which its end may have had no store.

    uri: the store's address, if it has a password, which is kept nowhere; or another store, which then is the sweep's
    Returns the number of records, and (model name, version) or None. Raises SweepError, ConfigError, TrackingError, and
    StillRunning where the sweep runs and does it itself.
    """
    from ferhpo.publish.models import register
    from ferhpo.storage.sweep import KIND
    from ferhpo.tracking import Tracker
    from ferhpo.tracking import sync as ship

    record = load_sweep(name, output_dir)
    section, before = record.config["tracking"], record.config["tracking"]["uri"]
    if uri is not None:
        section["uri"] = uri
        hide_password(record.config)
    settings = record.tracking
    num_records = ship(record.folder, settings, lambda tracker: _catch_up(record, tracker))
    if section["uri"] != before:
        save_config(record)
    if record.meta["kind"] == KIND:  # its resume registers what it chose
        return num_records, None
    tracker = Tracker(record.folder, settings)
    try:
        return num_records, register(record, record.best(), tracker, settings)
    finally:
        tracker.close(0)


def _catch_up(record: Sweep, tracker: "Tracker") -> None:
    """What a killed driver told the study alone, of trials that it had opened: a resume opens the others."""
    from ferhpo.publish.trial_runs import TrialRuns

    opened = [trial for trial in record.trials() if tracker.was_opened(trial.number)]
    TrialRuns(record, tracker).catch_up(opened, on_close=lambda trial: None)
