"""Plan a confirmation: its configuration, its list of trials, and what a retraining may change."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ferhpo.config import Composed, validate
from ferhpo.config.compose import set_values
from ferhpo.confirmation.statistics import LEVEL
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import leaves
from ferhpo.seeds import fresh_seeds
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep

TOP, SEEDS = 5, 3
RETRAINED = ("data", "augment", "model", "optim", "lr_schedule", "trainer")  # what a retraining may change
LOCATIONS = ("data.path", "data.ferplus_path", "data.cache_dir")  # where data are, not what they are
DIVIDES = ("data.split", "data.split_seed", "data.val_fraction", "data.test_fraction", "data.path")


def plan_confirmation(
    sweep: Sweep, name: str, overrides: Sequence[str], top: int, seeds: int
) -> tuple[Composed, list[dict[str, Any]], list[str]]:
    """The configuration of a new confirmation, its trials, and warnings. Raises with every fault."""
    faults = [
        f"--{key} is {count}; it must be 1 or more" for key, count in (("top", top), ("seeds", seeds)) if count < 1
    ]
    if faults:
        raise ConfigError("confirm", faults)
    warnings = []
    complete = [trial for trial in sweep.leaderboard() if trial.state == TrialState.COMPLETE]
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
        warnings += validate.check_composed(
            replace(composed, name=f"confirm {sweep.name}", config=applied), for_sweep=False
        )
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
