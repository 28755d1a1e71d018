"""Dotted keys such as `optim.lr`: read, write and list them in a configuration, and suggest the closest match."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def get_path(config: Any, path: str) -> Any:
    """Return the value at a dotted path. Raises KeyError with the first part that is missing."""
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


def has_key(config: Mapping[str, Any], path: str) -> bool:
    """Return whether a configuration has a value at a dotted path."""
    try:
        get_path(config, path)
    except KeyError:
        return False
    return True


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted path, value) of nested mappings. Lists and empty mappings count as values."""
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def set_path(config: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path whose parents exist."""
    parent, _, last = path.rpartition(".")
    place = get_path(config, parent)
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that `name` is most likely a misspelling of, or None if none is similar."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the remedy for a name that is not among `names`: the closest one, or all of them."""
    names = list(names)
    close = closest(name, names)
    return f"did you mean {close}?" if close else f"choose from: {', '.join(sorted(names))}"


def nearest_key(config: Mapping[str, Any], key: str) -> str:
    """Return the remedy for a dotted key that is not in `config`."""
    parent, _, last = key.rpartition(".")
    while parent and not has_key(config, parent):
        parent, _, last = parent.rpartition(".")
    place = get_path(config, parent)
    if not isinstance(place, Mapping):
        return f"{parent} is a single value and has no keys"
    names = sorted(str(name) for name in place if not str(name).startswith("_"))
    close = closest(last, names)
    has = f"{parent} has: {', '.join(names)}" if parent else f"choose from: {', '.join(names)}"
    if close:
        return f"did you mean {parent}.{close}?" if parent else f"did you mean {close}?"
    everywhere = [path for path, _ in leaves(config) if path.endswith(f".{last}") and not path.startswith("space.")]
    return f"{has}; did you mean {everywhere[0]}?" if everywhere else has
