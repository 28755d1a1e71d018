"""A second look at what is decided by the user only: at the values of the composed configuration.

layers.py looks at what each file says. This file does not ask how the values came to their keys: a value there must be
one that the user, or a file of ferhpo, wrote for that key.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ferhpo.config.input.layers import (
    MISSING,
    Layer,
    deep_leaves,
    is_for_a_server,
    is_read,
    may_be_chosen,
)
from ferhpo.config.input.overrides import expand


def final_faults(
    config: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    layers: Sequence[Layer],
    slices: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield the faults of places in a composed configuration that no trusted layer wrote.

    options, slices: for each group that the space chooses among, the section and the draws of each option
    layers: all files that were read, and the overrides
    """
    written: dict[str, list[Any]] = {}
    for layer in layers:
        for key, value in deep_leaves(layer.content) if layer.is_trusted else ():
            written.setdefault(key, []).append(value)
    sections = [config, {"space": slices}]
    sections += [{group: section} for group, of_group in options.items() for section in of_group.values()]
    is_sent = is_for_a_server((config.get("tracking") or {}).get("uri"))
    for section in sections:
        for key, value in deep_leaves(section):
            if value in (None, MISSING, {}, []) or _is_in(value, written.get(key, ())):
                continue
            if key == "output_dir" and not may_be_chosen(value):
                rule = "a file may choose only a folder below the current one that is not hidden"
            elif key.endswith(".cache_dir"):
                rule = "a cache replaces the images, so a file cannot choose one"
            elif is_sent and any(is_read(name, item) for name, item in settings_of(key, value)):
                rule = "what is there would be sent to the server of tracking.uri, which a file names"
            else:
                continue
            yield f"{key} is {value!r:.200}; {rule}; add {key}=... to the command line"


def settings_of(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the setting that a key has, or those that a draw of the space could give: its choices."""
    if not key.startswith("space."):
        yield key, value
        return
    drawn = key.removeprefix("space.")
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield drawn, item
            yield drawn.rpartition(".")[0], item


def _is_in(value: Any, written: Sequence[Any]) -> bool:
    """Return whether a value is one of those that were written, or the result of a reference there."""
    return any(text == value or (isinstance(text, str) and ("${" in text or expand(text) == value)) for text in written)
