"""Read the `space` section into a `Space`, and report every fault with key, value, rule and remedy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ferhpo.keys import closest, nearest
from ferhpo.space.draw import Draw, choice_key
from ferhpo.space.link import Linker, is_plain, show
from ferhpo.space.space import Space

LARGEST = 1e15  # the largest bound; beyond it, consecutive integers have the same float
DRAW_KEYS = {"low", "high", "step", "log", "choices", "when", "repeat"}


class _Reader:
    """Collect the draws of a space, and its faults."""

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
        """Read a node of the space and everything below it.

        target: what the configuration has at `path`; option: (group, option) of a slice that belongs to one option
        """
        where = f"space.{path}"
        if node is None:
            return
        if not isinstance(node, Mapping):
            self.faults.append(
                f"{where} is {show(node)}; it must be a draw with low and high, or with choices; write "
                f"{{choices: [...]}}, or to give it one value, set {path} and {where}: null"
            )
        elif {"low", "high", "choices"} & set(node) and not isinstance(target, Mapping):
            self.read_draw(node, path, option)
        else:
            for key, child in node.items():
                below = f"{path}.{key}" if path else str(key)
                if fault := self.misspelled_option(child, below):
                    self.faults.append(fault)
                    continue
                if self.is_for_another_option(child, option):
                    continue
                if isinstance(target, Mapping) and key in target and not str(key).startswith("_"):
                    self.walk(child, below, target[key], option)
                else:
                    self.missing(str(key), below, path, target)

    def misspelled_option(self, node: Any, path: str) -> str | None:
        """Return the fault of a draw whose `when` requires an option that a group does not have; None otherwise."""
        when = node.get("when") if isinstance(node, Mapping) else None
        for key, allowed in when.items() if isinstance(when, Mapping) else ():
            known = self.group_options.get(key)
            for name in (allowed if isinstance(allowed, list) else [allowed]) if known else ():
                if name not in (known or ()):
                    return f"space.{path}.when requires {key} to be {show(name)}; {nearest(str(name), known or ())}"
        return None

    def is_for_another_option(self, node: Any, option: tuple[str, str] | None) -> bool:
        """Return whether the `when` of a draw requires an option of a group other than the chosen one.

        Such a draw is ignored, so that one slice can serve several options: with `momentum: {..., when: {optim: sgd}}`,
        Adam needs no momentum.
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
        """Report a key of the space that the configuration does not have."""
        if isinstance(target, Mapping):
            names = sorted(str(name) for name in target if not str(name).startswith("_"))
            has = f"{parent} has: {', '.join(names)}" if parent else f"the configuration has: {', '.join(names)}"
            close = closest(key, names)
            hint = f"; did you mean {close}?" if close else ""
            self.faults.append(f"space.{path} matches no key; {has}{hint}")
        else:
            self.faults.append(f"space.{path} is not a valid key of a draw; valid keys: {', '.join(sorted(DRAW_KEYS))}")

    def read_draw(self, node: Mapping[str, Any], path: str, option: tuple[str, str] | None) -> None:
        """Append the draw that a node describes, or its faults."""
        before = len(self.faults)
        where = f"space.{path}"
        for key in node:
            if key not in DRAW_KEYS:
                self.faults.append(
                    f"{where}.{key} is not a valid key of a draw; {nearest(str(key), sorted(DRAW_KEYS))}"
                )
        choices = node.get("choices")
        if choices is not None:
            self.check_choices(where, node, choices)
        else:
            self.check_bounds(where, node)
        if not isinstance(node.get("log", False), bool):
            self.faults.append(f"{where}.log is {show(node['log'])}; it must be true or false")
        repeat = node.get("repeat")
        if repeat is not None and (isinstance(repeat, bool) or not isinstance(repeat, int | str)):
            self.faults.append(f"{where}.repeat is {show(repeat)}; it must be an integer, or the key of one")
        when = node.get("when") or {}
        if not isinstance(when, Mapping):
            self.faults.append(f"{where}.when is {show(when)}; write {{key: value}}")
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
        """Report the faults of a draw with choices."""
        extra = sorted(set(node) & {"low", "high", "step", "log"})
        if extra:
            self.faults.append(f"{where} has choices and {', '.join(extra)}; keep only one of them")
        if not isinstance(choices, list) or not choices:
            self.faults.append(f"{where}.choices is {show(choices)}; it must be a list of values")
        elif unclear := [choice for choice in choices if not is_plain(choice)]:
            self.faults.append(f"{where}.choices contains {show(unclear[0])}; it must be a JSON value")
        elif len({choice_key(choice) for choice in choices}) < len(choices):
            self.faults.append(f"{where}.choices is {show(choices)}; its values must be distinct")
        elif len(choices) == 1:
            self.faults.append(f"{where} has only one value, {show(choices[0])}; set {_key_of(where)} instead")

    def check_bounds(self, where: str, node: Mapping[str, Any]) -> None:
        """Report the faults of a draw with bounds."""
        low, high, step = node.get("low"), node.get("high"), node.get("step")
        for key in ("low", "high"):
            if key not in node:
                self.faults.append(f"{where} has no {key}; a draw requires low and high, or choices")
                return
        for key in ("low", "high", "step"):
            value = node.get(key)
            if key in node and (
                isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST
            ):
                hint = "; write 1.0e-4, not 1e-4, in YAML" if isinstance(value, str) and _is_number(value) else ""
                rule = f"it must be a finite number{_too_large(value)}"
                self.faults.append(f"{where}.{key} is {show(value)}; {rule}{hint}")
                return
        assert low is not None
        assert high is not None
        log = bool(node.get("log", False))
        if low > high:
            self.faults.append(f"{where}.low is {low}, above {where}.high {high}; swap them")
        elif low == high:
            self.faults.append(f"{where} has only one value, {low}; set {_key_of(where)} instead")
        elif log and low <= 0:
            self.faults.append(f"{where}.low is {low}; a log scale requires bounds above 0")
        elif log and step is not None:
            self.faults.append(f"{where} has log and step; keep only one of them")
        elif step is not None and step <= 0:
            self.faults.append(f"{where}.step is {step}; it must be above 0")
        elif step is not None and isinstance(low, int) and isinstance(high, int) and not isinstance(step, int):
            self.faults.append(f"{where}.step is {step}, but low and high are integers; use an integer step")
        elif step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
            last = round(low + math.floor((high - low) / step) * step, 12)
            self.faults.append(f"{where}.step is {step}, which misses high {high}; the last value would be {last}")


def _key_of(where: str) -> str:
    """Return the key of the configuration that an entry of the space draws."""
    return where.removeprefix("space.")


def _too_large(value: Any) -> str:
    is_finite = isinstance(value, int | float) and value == value and abs(value) != math.inf
    return f" of at most {LARGEST:g}" if is_finite and abs(value) > LARGEST else ""


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
    """Compile a space against its configuration; return the space and its faults.

    space: the `space` section; config: the configuration whose values it draws
    groups: the chosen option of every config group; group_options: all options of every group
    options: group -> option -> section, for the groups whose option the space chooses
    slices: group -> option -> the option's slice of the space
    Do not use a space that has faults.
    """
    groups, options, slices = groups or {}, options or {}, slices or {}
    reader = _Reader(config, groups, group_options or {}, options)
    for group, sections in options.items():
        reader.draws.append(Draw(path=group, choices=tuple(sections)))
        before, found = len(reader.faults), dict[str, list[str]]()
        for option, section in sections.items():
            reader.walk((slices.get(group) or {}).get(option), group, section, (group, option))
            found[option], reader.faults[before:] = reader.faults[before:], []
        for option, faults in found.items():  # a fault of all options is one of what they share
            for fault in faults:
                is_shared = all(fault in others for others in found.values())
                reader.faults.append(fault if is_shared else f"{fault} ({group}={option})")
        if len(sections) == 1:
            reader.faults.append(f"space.{group} has only one option, {next(iter(sections))}; set {group} instead")
    known = {key: value for key, value in config.items() if key != "space"}
    reader.walk({key: node for key, node in space.items() if key not in options}, "", known)
    linker = Linker(reader.draws, config, groups, options)
    draws = linker.link()
    return Space(tuple(draws), config, groups, options), _once([*reader.faults, *linker.faults])


def _once(faults: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(faults))
