"""Compose a configuration from files and overrides with Hydra, which only this module and input/reader.py import.

Note: if the user chooses another option of a group, the sweep file's settings for that group are dropped, not merged.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.addresses.secrets import hide, hide_all
from ferhpo.components import own_code
from ferhpo.config.composed import ADDED, Composed
from ferhpo.config.files import GROUPS, NAMED, config_roots, group_files, is_own, is_users, named_file, sweep_files
from ferhpo.config.folds import num_reports, report_unit
from ferhpo.config.input import hydra as hydra_input
from ferhpo.config.input import overrides as texts
from ferhpo.config.input.files import DefaultsLint, fill_named, reference_faults
from ferhpo.config.input.final import final_faults
from ferhpo.config.input.layers import (
    OVERRIDE,
    Layer,
    cache_faults,
    copy_faults,
    environment_faults,
    nested,
    option_faults,
    origins_of,
    place_faults,
    trust_addresses,
    with_options,
)
from ferhpo.config.input.reader import checked_files, load_yaml, merged, parse
from ferhpo.errors import ConfigError
from ferhpo.keys import Overrides, differing_keys, has_key, override_texts
from ferhpo.scoring.metrics import objective_mode
from ferhpo.space.slices import make_slices, paths_below, settle

OPEN_SECTIONS = ("space.", *(f"{section}." for section in NAMED))  # an override may add keys to these
# What Hydra raises, besides its own exceptions, for a file that is not a configuration.
_ODD_FILES = (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError, NotImplementedError)


def compose(name: str | None, overrides: Overrides = (), config_dir: Path | None = None) -> Composed:
    """Compose the sweep or training `name` with Hydra overrides (`optim.lr=0.01 model=resnet ~space.model.depth`).

    name: None composes config.yaml alone, which every sweep builds on
    Raises ConfigError with every fault of the name and the overrides; for unknown names it suggests the closest one.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    # The unit and the limit of schedulers follow from `data` and `trainer`, no matter which file sets those.
    for resolver in (report_unit, num_reports, objective_mode):
        OmegaConf.register_new_resolver(resolver.__name__, _of_root(resolver), replace=True)
    overrides = override_texts(overrides)
    own_code.allow_overrides(overrides)
    if config_dir is not None:
        own_code.trust_folder(config_dir)
    file = named_file(name, config_dir)
    # Hydra expects the primary configuration in its main folder; the other roots follow in order.
    roots = [file.parent, *(root for root in config_roots(config_dir) if root != file.parent)]
    GlobalHydra.instance().clear()
    with checked_files(), initialize_config_dir(str(roots[0]), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        # Hydra reads every file for the configuration, and again for the defaults list of the same overrides.
        loader._parse_overrides_and_create_caching_repo = _once(loader._parse_overrides_and_create_caching_repo)
        return _Composer(file, roots).compose(hide_all(overrides))


def _once(function: Callable[[str | None, list[str]], Any]) -> Callable[[str | None, list[str]], Any]:
    """Return a function that keeps its results."""
    results: dict[tuple[str | None, ...], Any] = {}

    def kept(name: str | None, overrides: list[str]) -> Any:
        key = (name, *overrides)
        if key not in results:
            results[key] = function(name, overrides)
        return results[key]

    return kept


def _of_root(function: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    """Return a resolver, written ${name:} in a file, that is given the whole configuration."""
    return lambda *, _root_: function(_root_)


class _Composer:
    """Compose inside an initialized Hydra, and turn its exceptions into faults."""

    def __init__(self, file: Path, roots: Sequence[Path]) -> None:
        self.name, self.file, self.roots = file.stem, file, roots
        self.sweeps = sweep_files(roots=roots)
        self.group_files = {group: group_files(group, roots=roots) for group in GROUPS}
        self.group_options = {group: tuple(files) for group, files in self.group_files.items()}
        quoted = ",".join(texts.quote(f"file://{root}") for root in roots[1:])
        self.searchpath = f"hydra.searchpath=[{quoted}]"
        self.composed: dict[tuple[str | None, ...], tuple[Any, dict[str, str]]] = {}
        self.lint = DefaultsLint(self.find, self.group_options, tuple(self.sweeps))

    def find(self, group: str, name: str) -> Path | None:
        """Return the file that a defaults list means."""
        if group:
            return self.group_files.get(group, {}).get(name)
        own = {"config": next(root / "config.yaml" for root in self.roots if (root / "config.yaml").exists())}
        return (own | self.sweeps).get(name)

    def compose(self, overrides: list[str]) -> Composed:
        values, in_groups, faults = self.sort(overrides)
        faults += texts.unknown_keys(self.load(in_groups)[0], values)
        if faults:
            raise ConfigError(self.name, faults)
        config, groups = self.load(in_groups, values)
        layers = self.layers(in_groups, values)
        trust_addresses(layers, config)
        config["space"] = settle(config.get("space"), [layer.content.get("space") for layer in layers])
        options, slices, warnings = self.offered(config, in_groups, values, layers)
        uri = (config.get("tracking") or {}).get("uri")
        read = with_options(layers, self.lint.untrusted)
        places = place_faults(layers, config.get("output_dir"))
        if faults := [*places, *copy_faults(read), *environment_faults(read, uri), *cache_faults(read)]:
            raise ConfigError(self.name, faults)
        if faults := list(final_faults(config, options, [*self.lint.read, *layers], slices)):
            raise ConfigError(self.name, faults)
        shown = self.group_options, options, slices, origins_of(layers), tuple(warnings)
        return Composed(self.name, config, groups, *shown)

    def sort(self, overrides: list[str]) -> tuple[list[Any], list[str], list[str]]:
        """Sort overrides into parsed value overrides, `group=option` overrides, and faults."""
        values, groups, faults = list[Any](), list[str](), list[str]()
        for text in overrides:
            try:
                override = parse(text)
            except ValueError as error:
                faults.append(str(error))
                continue
            key, given = override.key_or_group, text.partition("=")[2]
            if answer := hydra_input.key_answer(key, given, tuple(self.sweeps)):
                faults.append(answer)
            elif override.is_sweep_override():
                faults.append(texts.sweep_fault(key, text, override.value(), self.group_options))
            elif key in self.group_options and not override.is_delete() and "{" not in text:
                option = "null" if override.value() is None else str(override.value())
                if option in self.group_options[key]:
                    groups.append(f"{key}={option}")
                else:
                    faults.append(texts.option_fault(key, option, self.group_options))
            elif key.startswith(OPEN_SECTIONS) and not override.is_delete():
                values.append(parse("++" + text.lstrip("+")))
            else:
                values.append(override)
        return values, groups, faults

    def load(
        self, in_groups: Sequence[str], values: Sequence[Any] = (), bare: str | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the resolved configuration and the option of each group.

        values: parsed value overrides; bare: a group for which only its option's own file counts
        """
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        plain: Any = None
        try:
            config, groups = self.compose_raw(self.name, in_groups)
            self.drop_settings(config, [*self.changed_groups(in_groups), *([bare] if bare else [])], groups)
            OmegaConf.set_struct(config, True)
            ConfigLoaderImpl._apply_overrides_to_config(list(values), config)
            plain = OmegaConf.to_container(config, resolve=False)
            if faults := list(reference_faults(plain)):
                raise ConfigError(self.name, faults)
            # Before resolving: a reference to the address must not copy its password to another key.
            if isinstance(uri := OmegaConf.select(config, "tracking.uri"), str):
                OmegaConf.update(config, "tracking.uri", hide(uri))
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        except (HydraException, OmegaConfBaseException, RecursionError) as error:
            raise ConfigError(str(self.file), [hydra_input.explain(error, plain)]) from None
        assert isinstance(resolved, dict)
        whole = copy.deepcopy(ADDED) | {str(key): value for key, value in resolved.items()}
        fill_named(whole, self.roots)
        if whole.get("name") is None:
            whole["name"] = self.name
        texts.expand_paths(whole)
        return whole, groups

    def compose_raw(self, name: str | None, overrides: Sequence[str]) -> tuple[Any, dict[str, str]]:
        """Return Hydra's unresolved configuration and the option of each group; cached, as composing takes 0.2 s."""
        from hydra import compose
        from omegaconf import OmegaConf

        key = (name, *overrides)
        if key not in self.composed:
            self.lint.check(self.file)
            for text in overrides:
                group, _, option = text.lstrip("+").partition("=")
                self.lint.check(self.group_files[group][option], group)
            try:
                loaded = compose(name, [*overrides, self.searchpath], return_hydra_config=True)
            except _ODD_FILES as error:
                raise ConfigError(str(self.file), [hydra_input.explain(error)]) from None
            choices = {str(group): str(option) for group, option in loaded.hydra.runtime.choices.items()}
            config = OmegaConf.masked_copy(loaded, [str(key) for key in loaded if key != "hydra"])
            self.composed[key] = config, {group: choices[group] for group in GROUPS if group in choices}
        config, groups = self.composed[key]
        return copy.deepcopy(config), dict(groups)

    def changed_groups(self, in_groups: Sequence[str]) -> list[str]:
        """Return the groups for which the user chose another option than the sweep's file."""
        own = self.compose_raw(self.name, [])[1] if in_groups else {}
        chosen = dict(text.split("=", 1) for text in in_groups)
        return [group for group, option in chosen.items() if own.get(group) != option]

    def drop_settings(self, config: Any, groups: Sequence[str], chosen: Mapping[str, str]) -> None:
        """Replace the section and the slice of the space of each group by what the file of its option says.

        What a sweep's file sets for its model, for example, has no meaning for another model.
        """
        from omegaconf import open_dict

        for group in groups:
            alone, _ = self.compose_raw(None, [f"+{group}={chosen[group]}"])
            with open_dict(config):
                config[group] = alone[group]
                if config.space is None:  # a single training
                    continue
                config.space.pop(group, None)
                if alone.get("space") and group in alone.space:
                    config.space[group] = alone.space[group]

    def offered(
        self, config: Mapping[str, Any], in_groups: list[str], values: Sequence[Any], layers: Sequence[Layer]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], list[str]]:
        """Return the section and the slice of every option that the space chooses among, and warnings about them."""
        options: dict[str, dict[str, Any]] = {}
        slices: dict[str, dict[str, Any]] = {}
        warnings: list[str] = []
        faults: list[str] = []
        space = config.get("space")
        for group, node in space.items() if isinstance(space, Mapping) else ():  # validate.py reports other types
            if not isinstance(node, Mapping) or "options" not in node:
                continue
            if found := list(option_faults(str(group), node, self.group_options)):
                faults += found
                continue
            own = {}
            for option in node["options"] or []:
                chosen = [text for text in in_groups if not text.startswith(f"{group}=")] + [f"{group}={option}"]
                base, _ = self.load(chosen)
                known = [value for value in values if has_key(base, value.key_or_group)]
                whole, _ = self.load(chosen, [value for value in known if value.key_or_group.split(".")[0] != "space"])
                options.setdefault(group, {})[option] = whole[group]
                own[option] = (self.load(chosen, bare=group)[0]["space"] or {}).get(group) or {}
            if options.get(group):
                written = [
                    path
                    for layer in layers
                    if not layer.file.startswith(f"{group}/")
                    for path in paths_below(layer.content, f"space.{group}")
                ]
                slices[group], more = make_slices(group, node, written, options[group], own)
                warnings += more
        if faults:
            raise ConfigError(self.name, faults)
        return options, slices, warnings

    def layers(self, in_groups: Sequence[str], values: Sequence[Any]) -> list[Layer]:
        """Return what the configuration was merged from: the files of the defaults list, then the overrides."""
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(self.name, [*in_groups, self.searchpath], RunMode.RUN)
        layers = []
        for entry in defaults.defaults:
            files = (root / f"{entry.config_path}.yaml" for root in self.roots)
            if file := next(filter(Path.exists, files), None):
                read = {key: value for key, value in (load_yaml(file) or {}).items() if key != "defaults"}
                content = nested(entry.package or "", read)
                shown = f"{file.parent.name}/{file.name}"
                ours = is_own(file)
                layers.append(Layer(str(entry.config_path), shown, content, is_trusted=is_users(file), is_default=ours))
        composed = merged([self.compose_raw(self.name, in_groups)[0]])
        if unseen := differing_keys(merged(layer.content for layer in layers), composed):
            raise ConfigError(self.name, [f"{key} is not what the files say that set it" for key in unseen])
        changed = self.changed_groups(in_groups)
        layers = [layer.without(changed) for layer in layers]
        for value in values:
            content = {} if value.is_delete() else nested(value.key_or_group, value.value())
            layers.append(Layer(OVERRIDE, OVERRIDE, content, value.key_or_group))
        return layers
