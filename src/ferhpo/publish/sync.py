"""Upload the records left in a spool (the verb `sync`)."""

from typing import TYPE_CHECKING

from ferhpo.addresses.secrets import hide_password
from ferhpo.storage.sweep import Sweep, load_sweep, save_config
from ferhpo.storage.trial_record import TrialRecord

if TYPE_CHECKING:
    from ferhpo.tracking import Tracker


def sync(name: str, output_dir: str = "mlruns", uri: str | None = None) -> int:
    """Upload the records left in a sweep's spool to MLflow and return their number. See `ship_and_register`."""
    return ship_and_register(name, output_dir, uri)[0]


def ship_and_register(
    name: str, output_dir: str = "mlruns", uri: str | None = None
) -> tuple[int, tuple[str, int] | None]:
    """Upload the records left in a sweep's spool, then register its best model, unless it is registered already.

    uri: the store's address, if it has a password, because passwords are not stored; or another store, which then
        becomes the sweep's
    Returns the number of records, and (model name, version) or None. Raises SweepError, ConfigError, TrackingError, and
    StillRunning if the sweep is running: then it uploads its records itself.
    """
    from ferhpo.storage.sweep import KIND
    from ferhpo.tracking import refuse_lost_store
    from ferhpo.tracking import sync as upload
    from ferhpo.tracking.registry import ModelGone

    sweep = load_sweep(name, output_dir)
    section, previous_uri = sweep.config["tracking"], sweep.config["tracking"]["uri"]
    if uri is not None:
        section["uri"] = uri
        hide_password(sweep.config)
    settings = sweep.tracking
    refuse_lost_store(sweep.folder, settings)
    num_records = upload(sweep.folder, settings, lambda tracker: _catch_up(sweep, tracker))
    if section["uri"] != previous_uri:
        save_config(sweep)
    if sweep.meta["kind"] == KIND:  # a confirmation registers its choice when it is resumed
        return num_records, None
    best = sweep.best()
    try:
        return num_records, _register(sweep, best)
    except ModelGone:
        model = None if best is None else sweep.kept_folder(best.number) / "model"
        if best is None or model is None or not model.exists():
            raise
    number = best.number
    num_records += upload(sweep.folder, settings, lambda tracker: tracker.log_model(number, model, again=True))
    return num_records, _register(sweep, best)


def _register(sweep: Sweep, best: TrialRecord | None) -> tuple[str, int] | None:
    """Register the best model; raises ModelGone if it was deleted in MLflow."""
    from ferhpo.publish.models import register
    from ferhpo.tracking import Tracker

    tracker = Tracker(sweep.folder, sweep.tracking)
    try:
        return register(sweep, best, tracker, sweep.tracking)
    finally:
        tracker.close(0)


def _catch_up(sweep: Sweep, tracker: "Tracker") -> None:
    """Record what a killed driver wrote to the study only. Trials whose run it had not opened are left to a resume."""
    from ferhpo.publish.trial_runs import TrialRuns

    opened = [trial for trial in sweep.trials() if tracker.was_opened(trial.number)]
    TrialRuns(sweep, tracker).catch_up(opened, on_close=lambda trial: None)
