"""Plan a confirmation: its configuration, its list of trials, and which settings a retraining may change."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ferhpo.config import Composed, validate
from ferhpo.config.change import set_values
from ferhpo.config.input.origin import foreign_faults, is_own
from ferhpo.confirmation.statistics import LEVEL
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import PLACES, leaves
from ferhpo.seeds import fresh_seeds
from ferhpo.states import TrialState, shown_state
from ferhpo.storage.sweep import Sweep

TOP, SEEDS = 5, 3
RETRAINED = ("data", "augment", "model", "optim", "lr_schedule", "trainer")  # sections that a retraining may change
SPLIT_KEYS = ("data.split", "data.split_seed", "data.val_fraction", "data.test_fraction", "data.path")


def plan_confirmation(
    sweep: Sweep, name: str, overrides: Sequence[str], top: int, seeds: int
) -> tuple[Composed, list[dict[str, Any]], list[str]]:
    """Return the configuration of a new confirmation, its list of trials, and warnings.

    Raises ConfigError with all faults at once, SweepError if the sweep has no complete trial.
    """
    faults = [
        f"--{key} is {count}; it must be 1 or more" for key, count in (("top", top), ("seeds", seeds)) if count < 1
    ]
    if faults:
        raise ConfigError("confirm", faults)
    warnings = []
    complete = [trial for trial in sweep.leaderboard() if trial.state == TrialState.COMPLETE]
    if not complete:
        counts = Counter(shown_state(trial.state, is_running=False) for trial in sweep.trials())  # no driver runs it
        have = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none yet"
        raise SweepError(f"sweep {sweep.name} has no complete trial to confirm; its trials: {have}")
    if top > len(complete):
        trials = f"{len(complete)} complete trial{'s' * (len(complete) > 1)}"
        warnings.append(f"--top is {top}; sweep {sweep.name} has only {trials} to confirm")
    if seeds == 1:
        warnings.append("--seeds is 1; a single value has no standard deviation and no interval")
    candidates = complete[:top]
    config = copy.deepcopy(sweep.config)
    composed = replace(sweep.composed, config=config, groups={**sweep.composed.groups, "scheduler": "none"})
    faults = _override(sweep, config, overrides)
    meta = {**sweep.meta, "composed": {**sweep.meta["composed"], "config": config}}
    faults += foreign_faults(meta, is_own(sweep.meta), overrides)
    if faults:
        raise ConfigError(f"confirm {sweep.name}", faults)
    changed = changes(sweep, config)
    config.update(
        name=name,
        output_dir=str(sweep.folder.parent),
        num_trials=len(candidates) * seeds,
        keep_checkpoints="all",  # the selected candidate is known only after the last trial
        scheduler={"_target_": "ray.tune.schedulers.FIFOScheduler"},
        sampler={"_target_": "none"},  # the trials are listed, not sampled
    )
    composed.groups["sampler"] = "none"
    for trial in candidates:
        _ = trial.config  # refuses a sample that the space does not have: someone edited the study
        # Check each candidate's own configuration: an override may be invalid together with one of their samples.
        applied = {**composed.space().apply(trial.sample), "space": {}}
        warnings += validate.check_composed(
            replace(composed, name=f"confirm {sweep.name}", config=applied), for_sweep=False
        )
    fresh = fresh_seeds(seeds, int(config["seed"]), [trial.seed for trial in sweep.trials()])
    config["confirm"] = {
        "sweep": sweep.name,
        "sweep_id": sweep.id,
        "candidate": None,  # set by the sample of each trial
        "candidates": [trial.number for trial in candidates],
        "seeds": fresh,
        "top": top,
        "level": LEVEL,
        "overrides": list(overrides),
        "changed": changed,
    }
    listed = [
        {"sample": {"confirm.candidate": trial.number, **trial.sample}, "seed": seed}
        for seed in fresh
        for trial in candidates
    ]
    return composed, listed, list(dict.fromkeys(warnings))


def changes(sweep: Sweep, config: Mapping[str, Any]) -> list[str]:
    """Return how a retraining differs from the sweep, e.g. ["trainer.max_epochs=60 (2 in the sweep)"]."""
    before = {section: dict(leaves(sweep.config[section], section)) for section in RETRAINED}
    after = {section: dict(leaves(config[section], section)) for section in RETRAINED}
    return [
        f"{key}={_yaml(value)} ({_yaml(before[section].get(key))} in the sweep)"
        for section in RETRAINED
        for key, value in after[section].items()
        if not (section == "data" and key.rpartition(".")[2] in PLACES) and value != before[section].get(key)
    ]


def _yaml(value: object) -> str:
    """Return a value as written in an override."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _override(sweep: Sweep, config: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Apply overrides to the configuration of a retraining; return the faults."""
    faults: list[str] = []
    allowed = (*RETRAINED, "compute", "tracking")
    sampled = {draw.path for draw in sweep.space().draws}
    for text in overrides:
        key = text.partition("=")[0]
        section = key.split(".")[0]
        if section not in allowed:
            faults.append(f"{key} cannot be overridden in a confirmation; allowed: {', '.join(allowed)}, name")
        elif key in sampled or section in sweep.composed.options:
            faults.append(f"{key} was sampled by the sweep; every candidate keeps its own value; leave it out")
        elif key in SPLIT_KEYS and not _keeps_split(sweep, key, text):
            faults.append(
                f"{text} changes the split; the sweep selected its trials under data.split={_split_of(sweep)}, so the "
                "new test images may have been used for training or selection; leave it out"
            )
        else:
            faults += set_values(config, [text])
    return faults


def _keeps_split(sweep: Sweep, key: str, text: str) -> bool:
    """Return whether an override of data keeps the test images; a published split depends on data.split only."""
    config = copy.deepcopy(sweep.config)
    if set_values(config, [text]):
        return True  # an invalid override: reported by `_override`
    same = bool(config["data"] == sweep.config["data"])
    return same or (key != "data.split" and _split_of(sweep) == "published")


def _split_of(sweep: Sweep) -> str:
    """Return the name of the split that a sweep used, without its fold."""
    named = sweep.config["data"].get("split") or "published"
    return str(sweep.meta.get("data", {}).get("split_name", named)).partition(",")[0]
