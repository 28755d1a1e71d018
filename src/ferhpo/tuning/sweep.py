"""Run a sweep from its configuration to the model registry (the verb `sweep`).

Note: nothing is created on disk before all checks have passed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ferhpo.config import Composed
from ferhpo.data.dataset import FaceData
from ferhpo.driver.ray_start import RayStart
from ferhpo.keys import Overrides
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import Sweep
from ferhpo.text import STEPS, plural
from ferhpo.trial.load_data import load_data
from ferhpo.tuning.finish import finish
from ferhpo.tuning.fixed_cpu import fixed_cpu
from ferhpo.tuning.planning import forecast as forecasts
from ferhpo.tuning.planning.gpu_share import with_share
from ferhpo.tuning.preflight import Prepared, prepare, prepare_composed
from ferhpo.tuning.result import Finisher, SweepResult
from ferhpo.tuning.session import Listener, end_early, recording
from ferhpo.tuning.warm_start import earlier_trials

log = logging.getLogger(STEPS)


def sweep(
    name: str,
    overrides: Overrides = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep to its end and register its best trial.

    resume: resume the sweep `name`; overrides may then change num_trials, keep_checkpoints, budget, compute and
        tracking
    new: if the name is taken, use the next free one (demo-2)
    listener: called in the driver with its ledger after every event
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any trial starts.
    """
    return _run(prepare(name, overrides, "sweep", resume=resume, new=new, config_dir=config_dir), "sweep", listener)


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
    """Run a sweep whose trials are listed, each with its `sample` and `seed`, or resume the `existing` one.

    composed: a checked configuration; finisher: called instead of `finish`
    """
    return _run(prepare_composed(composed, existing, warnings), kind, listener, listed, finisher)


def _run(
    prepared: Prepared,
    kind: str,
    listener: Listener,
    listed: Sequence[Mapping[str, Any]] = (),
    finisher: Finisher | None = None,
) -> SweepResult:
    run_config, config = prepared.run_config, prepared.composed.config
    start, is_new = time.monotonic(), prepared.existing is None
    with RayStart(run_config.compute) as ray_start:
        log.info("reading the data set, starting Ray")
        data = load_data(prepared.composed)
        ray_start.wait_if_joined()
        earlier, said = earlier_trials(prepared.composed, run_config.space) if is_new else ([], [])
        for text in said:
            log.info(text)
        sweep = prepared.open(kind, data, listed, earlier)
        objective, seed = run_config.objective, int(config["seed"])
        given = {"listed": sweep.listed, "first": config.get("first") or [], "earlier": sweep.earlier}
        study = SweepStudy(sweep.folder, run_config.space, config["sampler"], seed, objective, **given)
        result = _run_trials(sweep, study, data, ray_start, prepared.warnings, listener, finisher)
    forecast = forecasts.load(config) if is_new else None
    if forecast is None or not result.finished:
        return result
    return replace(result, forecast=forecasts.comparison(forecast, sweep.trials(), time.monotonic() - start))


def _run_trials(
    sweep: Sweep,
    study: SweepStudy,
    data: FaceData,
    ray_start: RayStart,
    warnings: list[str],
    listener: Listener,
    finisher: Finisher | None,
) -> SweepResult:
    tracking, compute = sweep.tracking, sweep.run_config.compute
    with recording(sweep, study, tracking, data, sweep.config["num_trials"], listener) as (ledger, drawing, keeper):
        from ferhpo.driver import ray_cluster, ray_tune

        try:
            if not ray_start.done.is_set():
                log.info("waiting for Ray to start")
            ray_start.result()
            compute = with_share(sweep, data, compute)
            slots = ray_cluster.find_slots(compute)
            if not ledger.is_finished:
                log.info(_slots_text(slots))
            finished = ledger.is_finished or ray_tune.run(
                ledger,
                data,
                compute,
                sweep.objective,
                slots,
                hardware=fixed_cpu(sweep, slots.num_threads, slots.gpus, has_gpu=slots.gpus > 0),
                on_lost=lambda error: end_early(sweep, ledger.tracker, ledger, error),
            )
        except KeyboardInterrupt:
            finished = False
        if not finished:
            ledger.interrupt()
        if finisher is not None:
            result = finisher(sweep, ledger.tracker, tracking, data, finished, [*warnings, *drawing.wait()])
        else:
            result = finish(sweep, ledger.tracker, drawing, keeper, tracking, data.digest, finished, warnings)
        return replace(result, stop_reason="" if finished else ledger.stop_reason)


def _slots_text(slots: Any) -> str:
    gpus = f" and {slots.gpus:g} GPU" if slots.gpus else ""
    return f"starting {plural(slots.num_slots, 'trial')} at a time, each on {slots.cpus:g} CPU{gpus}"
