"""The verb `sweep`: run a sweep from its configuration to the model registry.

Note: nothing is created on disk before everything that can be checked has been checked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.config import Composed, ComputeSettings, validate
from ferhpo.config.compose import compose
from ferhpo.data.dataset import FaceData
from ferhpo.driver.ray_start import RayStart
from ferhpo.storage.study import SweepStudy
from ferhpo.storage.sweep import Sweep, create_sweep, tracking_settings
from ferhpo.tracking import TrackingSettings
from ferhpo.trial.load_data import load_data
from ferhpo.tuning.finish import finish
from ferhpo.tuning.preflight import make_paths_absolute, refuse_existing, resumed, store_warnings, use_free_name
from ferhpo.tuning.result import Finisher, SweepResult
from ferhpo.tuning.session import Listener, recording


def sweep(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep to its end and register its best trial.

    resume: `name` is a sweep that exists; overrides may change num_trials, keep_checkpoints, compute and
        tracking
    new: where the name is taken, use the next free one (demo-2)
    listener: called in the driver with its ledger after every event
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any trial starts.
    """

    existing = resumed(name, overrides, "sweep") if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if new and existing is None:
        use_free_name(composed.config)
    warnings = validate.check_composed(composed)
    config = composed.config
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    validate.check_weights(config, composed.space())
    settings = tracking_settings(config)
    warnings += store_warnings(settings)
    compute = ComputeSettings(**config["compute"])
    with RayStart(compute) as ray_start:
        data = load_data(composed)
        ray_start.wait_if_joined()
        record = existing or create_sweep(composed)
        return _run(record, data, settings, ray_start, compute, warnings, listener)


def run_listed(
    composed: Composed,
    kind: str,
    listed: Sequence[Mapping[str, Any]],
    finisher: Finisher,
    *,
    existing: Sweep | None = None,
    warnings: Sequence[str] = (),
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep whose trials are listed, each with its `sample` and `seed`, or go on with the `existing` one.

    The configuration is checked by whoever calls. finisher: closes the sweep in the place of `finish`
    """
    config = composed.config
    make_paths_absolute(config)
    if existing is None:
        refuse_existing(config)
    settings = tracking_settings(config)
    told = [*warnings, *store_warnings(settings)]
    compute = ComputeSettings(**config["compute"])
    with RayStart(compute) as ray_start:
        data = load_data(composed)
        ray_start.wait_if_joined()
        record = existing or create_sweep(composed, kind, listed)
        return _run(record, data, settings, ray_start, compute, told, listener, finisher)


def _run(
    record: Sweep,
    data: FaceData,
    settings: TrackingSettings,
    ray_start: "RayStart",
    compute: ComputeSettings,
    warnings: list[str],
    listener: Listener,
    finisher: Finisher | None = None,
) -> SweepResult:
    composed, config = record.composed, record.config
    space, seed = composed.space(), int(config["seed"])
    study = SweepStudy(record.folder, space, config["sampler"], seed, record.objective, record.listed)
    with recording(record, study, settings, data, config["num_trials"], listener) as (ledger, drawing, keeper):
        from ferhpo.driver import ray_cluster, ray_tune

        try:
            ray_start.result()
            slots = ray_cluster.find_slots(compute)
            finished = ledger.is_finished or ray_tune.run(ledger, data, compute, record.objective, slots)
        except KeyboardInterrupt:
            finished = False
        if not finished:
            ledger.interrupt()
        if finisher is not None:
            warnings = [*warnings, *drawing.wait()]
            return finisher(record, ledger.tracker, settings, data, finished, warnings)
        return finish(record, ledger.tracker, drawing, keeper, settings, data.digest, finished, warnings)
