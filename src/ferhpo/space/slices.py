"""The slices of the space for a group whose option the space chooses: which draws each option has.

    optim:
      options: [sgd, adam]
      lr:       {low: 1.0e-4, high: 0.1, log: true}     # shared: for every option that has the key lr
      momentum: {low: 0.8, high: 0.99}                  # shared: adam has no momentum, and check says so
      sgd:      {lr: {low: 0.01, high: 0.3}}            # narrows the draws of one option; null removes a draw

The slice of an option is what its own file says, then the shared draws, then the narrowed ones; each is merged into the
one before, key by key.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ferhpo.keys import get_path, has_key, leaves
from ferhpo.text import join

BOUNDS = ("low", "high", "step", "log")


def make_slices(
    group: str,
    node: Mapping[str, Any],
    written: Iterable[str],
    sections: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the slice of each option, and a warning for each shared draw that an option has no key for.

    node: what the composed space has for the group, with `options`
    written: the dotted paths in `node` that do not come from the default option's own file: the shared draws
    sections: the section of each option; own: the slice in the file of each option
    """
    shared: dict[str, Any] = {}
    for path in written:
        first = path.partition(".")[0]
        if first not in ("options", *sections) and has_key(node, path):
            _set(shared, path, get_path(node, path))
    slices, lacking = {}, {}
    for option, section in sections.items():
        reached, lacking[option] = _reach(shared, section, "", (group, option))
        slices[option] = merge(merge(own.get(option) or {}, reached), node.get(option) or {})
    odd = {key: value for key, value in node.items() if not isinstance(key, str)}  # the lint refuses them
    for option in list(slices)[:1]:
        slices[option] |= odd
    warnings = []
    for path in dict.fromkeys(path for paths in lacking.values() for path in paths):
        without = [option for option, paths in lacking.items() if path in paths]
        having = [option for option in sections if has_key(sections[option], path)]
        if not having:  # the lint says that the key does not exist
            _set(slices[without[0]], path, get_path(shared, path))
            continue
        have = "has" if len(without) == 1 else "have"
        warnings.append(
            f"space.{group}.{path} is not drawn for {join(without)}, which {have} no {path}; "
            f"add when: {{{group}: {having[0] if len(having) == 1 else having}}} if that is meant".replace("'", "")
        )
    return slices, warnings


def merge(base: Any, change: Any) -> Any:
    """Return a node of the space with another one merged into it, e.g. {high: 0.1} into {low: 0.01, high: 1.0}."""
    if not isinstance(base, Mapping) or not isinstance(change, Mapping):
        return change
    kept = {key: value for key, value in base.items() if key not in _replaced(change)}
    return kept | {key: merge(kept[key], value) if key in kept else value for key, value in change.items()}


def settle(node: Any, layers: Sequence[Any]) -> Any:
    """Return a merged node without what later layers replaced: choices replace bounds, and a step replaces log.

    layers: what was merged, in order; without this, a draw could have choices and bounds
    """
    if not isinstance(node, Mapping):
        return node
    layers = [layer for layer in layers if isinstance(layer, Mapping)]
    dropped: set[str] = set()
    for layer in layers:
        dropped = (dropped - set(layer)) | (_replaced(layer) - set(layer))
    return {
        key: settle(child, [layer[key] for layer in layers if key in layer])
        for key, child in node.items()
        if key not in dropped
    }


def _replaced(change: Mapping[str, Any]) -> set[str]:
    """Return the keys of an earlier draw that cannot be combined with a change of it."""
    replaced: set[str] = set()
    if isinstance(change.get("choices"), list):
        replaced.update(BOUNDS)
    if not {"low", "high"}.isdisjoint(change) and "choices" not in change:
        replaced.add("choices")
    if "step" in change:
        replaced.add("log")
    if change.get("log") is True and "step" not in change:
        replaced.add("step")
    return replaced - set(change)


def _reach(
    shared: Mapping[str, Any], section: Any, path: str, option: tuple[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the shared draws for which a section has the key, and the paths of the others."""
    reached: dict[str, Any] = {}
    lacking: list[str] = []
    for key, node in shared.items():
        below = f"{path}.{key}" if path else key
        if isinstance(section, Mapping) and key in section:
            if isinstance(section[key], Mapping) and isinstance(node, Mapping):
                reached[key], more = _reach(node, section[key], below, option)
                lacking += more
            else:
                reached[key] = node
        elif node is not None and _admits(node, option):
            lacking.append(below)
    return reached, lacking


def _admits(node: Any, option: tuple[str, str]) -> bool:
    """Return whether the `when` of a draw allows an option of its group."""
    when = node.get("when") if isinstance(node, Mapping) else None
    if not isinstance(when, Mapping) or option[0] not in when:
        return True
    allowed = when[option[0]]
    return option[1] in (allowed if isinstance(allowed, list) else [allowed])


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a value at a dotted path whose parents may be missing."""
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[last] = value


def paths_below(content: Any, path: str) -> list[str]:
    """Return the dotted paths, relative to `path`, of the leaves that a nested content has below it."""
    if not isinstance(content, Mapping) or not has_key(content, path):
        return []
    return [below for below, _ in leaves(get_path(content, path)) if below]
