"""Check what `when` and `repeat` of draws refer to, and order the draws by their dependencies."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from ferhpo.keys import get_path, leaves, nearest
from ferhpo.space.draw import Draw
from ferhpo.space.space import MOST_CASES
from ferhpo.text import join

MOST_COMBINATIONS = 1_000_000  # of draws that others depend on; Space.size() enumerates them


class Linker:
    """Resolve the references between draws; `faults` collects what is wrong with them."""

    def __init__(
        self,
        draws: Sequence[Draw],
        config: Mapping[str, Any],
        groups: Mapping[str, str],
        options: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.draws, self.config, self.groups, self.options = draws, config, groups, options
        self.faults: list[str] = []

    def link(self) -> list[Draw]:
        """Check `when` and `repeat`, name the draws, and return them so that each follows those it depends on."""
        by_path: dict[str, list[Draw]] = {}
        for draw in self.draws:
            by_path.setdefault(draw.path, []).append(draw)
        named: list[Draw] = []
        for draw in self.draws:
            twins = by_path[draw.path]
            name = draw.path if len(twins) == 1 else f"{draw.path}@{draw.option}"
            named.append(Draw(**{**draw.__dict__, "name": name}))
            for key, allowed in draw.when:
                before = len(self.faults)
                self.check_condition(f"space.{draw.path}.when", key, allowed, by_path)
                if draw.option is not None and len(twins) > 1:
                    self.faults[before:] = [f"{fault} ({draw.option})" for fault in self.faults[before:]]
            if draw.repeat is not None:
                self.check_repeat(draw, by_path)
        if not self.faults:
            self.check_combinations(named)
        return self.sort(named)

    def names(self, by_path: Mapping[str, list[Draw]]) -> list[str]:
        """Return every key that `when` and `repeat` may refer to."""
        known = [path for path, _ in leaves({key: value for key, value in self.config.items() if key != "space"})]
        return list(dict.fromkeys([*by_path, *self.groups, *known]))

    def fixed_values(self, key: str) -> list[Any]:
        """Return the values that a key without a draw may have. Raises KeyError for an unknown key."""
        if key in self.groups:
            return [self.groups[key]]
        section, _, rest = key.partition(".")
        if section in self.options:
            return [get_path(config, rest) for config in self.options[section].values()]
        return [get_path(self.config, key)]

    def check_condition(
        self, where: str, key: str, allowed: tuple[Any, ...], by_path: Mapping[str, list[Draw]]
    ) -> None:
        """Check one condition of a draw: that its key exists, and that it can have one of the allowed values."""
        draws = by_path.get(key, [])
        wanted = " or ".join(map(show, allowed))
        if any(draw.repeat is not None for draw in draws):
            self.faults.append(f"{where} refers to {key}, which is a list (repeat); use a key with a single value")
        elif any(draw.num_points is None for draw in draws):
            self.faults.append(f"{where} requires {key} to be {wanted}, but it is continuous; add a step or choices")
        elif draws:
            if not any(draw.holds(value) for draw in draws for value in allowed):
                few = islice((value for draw in draws for value in draw.values()), 8)
                self.never_holds(where, key, wanted, few)
        else:
            try:
                fixed = self.fixed_values(key)
            except KeyError:
                self.faults.append(f"{where} refers to unknown key {key}; {nearest(key, self.names(by_path))}")
                return
            if not any(value in allowed for value in fixed):
                self.never_holds(where, key, wanted, fixed[:8])

    def never_holds(self, where: str, key: str, wanted: str, possible: Iterable[Any]) -> None:
        """Report a condition that no sample can meet."""
        shown = ", ".join(map(show, possible))
        self.faults.append(f"{where} requires {key} to be {wanted}, which is impossible; possible values: {shown}")

    def check_repeat(self, draw: Draw, by_path: Mapping[str, list[Draw]]) -> None:
        """Check that `repeat` is a count, or refers to one, and that it is not too large."""
        where, repeat = f"space.{draw.path}.repeat", draw.repeat
        if isinstance(repeat, int):
            if not 1 <= repeat <= MOST_CASES:
                self.faults.append(f"{where} is {repeat}; it must be at least 1 and at most {MOST_CASES:,}")
            return
        key = str(repeat)
        values: list[Any] = []
        for other in by_path.get(key, []):
            values += [repeat] if other.repeat is not None else other.choices or [other.low, other.high]
        if key not in by_path:
            try:
                values = self.fixed_values(key)
            except KeyError:
                self.faults.append(f"{where} refers to unknown key {key}; {nearest(key, self.names(by_path))}")
                return
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
            self.faults.append(f"{where} refers to {key}, which is not a count; it must be an integer of 0 or more")
        elif max(values) > MOST_CASES:
            self.faults.append(
                f"{where} refers to {key}, which can be {max(values)}; it must be at most {MOST_CASES:,}"
            )

    def check_combinations(self, draws: Sequence[Draw]) -> None:
        """Limit the draws that others depend on, because Space.size() enumerates their combinations."""
        controls = {key for draw in draws for key, _ in draw.when} | {draw.repeat for draw in draws}
        combinations = math.prod(min(draw.num_points or 1, MOST_CASES) for draw in draws if draw.path in controls)
        if combinations > MOST_COMBINATIONS:
            self.faults.append(
                f"space has {combinations:,} combinations of draws that when and repeat refer to; it must have at most "
                f"{MOST_COMBINATIONS:,}; reduce the number of values of those draws"
            )

    def sort(self, draws: list[Draw]) -> list[Draw]:
        """Return the draws in an order in which each follows those it depends on."""
        done: list[Draw] = []
        waiting = list(draws)
        while waiting:
            open_paths = {draw.path for draw in waiting}
            ready = [
                draw
                for draw in waiting
                if not ({key for key, _ in draw.when} | {draw.repeat}) & open_paths
            ]  # fmt: skip
            if not ready:
                names = [f"space.{draw.path}" for draw in waiting]
                cycle = (
                    f"circular dependency between {join(names)}" if len(names) > 1 else f"{names[0]} depends on itself"
                )
                self.faults.append(f"{cycle} (through when or repeat)")
                return done
            done += ready
            waiting = [draw for draw in waiting if draw not in ready]
        return done


def show(value: Any) -> str:
    """Format a value for a message: strings unquoted, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value) if is_plain(value) else f"{value!r:.60}"


def is_plain(value: Any) -> bool:
    """Return whether a value can be represented in JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
