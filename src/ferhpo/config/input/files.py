"""YAML files of configurations: read in bounded memory, with a defaults list whose every entry exists.

A file of a few hundred bytes can describe gigabytes, by aliases or references (${...}) that double at each line.
Every file is therefore measured before it is built.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from ferhpo.config.files import GROUPS, NAMED, SYNONYMS, group_files, is_users
from ferhpo.config.input.layers import ENVIRONMENT, Layer, nested, resolver_faults
from ferhpo.config.input.overrides import option_fault
from ferhpo.config.input.reader import load_yaml
from ferhpo.errors import ConfigError
from ferhpo.keys import nearest
from ferhpo.parse import MOST_LEVELS

MOST_TEXT = 1_000_000  # characters of a value, with every reference written out
_PLAIN_NAME, _PLAIN_GROUP = re.compile(r"[\w-]+"), re.compile(r"(?:override )?/?\w+")
_REFERENCE = re.compile(r"\$\{\s*([^${}:]+?)\s*\}")
Keys = tuple[str, ...]


def reference_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault if the references of an unresolved configuration expand to too much, or form a circle.

    Note: as in OmegaConf, ${.key} is beside the value that has it, ${..key} one level higher, and ${a.b} may lead
    through a reference at a.
    """
    sizes: dict[Keys, int] = {}
    running: set[Keys] = set()

    def place(keys: Keys, steps: int = 0) -> Keys:
        """Return where a value really is, if one of the sections above it is a reference."""
        node: Any = config
        for number, key in enumerate(keys[:-1]):
            node = _child(node, key)
            if isinstance(node, str) and (found := _REFERENCE.fullmatch(node.strip())) and steps < 10 * MOST_LEVELS:
                return place((*_target(keys[: number + 1], found[1]), *keys[number + 1 :]), steps + 1)
        return keys

    def measure(node: Any, keys: Keys, depth: int = 0) -> int:
        if depth > 10 * MOST_LEVELS:
            return MOST_TEXT + 1
        if isinstance(node, Mapping):
            return 1 + sum(measure(child, (*keys, str(key)), depth + 1) for key, child in node.items())
        if isinstance(node, list):
            return 1 + sum(measure(child, (*keys, str(key)), depth + 1) for key, child in enumerate(node))
        if not isinstance(node, str):
            return 1
        total = len(node) + sum(len(os.environ.get(name, "")) for name in ENVIRONMENT.findall(node))
        for text in _REFERENCE.findall(node):
            target = place(_target(keys, text))
            if target not in sizes:
                if target in running:
                    continue  # a circle, which resolving reports
                running.add(target)
                sizes[target] = measure(reduce(_child, target, config), target, depth + 1)
                running.discard(target)
            total += sizes[target]
            if total > MOST_TEXT:
                break
        return total

    for key, node in config.items():
        if measure(node, (key,)) > MOST_TEXT:
            yield f"{key}: with its references (${{...}}) written out, it has more than {MOST_TEXT:,} characters"


def _target(keys: Keys, text: str) -> Keys:
    """Return the keys that the reference ${text}, in the value at `keys`, leads to."""
    dots = len(text) - len(text.lstrip("."))
    above = keys[: max(len(keys) - dots, 0)] if dots else ()
    return (*above, *(part for part in re.split(r"[.\[\]]+", text) if part))


def _child(node: Any, key: str) -> Any:
    """Return the value of a key or an index; None if there is none."""
    if isinstance(node, Mapping):
        return node.get(key)
    try:
        return node[int(key)] if isinstance(node, list) and int(key) >= 0 else None
    except (ValueError, IndexError):
        return None


class DefaultsLint:
    """Check a file and every file that its defaults list reaches, before Hydra composes them.

    find: return the file of (group, name), or None; a sweep or `config` has the group ""
    group_options: all options of each group; sweeps: the names of the sweeps and trainings
    read: the files that were checked, also those of the options that a space chooses among
    """

    def __init__(
        self,
        find: Callable[[str, str], Path | None],
        group_options: Mapping[str, Sequence[str]],
        sweeps: Sequence[str],
    ) -> None:
        self.find, self.group_options, self.sweeps = find, group_options, sweeps
        self.done: set[Path] = set()
        self.read: list[Layer] = []

    @property
    def untrusted(self) -> list[Layer]:
        """What files contain that anyone may have written."""
        return [layer for layer in self.read if not layer.is_trusted]

    def check(self, file: Path, group: str = "") -> None:
        """Raise ConfigError with every fault of the file and of those that it builds on.

        group: the group that the file is an option of; "" for a sweep
        """
        if file in self.done:
            return
        self.done.add(file)
        content = load_yaml(file)
        content = {} if content is None else content
        if not isinstance(content, Mapping):
            kind = (
                "a list" if isinstance(content, list) else "a text" if isinstance(content, str) else f"{content!r:.40}"
            )
            raise ConfigError(str(file), [f"it is {kind}; a configuration is a section with keys, e.g. num_trials: 20"])
        odd = [key for key in content if not isinstance(key, str)]
        faults = [f"{key!r:.40} is not a key; keys are text, e.g. '{key!s:.40}'" for key in odd]
        if not group and not content.get("defaults") and file.stem != "config":
            faults.append("it has no defaults list; start the file with `defaults: [config, _self_]`")
        faults += list(self.entries(content.get("defaults", []), group))
        layer = Layer(f"{group}/{file.stem}".lstrip("/"), f"{file.parent.name}/{file.name}", nested(group, content))
        self.read.append(replace(layer, is_trusted=is_users(file)))
        if not is_users(file):
            faults += resolver_faults(layer)
            faults += filter(None, (_unread_fault(entry, group) for entry in content.get("defaults") or []))
        if faults:
            raise ConfigError(str(file), faults)
        for entry in content.get("defaults") or []:
            key, option = next(iter(entry.items())) if isinstance(entry, Mapping) else (group, entry)
            key = key.removeprefix("override ").removeprefix("optional ").strip().lstrip("/")
            found = self.find(key, str(option)) if option not in (None, "_self_") else None
            if found is not None:
                self.check(found, key)

    def entries(self, defaults: Any, group: str) -> Iterator[str]:
        """Yield the faults of a defaults list."""
        if defaults is None:
            return
        if not isinstance(defaults, list):
            yield f"defaults is {defaults!r:.60}; it must be a list, e.g. [config, _self_]"
            return
        builds_on = [place for place, entry in enumerate(defaults) if entry in ("config", *self.sweeps)]
        has_config = bool(builds_on)
        chosen: set[str] = set()
        for place, entry in enumerate(defaults):
            if isinstance(entry, str):
                yield from self.name_faults(entry, group)
            elif isinstance(entry, Mapping) and len(entry) == 1:
                key, option = next(iter(entry.items()))
                if has_config and place < builds_on[0]:
                    yield f"defaults contains {key}: {option} before {defaults[builds_on[0]]}; move it behind that"
                else:
                    yield from self.choice_faults(str(key), option, has_config and not group, chosen)
            else:
                yield f"defaults contains {entry!r:.60}; an entry is a name, or one GROUP: OPTION"

    def name_faults(self, name: str, group: str) -> Iterator[str]:
        """Yield the fault of an entry that names another file of the same folder."""
        if name == "_self_" or self.find(group, name) is not None:
            return
        first, _, option = name.partition("/")
        if first in self.group_options and option:
            yield f"defaults contains {name}; write override {first}: {option}"
            return
        names = self.group_options.get(group, ()) if group else ["config", *self.sweeps]
        yield f"defaults contains {name}, which does not exist; {nearest(name, names)}"

    def choice_faults(self, key: str, option: Any, has_config: bool, chosen: set[str]) -> Iterator[str]:
        """Yield the faults of an entry GROUP: OPTION."""
        words = key.split()
        group = words[-1].lstrip("/").partition("@")[0] if words else ""
        overrides = "override" in words
        if group not in self.group_options:
            meant = SYNONYMS.get(group, "")
            near = f"did you mean {meant}?" if meant in GROUPS else nearest(group, GROUPS)
            yield f"defaults contains {key}: {option}; unknown group '{group}'; {near}"
        elif isinstance(option, list | Mapping):
            example = f"{group}: {self.group_options[group][0]}"
            yield f"defaults contains {key}: {option!r:.60}; it must be one option, e.g. {example}"
        elif option is not None and str(option) not in self.group_options[group]:
            remedy = option_fault(group, str(option), self.group_options).partition("; ")[2]
            yield f"defaults contains {key}: {option}; {remedy}"
        elif has_config and not overrides:
            yield (
                f"defaults contains {key}: {option}, but config has chosen {group} already; "
                f"write override {group}: {option}"
            )
        elif overrides and not has_config:
            yield (
                f"defaults contains {key}: {option}, but nothing chose {group} before; list config first, or write "
                f"{group}: {option}"
            )
        elif group in chosen:
            yield f"defaults contains {group} twice; keep one of them"
        chosen.add(group)


def _unread_fault(entry: Any, group: str) -> str:
    """Return why an entry of a defaults list could lead Hydra to another file than the one that is checked."""
    key, option = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else ("", entry)
    if option not in (None, "_self_") and not (isinstance(option, str) and _PLAIN_NAME.fullmatch(option)):
        return f"defaults contains {option!r:.60}; a name has only letters, digits, _ and -"
    if key and group:
        return f"defaults contains {key}: {option!r:.60}; a file of a group builds on files of its own folder only"
    if key and not _PLAIN_GROUP.fullmatch(key):
        return f"defaults contains {key!r:.60}; write GROUP or override GROUP"
    return ""


def fill_named(config: dict[str, Any], roots: Sequence[Path]) -> None:
    """Replace NAME: true in metrics, callbacks, panels and exports by the section in <section>/NAME.yaml.

    NAME: false, or null, leaves a component out; the check reports a name without a file. An own metric that is the
    objective needs no NAME: true.
    roots: the folders that are searched, in order
    """
    objective, metrics = config.get("objective"), config["metrics"]
    files = {section: group_files(section, roots=roots) for section in NAMED}
    metric = objective.get("metric") if isinstance(objective, Mapping) else None
    if isinstance(metrics, dict) and isinstance(metric, str) and metric.startswith("val_"):
        name = metric.removeprefix("val_")
        if name in files["metrics"]:
            metrics[name] = metrics.get(name) or True
    for section in NAMED:
        for name, value in list(config[section].items()) if isinstance(config[section], dict) else []:
            if value is True and name in files[section]:
                config[section][name] = load_yaml(files[section][name])
            elif value in (None, False):
                del config[section][name]
