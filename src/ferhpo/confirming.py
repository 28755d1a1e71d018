"""The verb `confirm`: the best trials of a sweep trained again on fresh seeds, the choice by their mean, then the test
images once.

A confirmation is a sweep of its own, NAME-confirm, whose trials are listed in its sweep.json instead of drawn: one for
each candidate and seed. What a reader would get wrong: everything that can be refused is refused before it is made, and
the file confirm.json is written last; as long as it is missing, running the verb again goes on.
"""

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ferhpo import checking
from ferhpo.composing import set_values
from ferhpo.concluding import RESULT, Confirmation, conclude
from ferhpo.config import Composed
from ferhpo.confirmation import LEVEL, fresh_seeds
from ferhpo.errors import ConfigError, SweepError
from ferhpo.journal import FolderLock
from ferhpo.record import META, Sweep, free_name, load_sweep
from ferhpo.running import Listener, run_listed
from ferhpo.space import leaves
from ferhpo.starting import resumed, tracking_settings
from ferhpo.tracking import hide_all, num_unshipped

KIND = "confirm"
TOP, SEEDS = 5, 3
RETRAINED = ("data", "augment", "model", "optim", "lr_schedule", "trainer")  # what a retraining may change
LOCATIONS = ("data.path", "data.ferplus_path", "data.cache_dir")  # where data are, not what they are
DIVIDES = ("data.split", "data.split_seed", "data.val_fraction", "data.test_fraction", "data.path")


def confirm(
    name: str,
    overrides: Sequence[str] = (),
    *,
    top: int | None = None,
    seeds: int | None = None,
    resume: bool = False,
    new: bool = False,
    output_dir: str | Path = "mlruns",
    listener: Listener = lambda ledger: None,
) -> Confirmation:
    """Train the best complete trials of a sweep again on fresh seeds, choose by the mean, read the test images once.

    name: the sweep, or its confirmation, with which it goes on; overrides: name=... of the confirmation, compute and
        tracking, and settings of the retraining, as trainer.max_epochs=60
    top, seeds: how many trials and seeds; by default 5 and 3, or those that the confirmation was started with
    resume: refuse to start anew; new: start anew under the next free name
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any training starts.
    """
    overrides = hide_all(overrides)
    sweep, existing = _find(name, overrides, resume, new, output_dir)
    rest = [text for text in overrides if not text.startswith("name=")]
    if existing is not None:
        return _go_on(sweep, existing, rest, top, seeds, listener)
    FolderLock(sweep.folder).release()  # refuses while a driver runs it
    num_candidates, num_seeds = TOP if top is None else top, SEEDS if seeds is None else seeds
    composed, listed, warnings = _plan(sweep, _name_of(sweep, overrides, new), rest, num_candidates, num_seeds)
    return _run(sweep, composed, listed, None, warnings, listener)


def _run(
    sweep: Sweep,
    composed: Composed,
    listed: Sequence[Mapping[str, Any]],
    existing: Sweep | None,
    warnings: Sequence[str],
    listener: Listener,
) -> Confirmation:
    result = run_listed(
        composed,
        KIND,
        listed,
        lambda *ended: conclude(sweep, *ended),
        existing=existing,
        warnings=warnings,
        listener=listener,
    )
    assert isinstance(result, Confirmation)
    return result


def _go_on(
    sweep: Sweep, existing: Sweep, overrides: Sequence[str], top: int | None, seeds: int | None, listener: Listener
) -> Confirmation:
    """Go on with a confirmation, or tell again what it found."""
    begun = existing.config["confirm"]
    asked = {"top": (top, begun["top"]), "seeds": (seeds, len(begun["seeds"]))}
    faults = [
        f"--{key} is {given}, and {existing.name} was started with {was}; leave it out, or --new starts "
        f"{free_name(existing.folder)}"
        for key, (given, was) in asked.items()
        if given not in (None, was)
    ]
    faults += [f"{t} cannot change: --top and --seeds make the trials" for t in overrides if t.startswith("num_trials")]
    if faults:
        raise ConfigError(f"confirm {sweep.name}", faults)
    warnings = []
    complete = [trial.number for trial in sweep.leaderboard() if trial.state == "COMPLETE"]
    if complete[: begun["top"]] != begun["candidates"]:
        warnings.append(
            f"sweep {sweep.name} has gone on since: its best are now trials {_listed(complete[: begun['top']])}, and "
            f"{existing.name} confirms {_listed(begun['candidates'])}; --new confirms the others"
        )
    found = _result(existing)
    settings = tracking_settings(existing.config)
    if found is not None and (found["registered"] or settings.off or settings.models == "none"):
        registered = found["registered"]
        return Confirmation(
            existing,
            dict(Counter(trial.state for trial in existing.trials())),
            finished=True,
            best=None,
            registered=None if registered is None else (registered["name"], registered["version"]),
            unshipped=num_unshipped(existing.folder, settings),
            warnings=warnings,
            confirmed=sweep,
            found=found,
        )
    new = [text for text in overrides if text not in begun["overrides"]]
    record = resumed(existing.name, [*new, f"output_dir={existing.folder.parent}"], KIND)
    return _run(sweep, record.composed, record.listed, record, warnings, listener)


def _result(record: Sweep) -> dict[str, Any] | None:
    path = record.folder / RESULT
    return json.loads(path.read_text()) if path.exists() else None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _find(
    name: str, overrides: Sequence[str], resume: bool, new: bool, output_dir: str | Path
) -> tuple[Sweep, Sweep | None]:
    """The sweep to confirm, and its confirmation where it is there and wanted."""
    record = load_sweep(name, output_dir)
    if record.meta["kind"] == KIND:
        sweep = load_sweep(record.folder.parent / record.config["confirm"]["sweep"])
        return sweep, None if new else record
    folder = record.folder.parent / _name_of(record, overrides, new=False)
    if not new and (folder / META).exists():
        existing = load_sweep(folder)
        if existing.config.get("confirm", {}).get("sweep_id") != record.id:
            raise SweepError(
                f"{folder.name} in {folder.parent} is no confirmation of this sweep {record.name}; "
                f"name=... starts one by another name, --new starts {free_name(folder)}"
            )
        return record, existing
    if resume:
        raise SweepError(f"sweep {record.name} has no confirmation {folder.name} to go on with; leave out --resume")
    return record, None


def _name_of(sweep: Sweep, overrides: Sequence[str], new: bool) -> str:
    given = [text.partition("=")[2] for text in overrides if text.startswith("name=")]
    name = given[-1] if given else f"{sweep.name}-confirm"
    folder = sweep.folder.parent / name
    return free_name(folder) if new and folder.exists() else name


def _plan(
    sweep: Sweep, name: str, overrides: Sequence[str], top: int, seeds: int
) -> tuple[Composed, list[dict[str, Any]], list[str]]:
    """The configuration of a new confirmation, its trials, and warnings. Raises with every fault."""
    faults = [
        f"--{key} is {count}; it must be 1 or more" for key, count in (("top", top), ("seeds", seeds)) if count < 1
    ]
    if faults:
        raise ConfigError("confirm", faults)
    warnings = []
    complete = [trial for trial in sweep.leaderboard() if trial.state == "COMPLETE"]
    if not complete:
        counts = Counter(trial.state.lower() for trial in sweep.trials())
        have = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none yet"
        raise SweepError(f"sweep {sweep.name} has no complete trial to confirm; its trials: {have}")
    if top > len(complete):
        trials = f"{len(complete)} complete trial{'s' * (len(complete) > 1)}"
        warnings.append(f"--top is {top}, and sweep {sweep.name} has {trials}: as many are confirmed")
    if seeds == 1:
        warnings.append("--seeds is 1: one value has no deviation and no interval")
    chosen = complete[:top]
    config = copy.deepcopy(sweep.config)
    composed = replace(sweep.composed, config=config, groups={**sweep.composed.groups, "scheduler": "none"})
    faults = _override(sweep, config, overrides)
    if faults:
        raise ConfigError(f"confirm {sweep.name}", faults)
    changed = changes(sweep, config)
    config.update(
        name=name,
        output_dir=str(sweep.folder.parent),
        num_trials=len(chosen) * seeds,
        keep_checkpoints="all",  # which candidate wins is known when all have ended
        scheduler={"_target_": "ray.tune.schedulers.FIFOScheduler"},
        sampler={"_target_": "none"},  # nothing is drawn: the trials are listed
    )
    composed.groups["sampler"] = "none"
    for trial in chosen:
        # Each candidate's own configuration, because an override may not suit what one of them drew.
        applied = {**composed.space().apply(trial.sample), "space": {}}
        warnings += checking.check(replace(composed, name=f"confirm {sweep.name}", config=applied), for_sweep=False)
    fresh = fresh_seeds(seeds, int(config["seed"]), [trial.seed for trial in sweep.trials()])
    config["confirm"] = {
        "sweep": sweep.name,
        "sweep_id": sweep.id,
        "candidate": None,  # each trial has its own
        "candidates": [trial.number for trial in chosen],
        "seeds": fresh,
        "top": top,
        "level": LEVEL,
        "overrides": list(overrides),
        "changed": changed,
    }
    listed = [
        {"sample": {"confirm.candidate": trial.number, **trial.sample}, "seed": seed}
        for seed in fresh
        for trial in chosen
    ]
    return composed, listed, list(dict.fromkeys(warnings))


def changes(sweep: Sweep, config: Mapping[str, Any]) -> list[str]:
    """What a retraining does otherwise than the sweep did, as "trainer.max_epochs=60 (2 in the sweep)"."""
    before = {section: dict(leaves(sweep.config[section], section)) for section in RETRAINED}
    after = {section: dict(leaves(config[section], section)) for section in RETRAINED}
    return [
        f"{key}={_yaml(value)} ({_yaml(before[section].get(key))} in the sweep)"
        for section in RETRAINED
        for key, value in after[section].items()
        if key not in LOCATIONS and value != before[section].get(key)
    ]


def _yaml(value: object) -> str:
    """A value as a person types it in an override."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _override(sweep: Sweep, config: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Put overrides into the configuration of a retraining; return what is wrong with them."""
    faults: list[str] = []
    may = (*RETRAINED, "compute", "tracking")
    drawn = {draw.path for draw in sweep.space().draws}
    for text in overrides:
        key = text.partition("=")[0]
        section = key.split(".")[0]
        if section not in may:
            faults.append(f"{key} is no setting of a retraining; {', '.join(may)} and name are")
        elif key in drawn or section in sweep.composed.options:
            faults.append(f"{key} is what the sweep drew: each candidate keeps its own")
        elif key in DIVIDES and not _keeps_division(sweep, key, text):
            faults.append(
                f"{text} divides the images in another way than the sweep, which chose under "
                f"data.split={_split_of(sweep)}: its selection may have seen the test images; leave it out"
            )
        else:
            faults += set_values(config, [text])
    return faults


def _keeps_division(sweep: Sweep, key: str, text: str) -> bool:
    """Whether an override of data leaves it alone which images test: under published splits only data.split says so."""
    config = copy.deepcopy(sweep.config)
    if set_values(config, [text]):
        return True  # a fault that is told as such
    same = bool(config["data"] == sweep.config["data"])
    return same or (key != "data.split" and _split_of(sweep) == "published")


def _split_of(sweep: Sweep) -> str:
    """The split that a sweep chose under, without its fold."""
    named = sweep.config["data"].get("split") or "published"
    return str(sweep.meta.get("data", {}).get("split_name", named)).partition(",")[0]
