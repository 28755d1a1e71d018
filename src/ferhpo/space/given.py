"""Samples that are given and not drawn: `first` in a configuration, and trials of earlier sweeps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ferhpo.keys import nearest
from ferhpo.space.draw import Draw, choice_key
from ferhpo.space.space import Sample, Space

MOST_FIRST = 1000


def given_faults(space: Space, given: Any) -> Iterator[str]:
    """Yield the faults of `first`, a list of mappings from hyperparameters of the space to values in it."""
    if not isinstance(given, list) or not all(isinstance(sample, Mapping) for sample in given):
        yield f"first is {given!r:.60}; it must be a list of samples, e.g. [{{optim.lr: 0.001}}]"
        return
    if len(given) > MOST_FIRST:
        yield f"first has {len(given):,} samples; it must have at most {MOST_FIRST:,}"
        return
    for place, sample in enumerate(given):
        for path, value in flat(space, sample).items():
            if fault := _fault(space, str(path), value, flat(space, sample)):
                yield f"first.{place}: {fault}"


def _fault(space: Space, path: str, value: Any, sample: Sample) -> str:
    draws = [draw for draw, _ in draws_of(space, path)]
    if not draws:
        return f"{path} is not in the space; {nearest(path, dict.fromkeys(draw.path for draw in space.draws))}"
    if not any(can_take(draw, value) for draw in draws):
        return f"{path} is {value!r:.60}; {_range(draws)}"
    if not any(_may_be_active(draw, sample) for draw in draws):
        draw = draws[0]
        conditions = " and ".join(f"{key}={' or '.join(map(str, allowed))}" for key, allowed in draw.when)
        return f"{path} applies only if {conditions}, and the sample has another value for that"
    return ""


def _range(draws: Sequence[Draw]) -> str:
    texts = []
    for draw in draws:
        if draw.choices:
            texts.append(f"one of {', '.join(str(choice) for choice in draw.choices)}")
        else:
            texts.append(f"from {draw.low} to {draw.high}" + (f" in steps of {draw.step}" if draw.step else ""))
    return f"it must be {' or '.join(dict.fromkeys(texts))}"


def _may_be_active(draw: Draw, sample: Mapping[str, Any]) -> bool:
    return all(key not in sample or sample[key] in allowed for key, allowed in draw.when)


def flat(space: Space, sample: Mapping[str, Any]) -> Sample:
    """Return a sample with the entries of repeated draws apart: {a: [1, 2]} is {a.0: 1, a.1: 2}."""
    repeated = {draw.path for draw in space.draws if draw.repeat is not None}
    found: Sample = {}
    for path, value in sample.items():
        if path in repeated and isinstance(value, list):
            found |= {f"{path}.{place}": entry for place, entry in enumerate(value)}
        else:
            found[str(path)] = value
    return found


def parameters(space: Space, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return given values by the names that Optuna has for them; those that no draw can take are left out."""
    found = {}
    for path, value in flat(space, sample).items():
        for draw, end in draws_of(space, path):
            if can_take(draw, value):
                found[f"{draw.name}{end}"] = choice_key(value)
    return found


def draws_of(space: Space, path: str) -> list[tuple[Draw, str]]:
    """Return the draws of a path, each with what follows its name: ".0" for an entry of a repeated draw."""
    parent, _, last = path.rpartition(".")
    found = []
    for draw in space.draws:
        if draw.repeat is None and draw.path == path:
            found.append((draw, ""))
        elif draw.repeat is not None and draw.path == parent and last.isdecimal():
            found.append((draw, f".{last}"))
    return found


def can_take(draw: Draw, value: Any) -> bool:
    """Return whether a draw can have a value."""
    if draw.num_points is not None:
        return draw.holds(value)
    assert draw.low is not None
    assert draw.high is not None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return is_number and draw.low <= value <= draw.high
