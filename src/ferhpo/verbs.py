"""The verbs that answer and return, as Python functions; sweep and train are in running.py.

Heavy packages are imported inside the functions: `ferhpo --help` loads none of torch, ray and mlflow.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from ferhpo.composing import compose, hide_password
from ferhpo.cross_validation import fold_data
from ferhpo.data.dataset import TRAIN
from ferhpo.errors import FerhpoError, SweepError
from ferhpo.folds import num_folds
from ferhpo.record import META, Sweep, load_sweep, save_config
from ferhpo.starting import load_data, tracking_settings

if TYPE_CHECKING:
    from ferhpo.planning import Plan
    from ferhpo.registry import Promotion
    from ferhpo.tracking import Tracker


def check(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> list[str]:
    """Raise ConfigError with every fault of a configuration; return its warnings."""
    from ferhpo import checking

    composed = compose(name, overrides, config_dir)
    return checking.check(composed, for_sweep=bool(composed.config["space"]))


def plan(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> "Plan":
    """What a sweep would do: size of its space, cost of its networks, disk, time. Raises ConfigError, DataError."""
    from ferhpo import checking, planning

    composed = compose(name, overrides, config_dir)
    checking.check(composed)
    data = load_data(composed)
    if num_folds(composed.config) is not None:  # all parts are of one size, but for a few groups
        data = fold_data(data, composed.config["data"], 0)
    num_train = int((data.split == TRAIN).sum())
    return planning.make_plan(composed, num_train, data.image_size, data.channels, data.num_classes)


def promote(name: str, alias: str = "champion", version: int | None = None, output_dir: str = "mlruns") -> "Promotion":
    """Point an alias at a version (the newest by default) of the model that sweep `name` registered."""
    from ferhpo import registry

    record = load_sweep(name, output_dir)
    settings = tracking_settings(record.config)
    return registry.promote(settings, settings.registered_name(record.name), version, alias)


def store_of(name: str, output_dir: str = "mlruns") -> str:
    """The address of the MLflow store of a sweep, without a password."""
    return tracking_settings(load_sweep(name, output_dir).config).shown_uri


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
    from ferhpo import publishing
    from ferhpo.confirming import KIND
    from ferhpo.tracking import Tracker
    from ferhpo.tracking import sync as ship

    record = load_sweep(name, output_dir)
    section, before = record.config["tracking"], record.config["tracking"]["uri"]
    if uri is not None:
        section["uri"] = uri
        hide_password(record.config)
    settings = tracking_settings(record.config)
    num_records = ship(record.folder, settings, lambda tracker: _catch_up(record, tracker))
    if section["uri"] != before:
        save_config(record)
    if record.meta["kind"] == KIND:  # its resume registers what it chose
        return num_records, None
    tracker = Tracker(record.folder, settings)
    try:
        return num_records, publishing.register(record, record.best(), tracker, settings)
    finally:
        tracker.close(0)


def _catch_up(record: Sweep, tracker: "Tracker") -> None:
    """What a killed driver told the study alone, of trials that it had opened: a resume opens the others."""
    from ferhpo.trial_runs import TrialRuns

    opened = [trial for trial in record.trials() if tracker.was_opened(trial.number)]
    TrialRuns(record, record.space(), tracker).catch_up(opened, on_close=lambda trial: None)


def report(name: str, trial: int | None = None, out: Path | None = None, output_dir: str = "mlruns") -> Path:
    """Write the page of a sweep, or of one of its trials, and return its path.

    out: the file to write; by default report/index.html in the sweep's folder, or report/trial-<number>/index.html
    Raises SweepError where there is no such sweep or trial, StorageError where the disk refuses.
    """
    from ferhpo.reports.report import sweep_report, trial_report

    record = load_sweep(name, output_dir)
    return sweep_report(record, out) if trial is None else trial_report(record, trial, out)


def list_sweeps(output_dir: str = "mlruns") -> list[dict[str, Any]]:
    """Every sweep in `output_dir`: name, when it was made, trials by state, value of the best, how many records are
    not in MLflow yet, and whether it runs.

    One that cannot be read has its `error` instead, and hides none of the others.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(Path(output_dir).glob(f"*/{META}")):
        try:
            record = load_sweep(path.parent)
            trials, best = record.trials(), record.best()
            num_records, is_running = unshipped(record)
        except FerhpoError as error:
            rows.append({"name": path.parent.name, "error": str(error)})
            continue
        rows.append(
            {
                "name": record.name,
                "created": record.meta["created"],
                "num_trials": len(trials),
                "counts": dict(Counter(trial.state for trial in trials)),
                "best": None if best is None else best.value,
                "unshipped": num_records,
                "runs": is_running,
            }
        )
    return rows


def unshipped(record: Sweep) -> tuple[int, bool]:
    """How many records of a sweep are not in MLflow yet, and whether a driver runs it, and ships them itself."""
    from ferhpo.journal import LOCK
    from ferhpo.tracking import is_held, num_unshipped

    return num_unshipped(record.folder, tracking_settings(record.config)), is_held(record.folder, LOCK)


def ui(output_dir: str = "mlruns", host: str = "127.0.0.1", port: int = 5000) -> NoReturn:
    """Serve the MLflow UI of the default store until it is interrupted.

    Raises KeyboardInterrupt then, and SweepError where there is no store or the server ends by itself.
    """
    from ferhpo.tracking import TrackingSettings

    settings = TrackingSettings(output_dir=Path(output_dir))
    if settings.sqlite_path is None or not settings.sqlite_path.exists() or not settings.sqlite_path.stat().st_size:
        raise SweepError(f"there is no store at {settings.shown_uri}; run a sweep first, or name its --output-dir")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.store_uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Without its job runners and telemetry the server is 2 processes instead of 15.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    print(f"http://{host}:{port}  (ctrl-C ends it)", flush=True)
    server = subprocess.Popen(command, env={**os.environ, **quiet})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.wait()
        raise SweepError(f"the server ended by itself; where port {port} is taken, --port names another")
    finally:  # MLflow's command starts the server as a child and does not take it along when it is ended
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(server.pid).children(recursive=True):
                child.terminate()
        server.terminate()
        server.wait()


def doctor(output_dir: str = "mlruns") -> dict[str, dict[str, Any]]:
    """Versions, devices, store, disk, and records that are not shipped."""
    from ferhpo.diagnosis import examine

    return examine(output_dir)


def describe_data(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Any]:
    """Counts, size, duplicates, conflicting labels, blank images and overlap between splits of a data set.

    name: an option of the group `data`, as fer2013
    """
    from ferhpo.data.describe import describe

    overrides = [re.sub(r"^([+~]*+)(?!data\.)", r"\1data.", text) for text in overrides]
    # Not a sweep's: what it sets for its own data set would stand beside the settings of this one.
    return describe(load_data(compose(None, [f"data={name}", *overrides], config_dir)))
