"""Draws of the space as the types of the arguments that they draw."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union

from ferhpo.components.build import locate
from ferhpo.components.roles import ROLES
from ferhpo.config.composed import Composed
from ferhpo.config.input.types import MismatchError, argument_types, convert, is_list, is_open, shown
from ferhpo.text import join


def convert_draws(composed: Composed) -> tuple[list[str], list[str]]:
    """Convert choices and bounds of all draws, in place, to the types of what they draw; return (faults, warnings)."""
    space = composed.config.get("space") or {}
    faults: list[str] = []
    warnings: list[str] = []
    for group, node in space.items():
        sections = composed.options.get(group)
        if sections is None:
            parts = [("", composed.config.get(group), node)]
        else:
            slices = composed.slices.get(group) or {}
            parts = [(f" ({group}={option})", section, slices.get(option)) for option, section in sections.items()]
        for suffix, section, draws in parts:
            for more_faults, more_warnings in _of_section(str(group), section, draws):
                faults += [f"{fault}{suffix}" for fault in more_faults]
                warnings += [f"{warning}{suffix}" for warning in more_warnings]
    return faults, warnings


def _of_section(group: str, section: Any, draws: Any) -> Iterator[tuple[list[str], list[str]]]:
    if group not in ROLES or not isinstance(section, Mapping) or not isinstance(draws, Mapping):
        return
    try:
        target = locate(section.get("_target_"), group)
        hints = argument_types(target)
    except ValueError:  # reported by validate.py
        return
    lenient = not str(getattr(target, "__module__", "")).startswith("ferhpo.")
    for key, node in draws.items():
        if isinstance(node, dict) and key in hints and key in section:
            yield convert_draw(f"{group}.{key}", node, hints[key], lenient, node.get("repeat") is not None)


def convert_draw(
    path: str, node: dict[str, Any], hint: Any, lenient: bool, repeated: bool
) -> tuple[list[str], list[str]]:
    """Convert choices and bounds of a draw, in place, to the type of its argument; return (faults, warnings).

    repeated: whether the draw has `repeat`, so that each value is one entry of a list
    """
    faults: list[str] = []
    if repeated:
        hint = next(
            (arg for part in (hint, *typing.get_args(hint)) if is_list(part) for arg in typing.get_args(part)[:1]), hint
        )
    if isinstance(node.get("choices"), list):
        for number, choice in enumerate(node["choices"]):
            try:
                node["choices"][number] = convert(choice, hint, lenient)
            except MismatchError as error:
                faults.append(f"space.{path}.choices contains {shown(choice)}; {error}")
        return faults, []
    low: Any = node.get("low")
    high: Any = node.get("high")
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high)):
        return [], []  # the lint reports it
    accepted = _numbers(hint)
    if not accepted and not is_open(hint):
        kind, example = ("true or false", "[true, false]") if hint is bool else ("not a number", "[...]")
        return [f"space.{path}.low is {low}, but {path} is {kind}; write choices: {example}"], []
    if accepted == {int}:
        for key in ("low", "high", "step"):
            if isinstance(node.get(key), float) and node[key].is_integer():
                node[key] = int(node[key])
            elif isinstance(node.get(key), float):
                faults.append(f"space.{path}.{key} is {node[key]}, but {path} is a whole number; write a whole number")
        return faults, []
    whole = isinstance(low, int) and isinstance(high, int) and node.get("step") is None
    if accepted != {float} or not whole or low >= high:
        return [], []
    few = join([str(low), str(high)]) if high == low + 1 else f"the whole numbers from {low} to {high}"
    warning = f"space.{path} draws only {few}, because both bounds are integers; write low: {low}.0, high: {high}.0"
    return [], [f"{warning} to draw any number between them, or step: 1 to keep it so"]


def _numbers(hint: Any) -> set[type]:
    """Return which of int and float a type accepts."""
    if hint in (int, float):
        return {hint}
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = typing.get_args(hint)
        return set().union(*(_numbers(part) for part in parts)) or ({int, float} if any(map(is_open, parts)) else set())
    return set()
