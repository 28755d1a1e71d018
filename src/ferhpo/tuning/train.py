"""Run a single training without Ray, recorded as a sweep of one trial (the verb `train`)."""

import logging
from dataclasses import replace
from pathlib import Path

from ferhpo.driver import local
from ferhpo.keys import Overrides
from ferhpo.space import Space
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.text import STEPS
from ferhpo.trial.load_data import load_data
from ferhpo.tuning.finish import finish
from ferhpo.tuning.fixed_cpu import fixed_cpu
from ferhpo.tuning.preflight import prepare
from ferhpo.tuning.result import SweepResult
from ferhpo.tuning.session import Listener, recording

SAMPLER = {"_target_": "optuna.samplers.RandomSampler"}  # for a space without draws


def train(
    name: str,
    overrides: Overrides = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Train one network with the configuration as it is, without Ray; recorded as a sweep of one trial.

    Arguments and errors are those of `sweep`.
    """
    import torch

    from ferhpo.scoring.device_data import default_device

    prepared = prepare(name, overrides, "train", resume=resume, new=new, config_dir=config_dir)
    config = prepared.composed.config
    logging.getLogger(STEPS).info("reading the data set")
    data = load_data(prepared.composed)
    sweep = prepared.open("train", data)
    study = SweepStudy(sweep.folder, Space((), config), SAMPLER, int(config["seed"]), sweep.objective)
    uses_gpu = sweep.run_config.compute.uses_gpu
    num_gpus, has_gpu = (None, default_device().type == "cuda") if uses_gpu else (0.0, False)
    with recording(sweep, study, sweep.tracking, data, 1, listener) as (ledger, drawing, keeper):
        finished = ledger.is_finished or local.run(
            ledger, data, fixed_cpu(sweep, torch.get_num_threads(), num_gpus, has_gpu=has_gpu)
        )
        if not finished:
            ledger.interrupt()
        result = finish(
            sweep, ledger.tracker, drawing, keeper, sweep.tracking, data.digest, finished, prepared.warnings
        )
        return replace(result, stop_reason="" if finished else ledger.stop_reason)
