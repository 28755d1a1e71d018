"""Dotted keys such as `optim.lr`: read, write and list them in a configuration, and suggest the closest match."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Overrides = Sequence[str] | Mapping[str, Any]
PLACES = ("path", "root", "ferplus_path", "cache_dir")  # settings of a data set that say where it is, not what it is
# A text that Hydra's grammar takes as it is, and not as a number or another value.
_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_/][\w/+@%.-]*", re.IGNORECASE | re.ASCII)


def get_path(config: Any, path: str) -> Any:
    """Return the value at a dotted path. Raises KeyError with the first part that is missing."""
    for part in path.split(".") if path else []:
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif (
            isinstance(config, Sequence)
            and not isinstance(config, str)
            and part.isdecimal()
            and int(part) < len(config)
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


def differing_keys(one: Any, other: Any) -> list[str]:
    """Return the dotted paths at which two nested mappings have different values, or only one of them has a value."""
    values = [{path: repr(value) for path, value in leaves(node)} for node in (one, other)]
    return sorted(path for path in {**values[0], **values[1]} if values[0].get(path) != values[1].get(path))


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
    names = list(names)
    same = [other for other in names if other.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
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


def override_texts(overrides: Overrides) -> list[str]:
    """Return overrides as texts of the command line, `key=value`.

    overrides: such texts; or a mapping from keys to values, {"optim.lr": 0.1, "model": "resnet"}, which may be nested
        as in a YAML file, {"optim": {"lr": 0.1}}; {"~space.optim.lr": None} removes a key
    Raises TypeError for a value that a configuration cannot contain.
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return list(overrides)
    texts = []
    for key, value in overrides.items():
        if key.startswith("~") and value is None:
            texts.append(key)
        elif isinstance(value, Mapping) and value and "." not in key:
            texts += [f"{key}.{name}={_override_value(f'{key}.{name}', child)}" for name, child in value.items()]
        else:
            texts.append(f"{key}={_override_value(key, value)}")
    return texts


def _override_value(key: str, value: Any) -> str:
    """Return a Python value in Hydra's grammar."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a number of NumPy
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        text = str(os.fspath(value))
        if _PLAIN.fullmatch(text):
            return text
        escaped = re.sub(r"(\\*)'", lambda found: f"{found[1] * 2}\\'", text)  # a backslash counts before a quote only
        return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped) + "'"
    if isinstance(value, Mapping):
        pairs = [f"{name}: {_override_value(f'{key}.{name}', child)}" for name, child in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"[{', '.join(_override_value(key, child) for child in value)}]"
    raise TypeError(
        f"{key} is {value!r:.60}; it must be text, a number, True, False, None, a list or a mapping of these"
    )
