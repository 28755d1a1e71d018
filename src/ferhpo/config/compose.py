"""Compose a configuration from files and overrides with Hydra. No other module imports Hydra or OmegaConf.

Note: if the user chooses another option of a group, the sweep file's settings for that group are dropped, not merged.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.components import own_code
from ferhpo.config.composed import ADDED, Composed
from ferhpo.config.files import GROUPS, NAMED, config_roots, group_files, sweep_files
from ferhpo.config.folds import num_reports, report_unit
from ferhpo.errors import ConfigError
from ferhpo.keys import Overrides, get_path, has_key, leaves, nearest, nearest_key, override_texts, set_path
from ferhpo.scoring.metrics import objective_mode
from ferhpo.tracking.secrets import hide, hide_all

OPEN_SECTIONS = ("space.", *(f"{section}." for section in NAMED))  # an override may add keys to these
# What Hydra raises, besides its own exceptions, for a file that is not a configuration.
_ODD_FILES = (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError, NotImplementedError)


def compose(name: str | None, overrides: Overrides = (), config_dir: Path | None = None) -> Composed:
    """Compose the sweep or training `name` with Hydra overrides (`optim.lr=0.01 model=resnet ~space.model.depth`).

    name: None composes config.yaml alone, which every sweep builds on
    Raises ConfigError with every fault of the name and the overrides; for unknown names it suggests the closest one.
    """
    import yaml
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    # The unit and the limit of schedulers follow from `data` and `trainer`, no matter which file sets those.
    for resolver in (report_unit, num_reports, objective_mode):
        OmegaConf.register_new_resolver(resolver.__name__, _of_root(resolver), replace=True)
    own_code.allow_overrides(overrides)
    if config_dir is not None:
        own_code.trust_folder(config_dir)
    roots = config_roots(config_dir)
    files = sweep_files(config_dir)
    if name is None:
        name = "config"
        files = {name: next(root / "config.yaml" for root in roots if (root / "config.yaml").exists())}
    if name not in files:
        raise ConfigError("sweep", [f"unknown name '{name}'; {nearest(name, list(files))}"])
    # Hydra expects the primary configuration in its main folder; the other roots follow in order.
    roots = [files[name].parent, *(root for root in roots if root != files[name].parent)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(roots[0]), version_base="1.3"):
            return _Composer(name, files[name], roots, config_dir).compose(hide_all(override_texts(overrides)))
    except (yaml.YAMLError, OSError, UnicodeError, RecursionError) as error:  # in any of the composed files
        raise ConfigError(str(files[name]), [" ".join(str(error).split())]) from None


def _of_root(function: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    """Return a resolver, written ${name:} in a file, that is given the whole configuration."""
    return lambda *, _root_: function(_root_)


class _Composer:
    """Compose inside an initialized Hydra, and turn its exceptions into faults."""

    def __init__(self, name: str, file: Path, roots: Sequence[Path], config_dir: Path | None) -> None:
        self.name, self.file, self.roots = name, file, roots
        self.group_options = {group: tuple(group_files(group, config_dir)) for group in GROUPS}
        quoted = ",".join(f"'file://{root}'" for root in roots[1:])
        self.searchpath = f"hydra.searchpath=[{quoted}]"
        self.composed: dict[tuple[str | None, ...], tuple[Any, dict[str, str]]] = {}

    def compose(self, overrides: list[str]) -> Composed:
        values, in_groups, faults = self.sort(overrides)
        faults += self.check_keys(self.load(in_groups)[0], values)
        if faults:
            raise ConfigError(self.name, faults)
        config, groups = self.load(in_groups, values)
        options, slices = self.offered(config, in_groups, values)
        return Composed(self.name, config, groups, self.group_options, options, slices, self.origins(in_groups, values))

    def sort(self, overrides: list[str]) -> tuple[list[Any], list[str], list[str]]:
        """Sort overrides into parsed value overrides, `group=option` overrides, and faults."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        parser = OverridesParser.create()
        values: list[Any] = []
        groups: list[str] = []
        faults: list[str] = []
        for text in overrides:
            try:
                override = parser.parse_override(text)
            except HydraException as error:
                first = str(error).splitlines()[0]
                faults.append(f"override {text!r} cannot be parsed ({first}); write key=value")
                continue
            key = override.key_or_group
            if override.is_sweep_override():
                several = "options" if key in self.group_options else "choices"
                faults.append(
                    f"{key} is {text.partition('=')[2]}; it must be a single value; to search over several, use "
                    f"space.{key}={{{several}: [...]}}"
                )
            elif key in self.group_options and not override.is_delete() and "{" not in text:
                option = "null" if override.value() is None else str(override.value())
                if option in self.group_options[key]:
                    groups.append(f"{key}={option}")
                else:
                    faults.append(f"{key} is {option}; {nearest(option, self.group_options[key])}")
            elif key.startswith(OPEN_SECTIONS) and not override.is_delete():
                values.append(parser.parse_override("++" + text.lstrip("+")))
            else:
                values.append(override)
        return values, groups, faults

    def check_keys(self, config: Mapping[str, Any], values: Sequence[Any]) -> list[str]:
        """Return a fault for each override of a key that does not exist."""
        keys = [value.key_or_group for value in values if not value.is_add() and not value.is_force_add()]
        return [f"{key} matches no key; {nearest_key(config, key)}" for key in keys if not has_key(config, key)]

    def load(self, in_groups: Sequence[str], values: Sequence[Any] = ()) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the resolved configuration and the option of each group. `values` are parsed value overrides."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            config, groups = self.compose_raw(self.name, in_groups)
            self.drop_settings_of_other_options(config, in_groups)
            OmegaConf.set_struct(config, True)
            ConfigLoaderImpl._apply_overrides_to_config(list(values), config)
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(str(self.file), [" ".join(str(error).split())]) from None
        assert isinstance(resolved, dict)
        whole = copy.deepcopy(ADDED)
        whole.update({str(key): value for key, value in resolved.items()})
        self.fill_named(whole)
        if whole.get("name") is None:
            whole["name"] = self.name
        hide_password(whole)
        return whole, groups

    def fill_named(self, config: dict[str, Any]) -> None:
        """Replace NAME: true in metrics, callbacks, panels and exports by the section in <section>/NAME.yaml.

        NAME: false, or null, leaves a component out; the check reports a name without a file.
        """
        from omegaconf import OmegaConf

        for section in NAMED:
            for name, value in list(config[section].items()) if isinstance(config[section], dict) else []:
                file = next((p for root in self.roots if (p := root / section / f"{name}.yaml").is_file()), None)
                if value is True and file is not None:
                    config[section][name] = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
                elif value in (None, False):
                    del config[section][name]

    def compose_raw(self, name: str | None, overrides: Sequence[str]) -> tuple[Any, dict[str, str]]:
        """Return Hydra's unresolved configuration and the option of each group; cached, as composing takes 0.2 s."""
        from hydra import compose
        from omegaconf import OmegaConf

        key = (name, *overrides)
        if key not in self.composed:
            try:
                loaded = compose(name, [*overrides, self.searchpath], return_hydra_config=True)
            except _ODD_FILES as error:
                raise ConfigError(str(self.file), [" ".join(str(error).split()) or type(error).__name__]) from None
            choices = {str(group): str(option) for group, option in loaded.hydra.runtime.choices.items()}
            config = OmegaConf.masked_copy(loaded, [str(key) for key in loaded if key != "hydra"])
            self.composed[key] = config, {group: choices[group] for group in GROUPS if group in choices}
        config, groups = self.composed[key]
        return copy.deepcopy(config), dict(groups)

    def drop_settings_of_other_options(self, config: Any, in_groups: Sequence[str]) -> None:
        """Replace the section and the slice of the space of each group for which the user chose another option.

        What a sweep's file sets for its model, for example, has no meaning for another model.
        """
        from omegaconf import open_dict

        own = self.compose_raw(self.name, [])[1] if in_groups else {}
        for text in in_groups:
            group, _, option = text.partition("=")
            if own.get(group) == option:
                continue
            alone, _ = self.compose_raw(None, [f"+{group}={option}"])
            with open_dict(config):
                config[group] = alone[group]
                if config.space is None:  # a single training
                    continue
                config.space.pop(group, None)
                if alone.get("space") and group in alone.space:
                    config.space[group] = alone.space[group]

    def offered(
        self, config: Mapping[str, Any], in_groups: list[str], values: Sequence[Any]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Return the section and the slice of every option that the space chooses among, composed one by one."""
        options: dict[str, dict[str, Any]] = {}
        slices: dict[str, dict[str, Any]] = {}
        faults = []
        space = config.get("space")
        for group, node in space.items() if isinstance(space, Mapping) else ():  # validate.py reports other types
            if not isinstance(node, Mapping) or "options" not in node:
                continue
            if group not in self.group_options:
                faults.append(f"space.{group}.options: unknown group '{group}'; {nearest(group, GROUPS)}")
                continue
            if not isinstance(node["options"], list | None):
                example = ", ".join(self.group_options[group][:2])
                faults.append(
                    f"space.{group}.options is {node['options']!r:.60}; it must be a list of options, e.g. [{example}]"
                )
                continue
            for option in node["options"] or []:
                if option not in self.group_options[group]:
                    near = nearest(str(option), self.group_options[group])
                    faults.append(f"space.{group}.options contains {option}; {near}")
                    continue
                chosen = [text for text in in_groups if not text.startswith(f"{group}=")] + [f"{group}={option}"]
                base, _ = self.load(chosen)
                whole, _ = self.load(chosen, [value for value in values if has_key(base, value.key_or_group)])
                options.setdefault(group, {})[option] = whole[group]
                own = whole["space"].get(group) or {}
                slices.setdefault(group, {})[option] = {k: v for k, v in own.items() if k != "options"}
        if faults:
            raise ConfigError(self.name, faults)
        return options, slices

    def origins(self, in_groups: Sequence[str], values: Sequence[Any]) -> dict[str, str]:
        """Return where each leaf was set last: in a file of the defaults list, or by an override."""
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(self.name, [*in_groups, self.searchpath], RunMode.RUN)
        origins: dict[str, str] = {}
        for entry in defaults.defaults:
            candidates = [root / f"{entry.config_path}.yaml" for root in self.roots]
            file = next((path for path in candidates if path.exists()), None)
            if file is None:
                continue
            content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            for path, _ in leaves(content, entry.package or ""):
                if path.split(".")[0] != "defaults":
                    origins[path] = f"{file.parent.name}/{file.name}"
        for value in values:
            key = value.key_or_group
            origins = {path: o for path, o in origins.items() if path != key and not path.startswith(f"{key}.")}
            if not value.is_delete():
                origins[key] = "override"
        return origins


def hide_password(config: Mapping[Any, Any]) -> None:
    """Remove the password from tracking.uri, so that nothing that is written, sent or printed contains it."""
    section = config.get("tracking")
    if isinstance(section, dict) and isinstance(section.get("uri"), str):
        section["uri"] = hide(section["uri"])


def set_values(config: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Apply `key=value` overrides, in Hydra's grammar, to a composed configuration, and return their faults.

    Keys must exist. A mapping that is a value (data.labels, model.hog) is replaced, not merged; config groups and other
    sections cannot be replaced (see `replacement_fault`).
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    faults = []
    own_code.allow_overrides(overrides)
    for text in hide_all(overrides):
        key, _, shown = text.partition("=")
        try:
            override = OverridesParser.create().parse_override(text)
            value = override.value()
        except HydraException:
            faults.append(f"{key} is {shown}, which cannot be parsed; write key=value")
            continue
        if override.is_sweep_override():
            faults.append(f"{key} is {shown}; it must be a single value")
        elif not has_key(config, key):
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
        elif fault := replacement_fault(config, key):
            faults.append(fault)
        else:
            set_path(config, key, value)
    hide_password(config)
    return faults


def replacement_fault(config: Mapping[str, Any], key: str) -> str | None:
    """Return why an override must not replace the value at `key` as a whole; None if it may, or if there is none.

    Refused are config groups, and sections with a `_target_` in or below them, which would lose their component.
    """
    section = get_path(config, key) if has_key(config, key) else None
    if not isinstance(section, Mapping):
        return None
    if key in GROUPS:
        kind = "a config group"
    elif any(path.rpartition(".")[2] == "_target_" for path, _ in leaves(section)):
        kind = "a section with a _target_"
    else:
        return None
    keys = [path for path, _ in leaves(section, key) if path != key and not path.endswith("._target_")]
    example = keys[0] if keys else f"{key}.KEY"
    return f"{key} is {kind} and cannot be replaced here; set single keys, e.g. {example}=..."


def not_set(path: str) -> str:
    """Return the fault of a key that is still `???`."""
    leave_out = f", or {path}=null to leave it out" if re.fullmatch(r"data\.merge\.[^.]+\.path", path) else ""
    return f"{path} is not set; add {path}=...{leave_out}"
