"""The trials of earlier sweeps that a new sweep's sampler is given (`warm_start: [OLD]`).

A trial fits if its sample, or for a hyperparameter that was not sampled then, its configuration, is one that the new
space can draw, and if what is fixed now had the same value. Its value counts as it is: what else differs between the
sweeps (epochs, data) is said in a warning.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferhpo.config import Composed
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import PLACES, get_path, leaves
from ferhpo.space import Sample, Space
from ferhpo.space.given import can_take
from ferhpo.states import TrialState
from ferhpo.storage.study.outcomes import placed
from ferhpo.storage.sweep import Sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import plural

USED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE, TrialState.DIVERGED)
SECTIONS = ("data", "augment", "model", "loss", "optim", "lr_schedule", "trainer")
_MOST_KEYS = 6


def earlier_trials(composed: Composed, space: Space) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the trials that the sampler is given, as records for sweep.json, and warnings that say what fits.

    Raises ConfigError for a name that is not a sweep with the same objective.
    """
    names = composed.config.get("warm_start") or []
    found: list[dict[str, Any]] = []
    warnings, faults = [], []
    for name in names:
        try:
            sweep = load_sweep(Path(composed.config["output_dir"], str(name)))
            objective = sweep.objective
        except (SweepError, ConfigError, TypeError, ValueError) as error:
            faults.append(f"warm_start has {name}: {error}")
            continue
        now = composed.config["objective"]
        if (objective.metric, objective.mode) != (now["metric"], now["mode"]):
            faults.append(
                f"warm_start has {name}, whose objective is {objective.metric}, {objective.mode}; it must be that of "
                f"this sweep, {now['metric']}, {now['mode']}"
            )
            continue
        records, why_not = _fitting(sweep, space, composed)
        found += records
        warnings.append(_text(sweep, records, why_not))
        if different := _differing(sweep.config, composed.config, space):
            shown = ", ".join(different[:_MOST_KEYS]) + (" and others" if len(different) > _MOST_KEYS else "")
            warnings.append(f"warm_start: {name} was run with other values of {shown}; its values are used as they are")
    if faults:
        raise ConfigError(composed.name, faults)
    return found, warnings


def _text(sweep: Sweep, records: list[dict[str, Any]], why_not: Counter[str]) -> str:
    text = f"warm_start: the sampler is given {plural(len(records), 'trial')} of {sweep.name}"
    if why_not:
        reasons = ", ".join(f"{count} because {reason}" for reason, count in why_not.most_common(_MOST_KEYS))
        text += f"; {sum(why_not.values())} do not fit: {reasons}"
    return text


def _fitting(sweep: Sweep, space: Space, composed: Composed) -> tuple[list[dict[str, Any]], "Counter[str]"]:
    records, why_not = [], Counter[str]()
    for trial in sweep.trials():
        if trial.state not in USED or (trial.state.has_result and trial.value is None):
            continue
        sample, reason = _sample_of(trial, sweep, space, composed)
        if sample is None:
            why_not[reason] += 1
            continue
        records.append(
            {
                "sweep": sweep.name,
                "trial": trial.number,
                "state": str(trial.state),
                "value": trial.value,
                "reports": len(trial.reports),
                "sample": sample,
            }
        )
    return records, why_not


def _sample_of(trial: TrialRecord, sweep: Sweep, space: Space, composed: Composed) -> tuple[Sample | None, str]:
    """Return what the new space would have drawn for this trial; or None and why it could not."""
    sample: Sample = {}
    for draw in space.draws:
        if not space.is_active(draw, sample):
            continue
        repeats = space.num_repeats(draw, sample)
        for path in [draw.path] if repeats is None else [f"{draw.path}.{place}" for place in range(repeats)]:
            value = _value_of(trial, sweep, path)
            if value is None and path not in trial.sample:
                return None, f"it has no {path}"
            if not can_take(draw, value):
                return None, f"{path} is outside the space"
            sample[path] = value
    for path, value in trial.sample.items():
        if path not in sample and _fixed(composed.config, composed.groups, path) != value:
            return None, f"{path} is fixed to another value"
    return (sample, "") if placed(space, sample) is not None else (None, "the space cannot draw it")


def _value_of(trial: TrialRecord, sweep: Sweep, path: str) -> Any:
    """Return the value that a trial had: sampled, or as its configuration said; None if it had none."""
    return trial.sample[path] if path in trial.sample else _fixed(trial.config, sweep.composed.groups, path)


def _fixed(config: Mapping[str, Any], groups: Mapping[str, Any], path: str) -> Any:
    if path in groups:
        return groups[path]
    try:
        return get_path(config, path)
    except KeyError:
        return None


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], space: Space) -> list[str]:
    """Return the keys whose values differ between two configurations, besides those that the new space draws."""
    values = [dict(leaves({key: config[key] for key in SECTIONS if key in config})) for config in (before, now)]
    drawn = {draw.path for draw in space.draws}
    groups = {path for path in drawn if "." not in path}
    return sorted(
        key
        for key in {**values[0], **values[1]}
        if key in values[0]
        and key in values[1]
        and values[0][key] != values[1][key]
        and key not in drawn
        and key.partition(".")[0] not in groups
        and key.rpartition(".")[2] not in PLACES
    )
