"""Layers: what a configuration is merged from, in order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferhpo.addresses import trust
from ferhpo.addresses.secrets import redact_address
from ferhpo.config.files import GROUPS
from ferhpo.config.input.overrides import expand, names_file, option_fault
from ferhpo.disk import is_hidden
from ferhpo.keys import get_path, leaves, nearest

OVERRIDE = "override"
MISSING = "???"  # a value that must be set elsewhere
WRITTEN = ("tracking.", "compute.", "output_dir")  # settings of where something is written
ENVIRONMENT = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,[^${}]*)?\}")
_REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
_PLAIN = re.compile(r"\$\{(?:[\w\[][\w.\[\]-]*|(?:report_unit|num_reports|objective_mode):)\}")
# What a file of anyone may read: places, and whose work it is. Any other variable may be a secret, whatever its name.
_READABLE = re.compile(
    r"HOME|USER|LOGNAME|HOSTNAME|PWD|TMPDIR|SCRATCH|WORK|DATA|DATASETS|SLURM_(JOB|ARRAY)_\w+|FERHPO_\w+|\w+_(DIR|FOLDER|DATA)"
)


@dataclass(frozen=True)
class Layer:
    """A file of the defaults list, or an override.

    file: path below its configuration folder, without .yaml; shown: how `ferhpo show` names it
    content: as nested dictionaries, unresolved; replaces: the key of an override
    is_trusted: whether the user wrote it: an override, or a file of the configuration folder or of ferhpo
    is_default: whether it is a file of ferhpo
    """

    file: str
    shown: str
    content: Mapping[str, Any]
    replaces: str | None = None
    is_trusted: bool = True
    is_default: bool = False

    def without(self, groups: Sequence[str]) -> "Layer":
        """Return the layer without what it says about the other options of these groups."""
        dropped = {group for group in groups if not self.file.startswith(f"{group}/")}
        content = {key: value for key, value in self.content.items() if key not in dropped}
        if isinstance(content.get("space"), Mapping):
            content["space"] = {key: value for key, value in content["space"].items() if key not in dropped}
            content = content if content["space"] else {key: content[key] for key in content if key != "space"}
        return replace(self, content=content)


def nested(path: str, content: Any) -> dict[str, Any]:
    """Return nested dictionaries that have `content` at a dotted path."""
    for part in reversed(path.split(".") if path else []):
        content = {part: content}
    return content if isinstance(content, dict) else {}


def origins_of(layers: Sequence[Layer]) -> dict[str, str]:
    """Return where each leaf was set last: in a file of the defaults list, or by an override."""
    origins: dict[str, str] = {}
    for layer in layers:
        if layer.replaces is not None:
            key = layer.replaces
            origins = {path: o for path, o in origins.items() if path != key and not path.startswith(f"{key}.")}
            if layer.content:
                origins[key] = layer.shown
            continue
        for path, _ in leaves(layer.content):
            if path.split(".")[0] != "defaults":
                origins[path] = layer.shown
    return origins


def trust_addresses(layers: Sequence[Layer], config: Mapping[str, Any]) -> None:
    """Trust each address of the configuration (see addresses/trust.py) that the user wrote into its last layer."""
    for key in trust.VARIABLES:
        setting = [layer for layer in layers if _sets(layer, key)]
        if not setting or not setting[-1].is_trusted:
            continue
        written, address = _written(setting[-1], key), get_path(config, key)
        if isinstance(written, str) and (
            "${" in written or redact_address(expand(written)) == redact_address(str(address))
        ):
            trust.trust_address(key, address)


def with_options(layers: Sequence[Layer], files: Sequence[Layer]) -> list[Layer]:
    """Return the layers with those of options that a space chooses among, which are merged after the other files."""
    more = [file for file in files if file.file not in {layer.file for layer in layers}]
    overrides = [layer for layer in layers if layer.file == OVERRIDE]
    return [*(layer for layer in layers if layer.file != OVERRIDE), *more, *overrides]


def _sets(layer: Layer, key: str) -> bool:
    """Return whether a layer sets a key, or a section that it is in. "???" and {} leave the value before them."""
    return layer.replaces == key or any(
        value not in (MISSING, {}) and f"{key}.".startswith(f"{path}.") for path, value in leaves(layer.content)
    )


def _holds(later: Sequence[Layer], key: str) -> bool:
    """Return whether what a file of anyone says of a key holds, whatever later layers are. Only the user's replace it.

    One that is not the user's may be of another option, and so replace nothing.
    """
    return not any(layer.is_trusted and _sets(layer, key) for layer in later)


def _written(layer: Layer, key: str) -> Any:
    """Return the value that a layer has for a key, or for a section that it is in, unresolved; None if it has none."""
    value: Any = layer.content
    for part in key.split("."):
        if not isinstance(value, Mapping):
            break
        value = value.get(part)
    return value


def cache_faults(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the faults of caches that a file which anyone may have written names: a cache replaces the images."""
    for number, layer in enumerate(layers):
        for key, value in deep_leaves(layer.content) if not layer.is_trusted else ():
            is_last = _holds(layers[number + 1 :], key)
            if is_last and key.endswith(".cache_dir") and value not in (None, MISSING):
                yield (
                    f"{key} is {value!r:.200} in {layer.shown}; a cache replaces the images, so a file "
                    f"cannot choose one; add {key}=... to the command line, or set FERHPO_CACHE_DIR to it"
                )


def place_faults(layers: Sequence[Layer], output_dir: object) -> Iterator[str]:
    """Yield the fault of an output folder that another than the user chooses: by a file, or by a link.

    A file chooses a folder below the current one. The default folder may be a link, e.g. to a larger disk, but not into
    a hidden folder, which is another program's.
    """
    setting = [layer for layer in layers if _sets(layer, "output_dir")]
    if not setting or not isinstance(output_dir, str):
        return
    path = Path(output_dir)
    if setting[-1].is_default:
        if path.is_symlink() and is_hidden(path):
            yield (
                f"output_dir is {output_dir}, a link to {path.resolve()}, which is in a hidden folder; add "
                f"output_dir={output_dir} to the command line"
            )
    elif not setting[-1].is_trusted and not may_be_chosen(output_dir):
        yield (
            f"output_dir is {output_dir} in {setting[-1].shown}; a file may choose only a folder below the current one "
            f"that is not hidden; add output_dir={output_dir} to the command line"
        )


def may_be_chosen(output_dir: str) -> bool:
    """Return whether a file of anyone may choose this output folder: below the current one, and not hidden."""
    path = Path(output_dir)
    is_below = not path.is_absolute() and path.resolve().is_relative_to(Path.cwd().resolve())
    return is_below and not is_hidden(path)


def is_for_a_server(uri: object) -> bool:
    """Return whether the results are sent to a server, or a database, that the user did not name."""
    is_away = isinstance(uri, str) and "://" in uri and not uri.startswith("sqlite:")
    return is_away and not trust.is_trusted(trust.STORE, str(uri))


def environment_faults(layers: Sequence[Layer], uri: object) -> list[str]:
    """Return the faults of files that anyone may have written, and that choose the server which receives the results.

    They may not also choose what it receives: variables of the environment, and the files whose names, classes and
    network are recorded.
    uri: tracking.uri
    """
    if not is_for_a_server(uri):
        return []
    server = f"would be sent to {trust.shown(str(uri))}, which a file names too"
    faults = []
    for number, layer in enumerate(layers):
        for key, value in deep_leaves(layer.content) if not layer.is_trusted else ():
            is_last = _holds(layers[number + 1 :], key)
            if is_last and is_read(key, value):
                faults.append(
                    f"{key} in {layer.shown}: what is there {server}; add {key}=... or tracking.uri=... to the command "
                    "line if you trust it"
                )
            faults += [
                f"{key} in {layer.shown} has ${{oc.env:...}}; the value of {name} {server}; give the value on the "
                "command line"
                for text in _texts(value)
                for name in ENVIRONMENT.findall(text)
            ]
    return faults


def copy_faults(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the faults of references to sections in files that anyone may have written.

    What a later file merges over such a reference is merged into a copy of the section, which no other rule sees.
    """
    for layer in layers:
        for key, value in deep_leaves(layer.content) if not layer.is_trusted else ():
            for target in (match for text in _texts(value) for match in _REFERENCE.findall(text)):
                path = ".".join(filter(None, re.split(r"[.\[\]]", target)))
                if any(_has_section(other.content, path) for other in layers):
                    yield (
                        f"{key} in {layer.shown} is a reference to the section {path}; a file may refer to a single "
                        "value only; write the values, or use an anchor of YAML (&name and *name)"
                    )


def _has_section(content: Mapping[str, Any], path: str) -> bool:
    try:
        value = get_path(content, path)
    except KeyError:
        return False
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, Mapping | list) for item in items)


def deep_leaves(section: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each leaf, those of sections in lists too: a reference may lead to one."""
    for key, value in leaves(section, above):
        yield key, value
        for place, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, Mapping | list):
                yield from deep_leaves(item, f"{key}.{place}")


def is_read(key: str, value: Any) -> bool:
    """Return whether a setting names a file or folder that a sweep reads."""
    if key.startswith(WRITTEN) or key.endswith("cache_dir") or value in (None, MISSING, {}):
        return False
    return key == "data" or names_file(key, value)


def resolver_faults(layer: Layer) -> Iterator[str]:
    """Yield the faults of references in a file that anyone may have written, before any of them is resolved.

    The value of a variable would be recorded. Other resolvers than ${oc.env:NAME} could hide such a name.
    """
    for key, value in leaves(layer.content):
        for text in _texts(value):
            for name in ENVIRONMENT.findall(text):
                if not _READABLE.fullmatch(name):
                    rule = f"has ${{oc.env:...}}; the value of {name} may be a secret, and would be recorded"
                    remedy = "give the value on the command line, or in a variable that begins with FERHPO_"
                    yield f"{key} in {layer.shown} {rule}; {remedy}"
            # What is left after removing all that is known to be harmless could hide the name of a resolver.
            if "${" in _PLAIN.sub("", ENVIRONMENT.sub("", text)):
                rule = "has a reference that is neither ${key} nor ${oc.env:NAME}"
                yield (
                    f"{key} in {layer.shown} {rule}, which a file may have only in the configuration folder; give the "
                    "value on the command line"
                )


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value and in its lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in (*value.keys(), *value.values()):
            yield from _texts(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(child)


def option_faults(group: str, node: Mapping[str, Any], group_options: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the faults of `options` in the space of a group, and of the narrowed draws of its options."""
    if group not in group_options:
        yield f"space.{group}.options: unknown group '{group}'; {nearest(group, GROUPS)}"
        return
    options = node["options"]
    if not isinstance(options, list | None):
        example = ", ".join(group_options[group][:2])
        yield f"space.{group}.options is {options!r:.60}; it must be a list of options, e.g. [{example}]"
        return
    for option in options or []:
        if option not in group_options[group]:
            remedy = option_fault(group, str(option), group_options).partition("; ")[2]
            yield f"space.{group}.options contains {option}; {remedy}"
        elif not isinstance(node.get(option) or {}, Mapping):
            yield (
                f"space.{group}.{option} is {node[option]!r:.60}; it must be a section with draws of {option}, "
                f"e.g. {{lr: {{low: 0.1, high: 0.5}}}}"
            )
