"""Values as the types of a component's arguments, from the annotation of an argument or else from its default.

A value of another type is converted if only one value can be meant (no for a bool, "1e-4" for a float, 128.0 for an
int), and is a fault otherwise. Arguments with types that a configuration cannot hold are left alone.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from ferhpo.components.build import locate
from ferhpo.config.settings import ComputeSettings
from ferhpo.keys import get_path, has_key
from ferhpo.tracking.settings import TrackingSettings

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_SETTINGS: dict[str, Callable[..., Any]] = {"compute": ComputeSettings, "tracking": TrackingSettings}
_NULL = ("null", "none", "~")
_LISTS = (list, tuple, set, frozenset, Sequence, typing.Sequence)
_UNKNOWN = object()


class MismatchError(ValueError):
    """A value that is not of a type; the text is the rule."""


def argument_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each argument of a component that has one.

    Raises ValueError if it has no signature.
    """
    signature = inspect.signature(target)
    try:
        hints = typing.get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    except Exception:  # an annotation that cannot be evaluated here
        hints = {}
    found = {}
    for name, parameter in signature.parameters.items():
        hint = hints.get(name, parameter.annotation)
        if hint is inspect.Parameter.empty or isinstance(hint, str):
            hint = _type_of_default(parameter.default)
        if hint is not _UNKNOWN and not is_open(hint):
            found[name] = hint
    return found


def _type_of_default(default: Any) -> Any:
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):  # an unannotated 0 may mean a real number
        return float
    return str if isinstance(default, str) else _UNKNOWN


def is_open(hint: Any) -> bool:
    """Return whether a type, or a part of a union, is none that a configuration can be checked against."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return all(is_open(part) for part in typing.get_args(hint) if part is not type(None))
    if origin is Literal or origin in _LISTS or origin in (dict, Mapping) or hint in _LISTS:
        return False
    return hint not in (bool, int, float, str, Path, type(None), dict, Mapping)


def convert(value: Any, hint: Any, lenient: bool = False) -> Any:
    """Return a value as a type. Raises ValueError whose text is the rule, e.g. "it must be true or false".

    lenient: for a component of another library, whose annotations may be narrower than what it accepts
    """
    if value == "???" or (isinstance(value, Mapping) and "_target_" in value):
        return value
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), lenient)
    if origin is Literal:
        return _one_of(value, typing.get_args(hint))
    if hint in _LISTS or origin in _LISTS:
        return _convert_list(value, hint, lenient)
    if hint in (dict, Mapping) or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise MismatchError("it must be a section, e.g. {key: value}")
        args = typing.get_args(hint)
        return {key: convert(child, args[1], lenient) if args else child for key, child in value.items()}
    converter = _CONVERTERS.get(hint)
    if converter is None:
        return value
    if lenient and isinstance(value, float) and not math.isfinite(value):
        return value
    return converter(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in (*_TRUE, *_FALSE):
        return value.strip().lower() in _TRUE
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise MismatchError("it must be true or false")


def _int(value: Any) -> int:
    number = _number_in(value)
    if isinstance(number, int):
        return number
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise MismatchError("it must be a whole number")


def _float(value: Any) -> float | int:
    number = _number_in(value)
    if number is None:
        raise MismatchError("it must be a number")
    return number


def _number_in(value: Any) -> int | float | None:
    """Return the number that a value is, or that a text says; None for anything else, also for true and false."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise MismatchError("it must be a text")


def _none(value: Any) -> None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _NULL):
        return
    raise MismatchError("it must be null")


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool, int: _int, float: _float, str: _str, Path: _str, type(None): _none,
}  # fmt: skip


def _is_exactly(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type as it is, so that no other part of a union is meant."""
    origin = typing.get_origin(hint) or hint
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in typing.get_args(hint))
    if origin is float:
        return isinstance(value, float)
    if origin in _LISTS:
        return isinstance(value, list | tuple)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return isinstance(origin, type) and type(value) is origin


def _convert_union(value: Any, parts: Sequence[Any], lenient: bool) -> Any:
    if bool in parts and isinstance(value, str) and value.strip().lower() in (*_TRUE, *_FALSE):
        return _bool(value)  # channels_last: auto | true | false
    if any(_is_exactly(value, part) for part in parts if not is_list(part)) or Any in parts:
        return value
    rules: list[str] = []
    # Null and text come last: "none" may be a text, and "1e-4" a number.
    for part in sorted(parts, key=lambda part: (part in (str, Path), part is type(None), not is_list(part))):
        if is_open(part):  # e.g. a tensor, which a configuration cannot hold
            continue
        try:
            return convert(value, part, lenient)
        except MismatchError as error:
            if is_list(part) and isinstance(value, list | tuple):
                raise  # which names the entry
            rules.append(str(error).removeprefix("it must be "))
    raise MismatchError(f"it must be {', or '.join(dict.fromkeys(sorted(rules, key=lambda rule: rule == 'null')))}")


def is_list(part: Any) -> bool:
    return part in _LISTS or typing.get_origin(part) in _LISTS


def _convert_list(value: Any, hint: Any, lenient: bool) -> Any:
    args = [arg for arg in typing.get_args(hint) if arg is not Ellipsis]
    if not isinstance(value, list | tuple):
        raise MismatchError("it must be a list, e.g. [1, 2]")
    kinds = list(args)
    fixed = (typing.get_origin(hint) is tuple) and Ellipsis not in typing.get_args(hint) and args
    if fixed and len(value) != len(args):
        raise MismatchError(f"it must be a list of {len(args)} values")
    converted = []
    for number, item in enumerate(value):
        kind = kinds[number] if fixed else kinds[0] if kinds else _UNKNOWN
        try:
            converted.append(item if kind is _UNKNOWN or is_open(kind) else convert(item, kind, lenient))
        except MismatchError as error:
            raise MismatchError(
                f"its entry {number} is {shown(item)}, but {error}".replace("but it", "which")
            ) from None
    return converted


def _one_of(value: Any, allowed: Sequence[Any]) -> Any:
    for one in allowed:
        if value == one and isinstance(value, bool) == isinstance(one, bool):
            return one
    for one in allowed:
        try:
            if _CONVERTERS[type(one)](value) == one:
                return one
        except (KeyError, ValueError):
            continue
    raise MismatchError(f"it must be one of {', '.join(shown(one) for one in allowed)}")


def shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, str | int | float) else f"{value!r:.60}"


def typed(config: Mapping[str, Any], key: str, value: Any) -> Any:
    """Return the value of an override as the type of the argument that its key sets.

    Raises ValueError with the fault.
    """
    *parents, name = key.split(".")
    section = ".".join(parents)
    values = get_path(config, section) if has_key(config, section) else {}
    try:
        target = _SETTINGS.get(section) or locate(values["_target_"], section)
        hint = argument_types(target)[name]
    except (KeyError, TypeError, ValueError):  # not an argument, or not allowed, which is reported elsewhere
        return value
    try:
        return convert(value, hint, not str(getattr(target, "__module__", "")).startswith("ferhpo."))
    except MismatchError as error:
        raise ValueError(f"{key} is {shown(value)}; {error}") from None


def convert_section(
    section: str, values: dict[str, Any], target: Callable[..., Any], given: Sequence[str] = ()
) -> Iterator[str]:
    """Convert the values of a section, in place, to the types of its component's arguments, and yield the faults.

    given: arguments that ferhpo passes itself
    """
    lenient = not str(getattr(target, "__module__", "")).startswith("ferhpo.")
    for name, hint in argument_types(target).items():
        if name not in values or name in given:
            continue
        if values[name] is None and section.startswith("data.merge."):  # path=null leaves a source out
            continue
        try:
            values[name] = convert(values[name], hint, lenient)
        except MismatchError as error:
            yield f"{section}.{name} is {shown(values[name])}; {error}"
