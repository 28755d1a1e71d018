"""What Optuna is told of outcomes, and of trials of earlier sweeps."""

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from ferhpo.space import Sample, Space
from ferhpo.space.given import flat, parameters
from ferhpo.states import TrialState

# The state that Optuna gets for each outcome. TPE ignores FAIL, so infeasible and diverged samples are PRUNED with a
# violated constraint: in measurements, this halves the number of further infeasible samples.
OPTUNA_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.INFEASIBLE: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def earlier_trial(space: Space, record: Mapping[str, Any]) -> FrozenTrial | None:
    """Return a trial of an earlier sweep as this space would have drawn it; None if it cannot."""
    found = placed(space, record["sample"])
    state = TrialState(record["state"])
    if found is None or (record["value"] is None and state == TrialState.COMPLETE):
        return None
    _, params, distributions = found
    is_infeasible = state in (TrialState.INFEASIBLE, TrialState.DIVERGED)
    return create_trial(
        state=OPTUNA_STATES[state],
        value=record["value"] if state == TrialState.COMPLETE else None,
        params=params,
        distributions=distributions,
        intermediate_values={record["reports"]: record["value"]} if state == TrialState.PRUNED else {},
        system_attrs={"constraints:infeasible": 1.0 if is_infeasible else 0.0},
    )


def placed(
    space: Space, sample: Mapping[str, Any]
) -> tuple[Sample, dict[str, Any], dict[str, BaseDistribution]] | None:
    """Return a whole sample with its parameters and distributions in Optuna; None if the space cannot draw it."""
    trial = FixedTrial(parameters(space, sample))
    try:
        found = space.suggest(trial)
    except (ValueError, KeyError):  # a hyperparameter without a value
        return None
    wanted = flat(space, sample)
    is_same = all(path in wanted and _is_same(wanted[path], value) for path, value in found.items())
    return (found, trial.params, trial.distributions) if is_same else None


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; numbers may be rounded differently in different ranges."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)
