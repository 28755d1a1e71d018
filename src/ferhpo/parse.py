"""Parse YAML, JSON and pickles that may come from anyone, in bounded time and memory.

A text of a few hundred bytes can describe gigabytes, by aliases that double at each line, so YAML is measured before it
is built. Integers of thousands of digits are refused, since Python neither prints them nor makes them floats. So are
many large integers as keys: anyone can choose them such that their hashes are equal, and the dictionary takes hours.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any

MOST_NODES = 100_000  # values of a YAML text, with every alias written out
MOST_LEVELS = 50
MOST_DIGITS = 100  # of an integer; the state of a random generator has about 40
MOST_LARGE = 1000  # integers in a YAML text that may have equal hashes, since they have more digits than LARGE_DIGITS
LARGE_DIGITS = 18
MOST_KEY = 2**31  # of the integers that are keys in a pickle
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-zA-Z_:]*")


class ParseError(ValueError):
    """A text that is not valid, or too large with its aliases written out."""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ParseError."""
    try:
        return json.loads(text, parse_int=_integer)
    except ParseError:
        raise
    except RecursionError:
        raise ParseError("it is nested too deeply") from None
    except ValueError as error:
        raise ParseError(str(error)) from None


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ParseError(f"it has a number of {len(digits):,} digits; at most {MOST_DIGITS} are read")
    return int(digits)


def shape_fault(value: Any, shape: Any, name: str = "") -> str:
    """Return which part of a JSON value has another shape than expected, by its name; empty if none has.

    shape: {"key": shape, "optional?": shape, str: shape of every other key}, [shape of every item], a type or several,
        or a function that returns whether the value is one
    """
    where = name or "it"
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where} is {value!r:.60}; it must be an object"
        known = {key.removesuffix("?"): key for key in shape if key is not str}
        if missing := [key for key, full in known.items() if key == full and key not in value]:
            return f"{name}.{missing[0]} is missing".lstrip(".")
        inner = ((key, value[key], shape[known[key]] if key in known else shape.get(str, object)) for key in value)
        faults = (shape_fault(child, expected, f"{name}.{key}".lstrip(".")) for key, child, expected in inner)
        return next(filter(None, faults), "")
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {value!r:.60}; it must be a list"
        return next(filter(None, (shape_fault(item, shape[0], f"{name}[{i}]") for i, item in enumerate(value))), "")
    if shape is object:
        return ""
    is_type = isinstance(shape, type | tuple)
    fits = isinstance(value, shape) and not isinstance(value, bool) if is_type else shape(value)
    return "" if fits else f"{where} is {value!r:.60}"


def parse_yaml(text: str, adapted: Callable[[Any], Any] = lambda loader: loader) -> Any:
    """Return the value of a YAML text. Raises ParseError.

    adapted: return the class that builds the values, a subclass of the loader of PyYAML that it is given
    """
    import yaml

    try:
        try:
            return _parsed(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader), adapted)  # ten times faster
        except (yaml.YAMLError, ValueError, RecursionError):  # PyYAML's own loader says better what is wrong
            return _parsed(text, yaml.SafeLoader, adapted)
    except ParseError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParseError(_yaml_fault(error)) from None


def _parsed(text: str, loader: Any, adapted: Callable[[Any], Any]) -> Any:
    import yaml
    from yaml.constructor import SafeConstructor

    if fault := _size_fault(text, loader):
        raise ParseError(fault)
    safe = adapted(loader)
    assert issubclass(safe, SafeConstructor)
    return yaml.load(text, Loader=safe)  # as harmless as yaml.SafeLoader


def _yaml_fault(error: Exception) -> str:
    """Return why a YAML file cannot be read, with the line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"it is not valid YAML: {where}{problem or ' '.join(str(error).split())}"


def _size_fault(text: str, loader: Any) -> str | None:
    """Return why a YAML text is too large with its aliases expanded, or too deep; None if it is neither.

    loader: a class of PyYAML, which parses the text
    """
    import yaml

    sizes: dict[str, int] = {}  # of each finished anchor
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, nodes so far) of each collection that is not closed
    total = num_large = 0
    for event in yaml.parse(text, Loader=loader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionEndEvent):
            name, size = open_nodes.pop()
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) == MOST_LEVELS:
                return f"line {_line(event)} is nested more than {MOST_LEVELS} levels deep"
            open_nodes.append((anchor, 1))
            continue
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                return f"line {_line(event)} has the alias *{anchor}, which contains itself or does not exist"
            name, size = None, sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            name, size = anchor, 1
            if event.implicit[0] and len(event.value) > LARGE_DIGITS and _NUMBER.fullmatch(event.value):
                num_large += 1
                if len(event.value) > MOST_DIGITS:
                    return f"line {_line(event)} has a number of more than {MOST_DIGITS} digits"
                if num_large > MOST_LARGE:
                    return f"it has more than {MOST_LARGE:,} numbers of more than {LARGE_DIGITS} digits"
        else:
            continue
        if name is not None:
            sizes[name] = size
        if open_nodes:
            open_nodes[-1] = (open_nodes[-1][0], open_nodes[-1][1] + size)
            size = open_nodes[-1][1]
        total = max(total, size)
        if total > MOST_NODES:
            return f"line {_line(event)}: with its aliases (*name) written out, it has more than {MOST_NODES:,} values"
    return None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class PlainUnpickler(pickle._Unpickler):  # in Python, since that in C takes as much memory as a pickle asks for
    """Read a pickle of anyone that contains plain values and what `find_class` of a subclass returns.

    A subclass sets `dispatch` to `plain_opcodes`. Keys of dictionaries must be texts or small integers, whose hashes
    nobody can make equal. Raises pickle.UnpicklingError and other exceptions.
    """

    stack: list[Any]  # of the base class, like those below
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def load_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError("it sets a key of something other than a dictionary")
        self.stack[-1].update(zip(plain_keys(items[::2]), items[1::2], strict=True))

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))  # the base class reserves the memory first


def plain_opcodes(*names: str) -> dict[int, Any]:
    """Return the `dispatch` of a PlainUnpickler that knows these opcodes of the module pickle, e.g. "MARK"."""
    own = {
        "SETITEM": PlainUnpickler.load_setitem,
        "SETITEMS": PlainUnpickler.load_setitems,
        "BYTEARRAY8": PlainUnpickler.load_bytearray8,
    }
    codes = {name: getattr(pickle, name)[0] for name in names}
    return _Opcodes((code, own.get(name) or pickle._Unpickler.dispatch[code]) for name, code in codes.items())


class _Opcodes(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"it has the opcode {code}, which is not in such a file")


def plain_keys(keys: Iterable[Any]) -> list[Any]:
    """Return the keys of a dictionary or set. Raises pickle.UnpicklingError if one is no text or small integer."""
    found = list(keys)
    for key in found:
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < MOST_KEY):
            raise pickle.UnpicklingError(f"it has a key {key!r:.40}; keys must be texts or integers below {MOST_KEY}")
    return found
