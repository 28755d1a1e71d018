"""Reads a YAML space into a `Space` and lints it: every fault at once, each with key, value, rule and remedy."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from ferhpo.space import MOST_CASES, Draw, Space, choice_key, closest, get_path, leaves, nearest

LARGEST = 1e15  # of a bound: beyond it neighbouring whole numbers are one float
MOST_COMBINATIONS = 1_000_000  # of what `when` and `repeat` look at: the points of a space are counted by them
DRAW_KEYS = {"low", "high", "step", "log", "choices", "when", "repeat"}


class _Reader:
    """Reads a space and gathers its faults."""

    def __init__(
        self,
        config: Mapping[str, Any],
        groups: Mapping[str, str],
        group_options: Mapping[str, Sequence[str]],
        options: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.config, self.groups, self.group_options, self.options = config, groups, group_options, options
        self.faults: list[str] = []
        self.draws: list[Draw] = []

    def walk(self, node: Any, path: str, target: Any, option: tuple[str, str] | None = None) -> None:
        where = f"space.{path}"
        if node is None:
            return
        if not isinstance(node, Mapping):
            self.faults.append(
                f"{where} is {_show(node)}; a draw has low and high, or choices: write {{choices: [...]}}"
            )
        elif {"low", "high", "choices"} & set(node) and not isinstance(target, Mapping):
            self.read_draw(node, path, option)
        else:
            for key, child in node.items():
                below = f"{path}.{key}" if path else str(key)
                if self.is_for_another_option(child, option):
                    continue
                if isinstance(target, Mapping) and key in target and not str(key).startswith("_"):
                    self.walk(child, below, target[key], option)
                else:
                    self.missing(str(key), below, path, target)

    def is_for_another_option(self, node: Any, option: tuple[str, str] | None) -> bool:
        """A draw whose `when` names an option of a group that is not the chosen one takes no part here.

        So one slice can serve several optimisers: `momentum: {..., when: {optim: sgd}}` needs no momentum in Adam.
        """
        when = node.get("when") if isinstance(node, Mapping) else None
        for key, allowed in when.items() if isinstance(when, Mapping) else ():
            names = allowed if isinstance(allowed, list) else [allowed]
            chosen = option[1] if option is not None and option[0] == key else self.groups.get(key)
            known = self.group_options.get(key, ())
            offered = key in self.options and not (option is not None and option[0] == key)
            if chosen is not None and not offered and chosen not in names and all(name in known for name in names):
                return True
        return False

    def missing(self, key: str, path: str, parent: str, target: Any) -> None:
        if isinstance(target, Mapping):
            names = sorted(str(name) for name in target if not str(name).startswith("_"))
            has = f"{parent} has: {', '.join(names)}" if parent else f"the configuration has: {', '.join(names)}"
            close = closest(key, names)
            hint = f"; did you mean {close}?" if close else ""
            self.faults.append(f"space.{path} matches no key; {has}{hint}")
        else:
            self.faults.append(f"space.{path} is no part of a draw; a draw has: {', '.join(sorted(DRAW_KEYS))}")

    def read_draw(self, node: Mapping[str, Any], path: str, option: tuple[str, str] | None) -> None:
        before = len(self.faults)
        where = f"space.{path}"
        for key in node:
            if key not in DRAW_KEYS:
                self.faults.append(f"{where}.{key} is no part of a draw; {nearest(str(key), sorted(DRAW_KEYS))}")
        choices = node.get("choices")
        if choices is not None:
            self.check_choices(where, node, choices)
        else:
            self.check_bounds(where, node)
        if not isinstance(node.get("log", False), bool):
            self.faults.append(f"{where}.log is {_show(node['log'])}; it must be true or false")
        repeat = node.get("repeat")
        if repeat is not None and (isinstance(repeat, bool) or not isinstance(repeat, int | str)):
            self.faults.append(f"{where}.repeat is {_show(repeat)}; it must be a number, or the key of one")
        when = node.get("when") or {}
        if not isinstance(when, Mapping):
            self.faults.append(f"{where}.when is {_show(when)}; write {{key: value}}")
            when = {}
        conditions = [(str(key), tuple(v) if isinstance(v, list) else (v,)) for key, v in when.items()]
        if option is not None:
            conditions.insert(0, (option[0], (option[1],)))
        if len(self.faults) > before:
            return
        self.draws.append(
            Draw(
                path=path,
                low=node.get("low"),
                high=node.get("high"),
                step=node.get("step"),
                log=bool(node.get("log", False)),
                choices=tuple(choices or ()),
                when=tuple(conditions),
                repeat=node.get("repeat"),
                option=option[1] if option else None,
            )
        )

    def check_choices(self, where: str, node: Mapping[str, Any], choices: Any) -> None:
        extra = sorted(set(node) & {"low", "high", "step", "log"})
        if extra:
            self.faults.append(f"{where} has choices and {', '.join(extra)}; keep one or the other")
        if not isinstance(choices, list) or not choices:
            self.faults.append(f"{where}.choices is {_show(choices)}; it must be a list of values")
        elif unclear := [choice for choice in choices if not _is_plain(choice)]:
            self.faults.append(f"{where}.choices has {_show(unclear[0])}; it must be a value that JSON has")
        elif len({choice_key(choice) for choice in choices}) < len(choices):
            self.faults.append(f"{where}.choices is {_show(choices)}; a value stands there twice")
        elif len(choices) == 1:
            self.faults.append(
                f"{where} has one point, {_show(choices[0])}; set {where.removeprefix('space.')} instead"
            )

    def check_bounds(self, where: str, node: Mapping[str, Any]) -> None:
        low, high, step = node.get("low"), node.get("high"), node.get("step")
        for key in ("low", "high"):
            if key not in node:
                self.faults.append(f"{where} has no {key}; a draw has low and high, or choices")
                return
        for key in ("low", "high", "step"):
            value = node.get(key)
            if key in node and (
                isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST
            ):
                hint = "; write 1.0e-4, not 1e-4, in YAML" if isinstance(value, str) and _is_number(value) else ""
                rule = f"it must be a finite number{_too_large(value)}"
                self.faults.append(f"{where}.{key} is {_show(value)}; {rule}{hint}")
                return
        assert low is not None
        assert high is not None
        log = bool(node.get("log", False))
        if low > high:
            self.faults.append(f"{where} has low {low} above high {high}; swap them")
        elif low == high:
            self.faults.append(f"{where} has one point, {low}; set {where.removeprefix('space.')} instead")
        elif log and low <= 0:
            self.faults.append(f"{where}.low is {low}, and a log scale needs bounds above 0")
        elif log and step is not None:
            self.faults.append(f"{where} has both log and step; keep one of them")
        elif step is not None and step <= 0:
            self.faults.append(f"{where}.step is {step}; it must be above 0")
        elif step is not None and isinstance(low, int) and isinstance(high, int) and not isinstance(step, int):
            self.faults.append(f"{where}.step is {step}, but low and high are integers; give an integer step")
        elif step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
            last = round(low + math.floor((high - low) / step) * step, 12)
            self.faults.append(f"{where}.step {step} misses high {high}; the last point would be {last}")

    def link(self) -> list[Draw]:
        """Check `when` and `repeat` against what exists, give names, and put each draw behind those it depends on."""
        by_path: dict[str, list[Draw]] = {}
        for draw in self.draws:
            by_path.setdefault(draw.path, []).append(draw)
        named: list[Draw] = []
        for draw in self.draws:
            twins = by_path[draw.path]
            name = draw.path if len(twins) == 1 else f"{draw.path}@{draw.option}"
            named.append(Draw(**{**draw.__dict__, "name": name}))
            for key, allowed in draw.when:
                self.check_condition(f"space.{draw.path}.when", key, allowed, by_path)
            if draw.repeat is not None:
                self.check_repeat(draw, by_path)
        if not self.faults:
            self.check_combinations(named)
        return self.sort(named)

    def names(self, by_path: Mapping[str, list[Draw]]) -> list[str]:
        known = [path for path, _ in leaves({key: value for key, value in self.config.items() if key != "space"})]
        return list(dict.fromkeys([*by_path, *self.groups, *known]))

    def fixed_values(self, key: str) -> list[Any]:
        """The values that a key without a draw may stand at. Raises KeyError for a key that is nowhere."""
        if key in self.groups:
            return [self.groups[key]]
        section, _, rest = key.partition(".")
        if section in self.options:
            return [get_path(config, rest) for config in self.options[section].values()]
        return [get_path(self.config, key)]

    def check_condition(
        self, where: str, key: str, allowed: tuple[Any, ...], by_path: Mapping[str, list[Draw]]
    ) -> None:
        draws = by_path.get(key, [])
        wanted = " or ".join(map(_show, allowed))
        if any(draw.repeat is not None for draw in draws):
            self.faults.append(f"{where} names {key}, which is repeated; name a key of one value")
        elif any(draw.num_points is None for draw in draws):
            self.faults.append(f"{where} wants {key} to be {wanted}, and it is continuous; give it a step or choices")
        elif draws:
            if not any(draw.holds(value) for draw in draws for value in allowed):
                few = islice((value for draw in draws for value in draw.values()), 8)
                self.never_holds(where, key, wanted, few)
        else:
            try:
                fixed = self.fixed_values(key)
            except KeyError:
                self.faults.append(f"{where} names {key}, which is no key; {nearest(key, self.names(by_path))}")
                return
            if not any(value in allowed for value in fixed):
                self.never_holds(where, key, wanted, fixed[:8])

    def never_holds(self, where: str, key: str, wanted: str, possible: Iterable[Any]) -> None:
        shown = ", ".join(map(_show, possible))
        self.faults.append(f"{where} wants {key} to be {wanted}, which can never hold; it can be: {shown}")

    def check_repeat(self, draw: Draw, by_path: Mapping[str, list[Draw]]) -> None:
        where, repeat = f"space.{draw.path}.repeat", draw.repeat
        if isinstance(repeat, int):
            if not 1 <= repeat <= MOST_CASES:
                self.faults.append(f"{where} is {repeat}; it must be 1 or more" + _at_most(repeat))
            return
        key = str(repeat)
        values: list[Any] = []
        for other in by_path.get(key, []):
            values += [repeat] if other.repeat is not None else other.choices or [other.low, other.high]
        if key not in by_path:
            try:
                values = self.fixed_values(key)
            except KeyError:
                self.faults.append(f"{where} names {key}, which is no key; {nearest(key, self.names(by_path))}")
                return
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
            self.faults.append(f"{where} names {key}, which is not a count; it must be an integer of 0 or more")
        elif max(values) > MOST_CASES:
            self.faults.append(f"{where} names {key}, which can be {max(values)}{_at_most(max(values))}")

    def check_combinations(self, draws: Sequence[Draw]) -> None:
        """The points of a space are counted by going through what others depend on."""
        controls = {key for draw in draws for key, _ in draw.when} | {draw.repeat for draw in draws}
        combinations = math.prod(min(draw.num_points or 1, MOST_CASES) for draw in draws if draw.path in controls)
        if combinations > MOST_COMBINATIONS:
            self.faults.append(
                f"space has {combinations:,} combinations of what when and repeat look at, and at most "
                f"{MOST_COMBINATIONS:,} can be gone through; give those draws fewer values"
            )

    def sort(self, draws: list[Draw]) -> list[Draw]:
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
                names = ", ".join(f"space.{draw.path}" for draw in waiting)
                self.faults.append(f"{names} wait for each other by when or repeat; break the circle")
                return done
            done += ready
            waiting = [draw for draw in waiting if draw not in ready]
        return done


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if _is_plain(value) else f"{value!r:.60}"


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _too_large(value: Any) -> str:
    is_finite = isinstance(value, int | float) and value == value and abs(value) != math.inf
    return f" of at most {LARGEST:g}" if is_finite and abs(value) > LARGEST else ""


def _at_most(count: int) -> str:
    return f", and at most {MOST_CASES:,}" if count > MOST_CASES else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read(
    space: Mapping[str, Any],
    config: Mapping[str, Any],
    groups: Mapping[str, str] | None = None,
    group_options: Mapping[str, Sequence[str]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    slices: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Space, list[str]]:
    """Compile a space against the configuration that it mirrors, and lint it.

    space: the `space` section
    groups: the chosen option of every configuration group; group_options: all options of each
    options: group -> option -> its configuration section, for groups that the space chooses among
    slices: group -> option -> its own slice of the space
    Returns the space, and its faults as sentences; with faults, the space is not to be used.
    """
    groups, options, slices = groups or {}, options or {}, slices or {}
    reader = _Reader(config, groups, group_options or {}, options)
    for group, sections in options.items():
        reader.draws.append(Draw(path=group, choices=tuple(sections)))
        for option, section in sections.items():
            reader.walk((slices.get(group) or {}).get(option), group, section, (group, option))
        if len(sections) == 1:
            reader.faults.append(f"space.{group} has one option, {next(iter(sections))}; set {group} instead")
    known = {key: value for key, value in config.items() if key != "space"}
    reader.walk({key: node for key, node in space.items() if key not in options}, "", known)
    return Space(tuple(reader.link()), config, groups, options), _once(reader.faults)


def _once(faults: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(faults))
