"""Rules for the top-level keys of a configuration, and between its sections."""

import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ferhpo.components import own_code
from ferhpo.components.kinds import component, ignores_conditions, is_fifo, is_grid, is_median_rule
from ferhpo.config.folds import num_folds, report_unit
from ferhpo.scoring.metrics import chosen, direction
from ferhpo.space import Space

MOST_TRIALS = 10**9
MOST_GRID_POINTS = 1_000_000  # Optuna lists them all
MOST_BRACKETS, LEAST_REDUCTION = 100, 1.1  # Ray lists the rungs of each bracket
MOST_NAME_BYTES = 200  # a folder name has at most 255, and a confirmation adds to it


def top_level_faults(config: Mapping[str, Any], for_sweep: bool) -> Iterator[str]:
    """Yield the faults of the keys that are not in a section."""
    num_trials, seed = config.get("num_trials"), config.get("seed")
    if for_sweep and num_trials is not None and (not _is_whole(num_trials) or num_trials < 1):
        yield f"num_trials is {num_trials}; it must be a whole number of 1 or more"
    elif for_sweep and num_trials is not None and num_trials > MOST_TRIALS:
        yield f"num_trials is {num_trials!s:.40}; it must be at most {MOST_TRIALS:,}"
    keep = config.get("keep_checkpoints", "all")
    if keep != "all" and (not _is_whole(keep) or keep < 1):
        yield f"keep_checkpoints is {keep}; it must be a whole number of 1 or more, or all"
    if not _is_whole(seed) or seed < 0:
        yield f"seed is {seed}; it must be an integer of 0 or more"
    earlier = config.get("warm_start") or []
    if not isinstance(earlier, list) or not all(isinstance(name, str) and name == Path(name).name for name in earlier):
        yield f"warm_start is {earlier!r:.60}; it must be a list of names of sweeps in output_dir, e.g. [demo]"
    elif for_sweep and (earlier or config.get("first")) and is_grid(config["sampler"]):
        yield "sampler is a grid, which runs every point of the space once; first and warm_start do not apply to it"
    allowed = config.get("allowed_targets") or []
    if not isinstance(allowed, list) or not all(isinstance(module, str) and module for module in allowed):
        yield f"allowed_targets is {allowed}; it must be a list of Python modules, e.g. [my_package.networks]"
    elif unknown := [module for module in allowed if not own_code.trusts(module)]:
        yield (
            f"allowed_targets is [{', '.join(allowed)}] in a file, and a file cannot allow modules, since anyone may "
            f"have written it; add allowed_targets=[{', '.join(unknown)}] to the command line if you trust them, or "
            f"put their Python files into {own_code.FOLDER}/"
        )
    yield from name_faults(str(config.get("name")), str(config.get("output_dir")), config.get("tracking") or {})


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def name_faults(name: str, output_dir: str, tracking: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fault of a sweep's name, which is the name of its folder, beside the store in output_dir."""
    shown = name if name.isprintable() and len(name) <= 60 else f"{name[:60]!r}" + ("..." if len(name) > 60 else "")
    uri = tracking.get("uri")
    store = [Path(uri.removeprefix("sqlite:///")).name] if isinstance(uri, str) and uri.startswith("sqlite:///") else []
    kept = {f"{file}{end}" for file in ("mlflow.db", *store) for end in ("", "-wal", "-shm", "-journal")}
    if unicodedata.normalize("NFC", name) != name:
        yield (
            f"name is {shown}, whose accents are separate characters, so that it looks like another name; write "
            f"{unicodedata.normalize('NFC', name)} in Unicode's form NFC"
        )
    elif not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        yield f"name is {shown}; it is used as a folder name and may contain letters, digits, '-', '_' and '.'"
    elif name.startswith("-"):
        yield f"name is {shown}; a name must not start with '-', which starts an option; write {name.lstrip('-')}"
    elif len(name.encode()) > MOST_NAME_BYTES:
        yield f"name is {shown}, with {len(name.encode())} bytes; it must have at most {MOST_NAME_BYTES}"
    elif name.lower() in kept | {"artifacts"}:
        yield f"name is {name}, which is a file of the MLflow store in output_dir ({output_dir}); choose another name"


def scheduler_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a scheduler that would have rungs without end, before it is built."""
    brackets, reduction = values.get("brackets", 1), values.get("reduction_factor", 3)
    if isinstance(brackets, int | float) and not brackets <= MOST_BRACKETS:
        yield f"scheduler.brackets is {brackets!s:.40}; it must be at most {MOST_BRACKETS}"
    if isinstance(reduction, int | float) and not reduction >= LEAST_REDUCTION:
        yield f"scheduler.reduction_factor is {reduction}; it must be at least {LEAST_REDUCTION}"


def objective_warnings(config: Mapping[str, Any]) -> list[str]:
    """Return a warning if the objective is optimized in the direction in which it gets worse."""
    metric, mode = config["objective"].get("metric"), config["objective"].get("mode")
    better = direction(metric)
    if mode in (None, better) or metric in {f"val_{name}" for name in chosen(config)[1]}:
        return []
    size = "smaller" if better == "min" else "larger"
    return [
        f"objective.mode is {mode}; {size} values of {metric} are better; remove objective.mode, or set it to {better}"
    ]


def sweep_rules(config: Mapping[str, Any], space: Space) -> tuple[list[str], list[str]]:
    """Return (faults, warnings) of what the sections of a sweep's configuration require of each other."""
    faults: list[str] = []
    warnings: list[str] = []
    scheduler, sampler, folds = config["scheduler"], config["sampler"], num_folds(config)
    grid = is_grid(sampler)
    limit_key, limit = (
        ("trainer.max_epochs", config["trainer"].get("max_epochs")) if folds is None else ("data.folds", folds)
    )
    if not space.draws:
        faults.append("space is empty, so all trials would be the same; add a draw, or use ferhpo train")
    for draw in space.draws:
        if draw.path.split(".")[0] == "data":
            faults.append(
                f"space.{draw.path}: data settings cannot be searched, because the data set is loaded once per sweep; "
                f"set {draw.path} instead"
            )
    for key in ("max_t", "grace_period"):
        value = scheduler.get(key)
        if isinstance(value, int | float) and isinstance(limit, int) and value > limit:
            faults.append(f"scheduler.{key} is {value}, but {limit_key} is {limit}; set scheduler.{key}={limit}")
    unit = report_unit(config)
    if not is_fifo(scheduler) and scheduler.get("time_attr") != unit:
        why = "" if folds is None else f", because data.folds is {folds} and data.fold is null"
        attr = scheduler.get("time_attr")
        faults.append(
            f"scheduler.time_attr is {attr}; trials report once per {unit}{why}; set scheduler.time_attr={unit}"
        )
    if is_median_rule(scheduler):
        pauses = "this would pause trials, which ferhpo does not support"
        if not scheduler.get("hard_stop", True):
            faults.append(f"scheduler.hard_stop is false; {pauses}; set it to true")
        if scheduler.get("min_time_slice", 0) != math.inf:
            given = scheduler.get("min_time_slice", "not set, and Ray's default is 0")
            faults.append(f"scheduler.min_time_slice is {given}; {pauses}; set it to .inf (inf on the command line)")
    size, num_continuous = space.size() if space.draws else (0, 0)
    if grid and num_continuous:
        for draw in space.draws:
            if draw.num_points is None:
                faults.append(f"space.{draw.path} is continuous; a grid requires discrete draws; add a step or choices")
    if grid and size > MOST_GRID_POINTS:
        faults.append(f"space has {size:,} points; a grid may have at most {MOST_GRID_POINTS:,}; use another sampler")
    if config.get("num_trials") is None and not grid:
        faults.append("num_trials is null; only sampler=grid ends without a limit; set num_trials")
    if ignores_conditions(sampler) and space.is_conditional:
        draws = ", ".join(f"space.{d.path}" for d in space.draws if d.when or isinstance(d.repeat, str))
        name = component(sampler, "sampler").__name__
        warnings.append(f"sampler is {name}, which does not support conditional draws ({draws}); tpe and random do")
    num_trials = config.get("num_trials")
    if num_continuous == 0 and space.draws and isinstance(num_trials, int) and size < num_trials and not grid:
        warnings.append(f"num_trials is {num_trials}, but the space has {size:,} points; some will be sampled twice")
    return faults, warnings
