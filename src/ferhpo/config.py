"""Composes a configuration by name and overrides (Hydra's compose, our own command line) and builds objects from it.

What a reader would get wrong: a composed configuration is a plain dictionary, resolved; nothing beyond this file sees
OmegaConf. `check.py` says whether it can run.
"""

import copy
import functools
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo import space as spaces
from ferhpo import space_lint
from ferhpo.errors import ConfigError
from ferhpo.folds import num_reports, report_unit
from ferhpo.tracking.secrets import hide, hide_all

_HERE = Path(__file__).resolve().parent
# Of ferhpo what a configuration is made of: the rest could load, write and serve for whoever writes a _target_.
ALLOWED_TARGETS = (
    "ferhpo.data.",
    "ferhpo.models.",
    "ferhpo.training.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "optuna.samplers.",
    "ray.tune.schedulers.",
)
# What Hydra raises, beside its own exceptions, on a file that is no configuration.
_ODD_FILES = (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError, NotImplementedError)
GROUPS = ("data", "augment", "model", "optim", "lr_schedule", "trainer", "sampler", "scheduler", "compute", "tracking")


@dataclass(frozen=True)
class ComputeSettings:
    """Where trials run.

    address: null for this machine, auto for a running Ray cluster, or its address
    num_cpus, num_gpus: what this machine offers to trials; null finds out
    cpus_per_trial: CPU cores of a slot; null shares the cores among the slots
    gpus_per_trial: GPUs of a slot, 0.5 puts two trials on one; null is 1 where there is a GPU, else 0
    max_concurrent: the most trials at a time; null is as many as fit
    isolate_trials: a fresh process for every trial, at the cost of its imports
    max_retries: how often a trial whose worker died goes on from its checkpoint without an epoch in between
    trial_timeout: seconds without an epoch after which a trial counts as hanging; null is never
    stop_after_failures: the sweep stops when its first so many trials all fail for one reason; null is never
    stop_grace_seconds: from ctrl-C or SIGTERM on, for running epochs to come to their end
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    isolate_trials: bool = False
    max_retries: int = 2
    trial_timeout: float | None = 4 * 3600.0
    stop_after_failures: int | None = 3
    stop_grace_seconds: float = 20.0

    def __post_init__(self) -> None:
        for key in ("num_cpus", "max_concurrent", "stop_after_failures"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{key} is {value}; it must be 1 or more, or null")
        for key in ("num_gpus", "cpus_per_trial", "gpus_per_trial", "max_retries", "stop_grace_seconds"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, str) or value < 0):
                raise ValueError(f"{key} is {value}; it must be 0 or more")
        if self.trial_timeout is not None and (isinstance(self.trial_timeout, str) or self.trial_timeout <= 0):
            raise ValueError(
                f"trial_timeout is {self.trial_timeout}; it must be more than 0 seconds, or null for never"
            )
        if self.gpus_per_trial is not None and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial is {self.gpus_per_trial}; above 1 it must be a whole number")


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises: a metric of the epochs, and `max` or `min`."""

    metric: str = "val_acc"
    mode: str = "max"

    METRICS = ("train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1")

    def __post_init__(self) -> None:
        if self.metric not in self.METRICS:
            raise ValueError(f"metric is {self.metric}; {spaces.nearest(self.metric, self.METRICS)}")
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode is {self.mode}; it must be max or min")

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats `than`."""
        return than is None or (value > than if self.mode == "max" else value < than)

    def best_row(self, rows: Iterable[Mapping[str, float]]) -> Mapping[str, float] | None:
        """The epoch whose checkpoint is kept: the best of some rows of metrics, the first of equal ones.

        Rows without the metric, or where it is not a number, do not count; None where no row does.
        """
        best: Mapping[str, float] | None = None
        for row in rows:
            value = row.get(self.metric)
            if value is None or value != value:
                continue
            if best is None or self.is_better(value, best[self.metric]):
                best = row
        return best


@dataclass(frozen=True)
class Composed:
    """A composed configuration.

    config: the whole of it, resolved, as plain dictionaries and lists
    groups: the option that each group stands at
    group_options: all options of each group
    options, slices: for each group that the space chooses among, each option's section and its slice of the space
    origins: for each dotted path of a leaf, the file or the override that set it
    """

    name: str
    config: dict[str, Any]
    groups: dict[str, str] = field(default_factory=dict)
    group_options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def space(self) -> spaces.Space:
        """The compiled space. Raises ConfigError with every fault of it."""
        space, faults = self.read_space()
        if faults:
            raise ConfigError(self.name, faults)
        return space

    def read_space(self) -> tuple[spaces.Space, list[str]]:
        """The compiled space and its faults."""
        return space_lint.read(
            self.config.get("space") or {}, self.config, self.groups, self.group_options, self.options, self.slices
        )


def config_shape(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a whole configuration without which nothing else can be asked of it: its sections and the objective."""
    for section in (*GROUPS, "objective"):
        if not isinstance(config.get(section), Mapping):
            shown = f"is {config[section]!r:.60}" if section in config else "is missing"
            yield f"{section} {shown}, and it is a section with keys; a file begins with `defaults: [config, _self_]`"
    folder = config.get("output_dir")
    if not isinstance(folder, str) or not folder or "\0" in folder:
        yield f"output_dir is {folder!r:.60}; it must be the name of a folder, as mlruns"
    if not isinstance(config.get("space") or {}, Mapping):
        yield f"space is {config['space']!r:.60}; it must be a section, as {{optim: {{lr: {{low: 0.001, high: 0.1}}}}}}"
    if isinstance(config.get("objective"), Mapping):
        try:
            Objective(**config["objective"])
        except (TypeError, ValueError) as error:
            yield f"objective.{error}"


def config_roots(config_dir: Path | None = None) -> list[Path]:
    """The folders searched for configurations, first one first: the user's, then ferhpo's own conf/ and sweeps/.

    The user's is `config_dir`, else $FERHPO_CONFIG_DIR, else conf/ and sweeps/ of the current folder where they exist.
    """
    package = _HERE if (_HERE / "conf").is_dir() else _HERE.parents[1]
    own = [package / "conf", package / "sweeps"]
    chosen = config_dir or (Path(os.environ["FERHPO_CONFIG_DIR"]) if os.environ.get("FERHPO_CONFIG_DIR") else None)
    if chosen is not None:
        if not chosen.is_dir():
            raise ConfigError(f"--config-dir is {chosen}", ["there is no such folder"])
        users = [chosen, chosen / "conf", chosen / "sweeps"]
    else:
        users = [Path("conf"), Path("sweeps")]
    roots: list[Path] = []
    for root in [*users, *own]:
        if root.is_dir() and root.resolve() not in roots:
            roots.append(root.resolve())
    return roots


def sweep_files(config_dir: Path | None = None) -> dict[str, Path]:
    """Every named sweep or training and its file; a user's file hides one of ours with the same name."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted(root.glob("*.yaml")):
            if path.stem != "config":
                files.setdefault(path.stem, path)
    return files


def group_files(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Every option of a group and its file."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted((root / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def headline(path: Path) -> str:
    """The first comment of a configuration file that says something: its line in `ferhpo list`."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
        if line.strip() and not line.startswith("#"):
            break
    return ""


def compose(name: str | None, overrides: Sequence[str] = (), config_dir: Path | None = None) -> Composed:
    """Compose the sweep or training `name` with Hydra overrides (`optim.lr=0.01 model=resnet ~space.model.depth`).

    name: None composes config.yaml alone, from which every sweep starts
    Raises ConfigError with every fault of the name and the overrides: unknown names come with the nearest right one.
    """
    import yaml
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    # What schedulers count and how far: it follows from `data` and `trainer`, whatever file sets those.
    for resolver in (report_unit, num_reports):
        OmegaConf.register_new_resolver(resolver.__name__, _of_root(resolver), replace=True)
    roots = config_roots(config_dir)
    files = sweep_files(config_dir)
    if name is None:
        name = "config"
        files = {name: next(root / "config.yaml" for root in roots if (root / "config.yaml").exists())}
    if name not in files:
        raise ConfigError("sweep", [f"{name} is no sweep; {spaces.nearest(name, list(files))}"])
    # Hydra wants the primary configuration in its main folder; the roots follow in their order.
    roots = [files[name].parent, *(root for root in roots if root != files[name].parent)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(roots[0]), version_base="1.3"):
            return _Composer(name, files[name], roots, config_dir).compose(hide_all(overrides))
    except (yaml.YAMLError, OSError, UnicodeError, RecursionError) as error:  # of any file that it is made of
        raise ConfigError(str(files[name]), [" ".join(str(error).split())]) from None


def _of_root(function: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    """A resolver, written ${name:} in a file, that looks at the whole configuration."""
    return lambda *, _root_: function(_root_)


class _Composer:
    """Composes inside an initialised Hydra, and turns its complaints into faults."""

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
        """Part overrides into parsed ones of values and `group=option`; and faults of grammar and unknown options."""
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
                faults.append(f"override {text!r} is not understood ({first}); write key=value")
                continue
            key = override.key_or_group
            if key in self.group_options and not override.is_delete() and "{" not in text:
                option = str(override.value())
                if option in self.group_options[key]:
                    groups.append(f"{key}={option}")
                else:
                    faults.append(f"{key} is {option}; {spaces.nearest(option, self.group_options[key])}")
            elif key.startswith("space.") and not override.is_delete():
                # The space is open: an entry may be new.
                values.append(parser.parse_override("++" + text.lstrip("+")))
            else:
                values.append(override)
        return values, groups, faults

    def check_keys(self, config: Mapping[str, Any], values: Sequence[Any]) -> list[str]:
        keys = [value.key_or_group for value in values if not value.is_add() and not value.is_force_add()]
        return [f"{key} matches no key; {nearest_key(config, key)}" for key in keys if not _has(config, key)]

    def load(self, in_groups: Sequence[str], values: Sequence[Any] = ()) -> tuple[dict[str, Any], dict[str, str]]:
        """The resolved configuration and the option of each group. `values` are parsed overrides of values."""
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
        if resolved.get("name") is None:
            resolved["name"] = self.name
        hide_password(resolved)
        return {str(key): value for key, value in resolved.items()}, groups

    def compose_raw(self, name: str | None, overrides: Sequence[str]) -> tuple[Any, dict[str, str]]:
        """Hydra's configuration, not resolved, and the option of each group. Each is composed once: it takes 0.2 s."""
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
        """What a sweep's file sets for its model means nothing to another one: choosing another option of a group
        brings that option's own section and slice of the space, and drops the file's."""
        from omegaconf import open_dict

        own = self.compose_raw(self.name, [])[1] if in_groups else {}
        for text in in_groups:
            group, _, option = text.partition("=")
            if own.get(group) == option:
                continue
            alone, _ = self.compose_raw(None, [f"+{group}={option}"])
            with open_dict(config):
                config[group] = alone[group]
                if config.space is None:  # of a single training
                    continue
                config.space.pop(group, None)
                if alone.get("space") and group in alone.space:
                    config.space[group] = alone.space[group]

    def offered(
        self, config: Mapping[str, Any], in_groups: list[str], values: Sequence[Any]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """For each `options` in the space, compose every option once: its section and its slice."""
        options: dict[str, dict[str, Any]] = {}
        slices: dict[str, dict[str, Any]] = {}
        faults = []
        for group, node in (config.get("space") or {}).items():
            if not isinstance(node, Mapping) or "options" not in node:
                continue
            if group not in self.group_options:
                faults.append(f"space.{group}.options: {group} is no group; {spaces.nearest(group, GROUPS)}")
                continue
            for option in node["options"] or []:
                if option not in self.group_options[group]:
                    near = spaces.nearest(str(option), self.group_options[group])
                    faults.append(f"space.{group}.options has {option}; {near}")
                    continue
                chosen = [text for text in in_groups if not text.startswith(f"{group}=")] + [f"{group}={option}"]
                base, _ = self.load(chosen)
                whole, _ = self.load(chosen, [value for value in values if _has(base, value.key_or_group)])
                options.setdefault(group, {})[option] = whole[group]
                own = whole["space"].get(group) or {}
                slices.setdefault(group, {})[option] = {k: v for k, v in own.items() if k != "options"}
        if faults:
            raise ConfigError(self.name, faults)
        return options, slices

    def origins(self, in_groups: Sequence[str], values: Sequence[Any]) -> dict[str, str]:
        """Where each leaf came from: the last file of the defaults list, or the override, that set it."""
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
            for path, _ in spaces.leaves(content, entry.package or ""):
                if path.split(".")[0] != "defaults":
                    origins[path] = f"{file.parent.name}/{file.name}"
        for value in values:
            key = value.key_or_group
            origins = {path: o for path, o in origins.items() if path != key and not path.startswith(f"{key}.")}
            if not value.is_delete():
                origins[key] = "override"
        return origins


def hide_password(config: Mapping[Any, Any]) -> None:
    """Take the password out of tracking.uri: what is written, sent or printed of a configuration has none."""
    section = config.get("tracking")
    if isinstance(section, dict) and isinstance(section.get("uri"), str):
        section["uri"] = hide(section["uri"])


def nearest_key(config: Mapping[str, Any], key: str) -> str:
    """A remedy for a dotted key that is not in `config`."""
    parent, _, last = key.rpartition(".")
    while parent and not _has(config, parent):
        parent, _, last = parent.rpartition(".")
    place = spaces.get_path(config, parent)
    if not isinstance(place, Mapping):
        return f"{parent} is a value"
    names = sorted(str(name) for name in place if not str(name).startswith("_"))
    close = spaces.closest(last, names)
    has = f"{parent} has: {', '.join(names)}" if parent else f"there are: {', '.join(names)}"
    if close:
        return f"did you mean {parent}.{close}?" if parent else f"did you mean {close}?"
    everywhere = [
        path for path, _ in spaces.leaves(config) if path.endswith(f".{last}") and not path.startswith("space.")
    ]
    return f"{has}; did you mean {everywhere[0]}?" if everywhere else has


def set_values(config: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Put overrides `key=value`, in Hydra's grammar, into a configuration that is composed; return their faults.

    A key must be there already, and a group stays at its option.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    faults = []
    for text in hide_all(overrides):
        key, _, shown = text.partition("=")
        try:
            override = OverridesParser.create().parse_override(text)
            value = override.value() if override.type is None or not override.is_sweep_override() else None
        except HydraException:
            faults.append(f"{key} is {shown}, which is not understood; write key=value")
            continue
        if not _has(config, key):
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
        elif isinstance(spaces.get_path(config, key), Mapping):
            faults.append(f"{key} is a group, and stays; set its keys, as {key}.{next(iter(config[key]), 'key')}=...")
        else:
            spaces.set_path(config, key, value)
    hide_password(config)
    return faults


def _has(config: Mapping[str, Any], path: str) -> bool:
    try:
        spaces.get_path(config, path)
    except KeyError:
        return False
    return True


def locate(target: Any, allowed: Any = ()) -> Any:
    """The Python class or function that a `_target_` names.

    Both its name and the module that defines it must be allowed: what an allowed module imports for itself, as
    torch.nn.functional.torch.hub.load, is not.
    allowed: further prefixes, from the configuration's `allowed_targets`
    Raises ValueError where the name is not allowed, or is nothing.
    """
    trusted = [name for name in allowed if isinstance(name, str)] if isinstance(allowed, Sequence) else []
    prefixes = (*ALLOWED_TARGETS, *(f"{name.rstrip('.')}." for name in trusted))
    rule = f"only names under {', '.join(prefix.rstrip('.') for prefix in prefixes)} are allowed"
    if not isinstance(target, str) or not _is_dotted_name(target):
        raise ValueError(f"_target_ is {target}; it must be the dotted name of a class or function, as torch.optim.SGD")
    if not f"{target}.".startswith(prefixes):
        raise ValueError(f"_target_ is {target}; {rule}; {_how_to_allow(trusted, target.rpartition('.')[0] or target)}")
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ValueError(f"_target_ is {target}, which cannot be imported ({error})") from None
    module = getattr(found, "__module__", None)
    if not callable(found) or not isinstance(module, str):
        raise ValueError(f"_target_ is {target}, which is no class or function")
    if not f"{module}.".startswith(prefixes):
        own_name = f"{module}.{getattr(found, '__qualname__', type(found).__qualname__)}"
        raise ValueError(f"_target_ is {target}, which is {own_name}; {rule}; {_how_to_allow(trusted, module)}")
    return found


def _is_dotted_name(target: str) -> bool:
    parts = target.split(".")
    return all(part.isidentifier() and not part.startswith("__") for part in parts)


def _how_to_allow(trusted: Sequence[str], module: str) -> str:
    return f"add allowed_targets=[{', '.join([*trusted, module])}] if you trust it"


def _located(section: Mapping[str, Any], allowed: Any) -> Any:
    """What a section's `_target_` names. Raises ConfigError where it may not, as in the edited folder of a sweep."""
    try:
        return locate(section.get("_target_"), allowed)
    except ValueError as error:
        raise ConfigError("configuration", [str(error)]) from None


def instantiate(section: Mapping[str, Any], *args: Any, allowed: Sequence[str] = (), **extra: Any) -> Any:
    """Call a section's `_target_` with its other keys, nested sections first; `extra` fills in what a run knows."""
    target = _located(section, allowed)
    kwargs = {
        key: instantiate(value, allowed=allowed) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in section.items()
        if key != "_target_"
    }
    return target(*args, **{**kwargs, **extra})


def not_set(path: str) -> str:
    """The fault of a key that is still `???`."""
    leave_out = f", or {path}=null to leave it out" if re.fullmatch(r"data\.merge\.[^.]+\.path", path) else ""
    return f"{path} is not set; add {path}=...{leave_out}"


def as_function(section: Mapping[str, Any], allowed: Sequence[str] = ()) -> Callable[..., Any]:
    """A section's `_target_` with its other keys filled in, still to be called; nested sections likewise."""

    def filled(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if "_target_" in value:
            return as_function(value, allowed)
        return {key: filled(child) for key, child in value.items()}

    kwargs = {key: filled(value) for key, value in section.items() if key != "_target_"}
    return functools.partial(_located(section, allowed), **kwargs)
