"""Dotted keys such as `optim.lr`: read, write and list them in a configuration, and suggest the closest match."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def get_path(config: Any, path: str) -> Any:
    """The value at a dotted path. Raises KeyError with the first part that is missing."""
    for part in path.split(".") if path else []:
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif (
            isinstance(config, Sequence) and not isinstance(config, str) and part.isdigit() and int(part) < len(config)
        ):
            config = config[int(part)]
        else:
            raise KeyError(part)
    return config


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) of nested mappings; a list is a value, and so is an empty mapping."""
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def set_path(config: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at a dotted path whose parents exist."""
    parent, _, last = path.rpartition(".")
    place = get_path(config, parent)
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def closest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was most likely meant to be."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


def nearest(name: str, names: Iterable[str]) -> str:
    """A remedy for a name that is not among `names`: the closest one, or all of them."""
    names = list(names)
    close = closest(name, names)
    return f"did you mean {close}?" if close else f"there are: {', '.join(sorted(names))}"


def nearest_key(config: Mapping[str, Any], key: str) -> str:
    """A remedy for a dotted key that is not in `config`."""
    parent, _, last = key.rpartition(".")
    while parent and not has_key(config, parent):
        parent, _, last = parent.rpartition(".")
    place = get_path(config, parent)
    if not isinstance(place, Mapping):
        return f"{parent} is a value"
    names = sorted(str(name) for name in place if not str(name).startswith("_"))
    close = closest(last, names)
    has = f"{parent} has: {', '.join(names)}" if parent else f"there are: {', '.join(names)}"
    if close:
        return f"did you mean {parent}.{close}?" if parent else f"did you mean {close}?"
    everywhere = [path for path, _ in leaves(config) if path.endswith(f".{last}") and not path.startswith("space.")]
    return f"{has}; did you mean {everywhere[0]}?" if everywhere else has


def has_key(config: Mapping[str, Any], path: str) -> bool:
    try:
        get_path(config, path)
    except KeyError:
        return False
    return True
