"""Rules between the sections of a configuration."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ferhpo.config.folds import num_folds, report_unit
from ferhpo.space import Space


def top_level_faults(config: Mapping[str, Any], for_sweep: bool) -> Iterator[str]:
    num_trials, seed = config.get("num_trials"), config.get("seed")
    if for_sweep and num_trials is not None and (not isinstance(num_trials, int) or num_trials < 1):
        yield f"num_trials is {num_trials}; it must be 1 or more"
    keep = config.get("keep_checkpoints", "all")
    if keep != "all" and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
        yield f"keep_checkpoints is {keep}; it must be 1 or more, or all"
    if not isinstance(seed, int) or seed < 0:
        yield f"seed is {seed}; it must be an integer of 0 or more"
    allowed = config.get("allowed_targets") or []
    if not isinstance(allowed, list) or not all(isinstance(module, str) and module for module in allowed):
        yield f"allowed_targets is {allowed}; it must be a list of Python modules, as [my_package.networks]"
    name = str(config.get("name"))
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        yield f"name is {name}; it becomes a folder: use letters, digits, '-', '_' and '.'"


def sweep_rules(config: Mapping[str, Any], space: Space) -> tuple[list[str], list[str]]:
    """Rules between sections."""
    faults: list[str] = []
    warnings: list[str] = []
    scheduler, folds = config["scheduler"], num_folds(config)
    limit_key, limit = (
        ("trainer.max_epochs", config["trainer"].get("max_epochs")) if folds is None else ("data.folds", folds)
    )
    if not space.draws:
        faults.append("space is empty, so every trial would be the same; give it a draw, or use ferhpo train")
    for draw in space.draws:
        if draw.path.split(".")[0] == "data":
            faults.append(f"space.{draw.path} varies, and data are read once for all trials; set {draw.path} instead")
    for key in ("max_t", "grace_period"):
        value = scheduler.get(key)
        if isinstance(value, int | float) and isinstance(limit, int) and value > limit:
            faults.append(f"scheduler.{key} is {value}, but {limit_key} is {limit}; set scheduler.{key}={limit}")
    unit = report_unit(config)
    if not scheduler["_target_"].endswith("FIFOScheduler") and scheduler.get("time_attr") != unit:
        why = "" if folds is None else f" where data.folds is {folds} and data.fold is null"
        attr = scheduler.get("time_attr")
        faults.append(f"scheduler.time_attr is {attr}; ferhpo reports {unit}s{why}: set scheduler.time_attr={unit}")
    if scheduler["_target_"].endswith("MedianStoppingRule"):
        # Either would let it pause trials, as Ray does by default for the second.
        if not scheduler.get("hard_stop", True):
            faults.append("scheduler.hard_stop is false: trials would pause, and do not here; set it to true")
        if scheduler.get("min_time_slice", 0) != math.inf:
            given = scheduler.get("min_time_slice", "not set, which is 0")
            faults.append(
                f"scheduler.min_time_slice is {given}: trials would pause, and do not here; "
                "set it to .inf (inf on the command line)"
            )
    name = config["sampler"]["_target_"].rpartition(".")[2]
    size, num_continuous = space.size() if space.draws else (0, 0)
    if name == "GridSampler" and num_continuous:
        for draw in space.draws:
            if draw.num_points is None:
                faults.append(f"space.{draw.path} is continuous, and a grid needs points; give it a step or choices")
    if config.get("num_trials") is None and name != "GridSampler":
        faults.append("num_trials is null, and only sampler=grid comes to an end by itself; set num_trials")
    if name in ("GridSampler", "CmaEsSampler") and space.is_conditional:
        draws = ", ".join(f"space.{d.path}" for d in space.draws if d.when or isinstance(d.repeat, str))
        warnings.append(f"sampler is {name}, which does not know conditions ({draws}); tpe and random do")
    num_trials = config.get("num_trials")
    if (
        num_continuous == 0
        and space.draws
        and isinstance(num_trials, int)
        and size < num_trials
        and name != "GridSampler"
    ):
        warnings.append(f"num_trials is {num_trials}, but the space has {size:,} points: some will be drawn twice")
    return faults, warnings
