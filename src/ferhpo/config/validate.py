"""The verb `check`: find every fault of a configuration before anything is created.

Components are not only matched against their signatures but also built, networks on torch's meta device. Heavy packages
are imported inside functions.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from ferhpo.addresses.trust import cluster_fault
from ferhpo.components import own_code
from ferhpo.components.build import as_function, instantiate, locate, not_nested
from ferhpo.components.kinds import is_fifo, is_grid, pauses_trials
from ferhpo.components.roles import ROLES, nested_role
from ferhpo.config import contracts, model_section
from ferhpo.config.compose import compose
from ferhpo.config.composed import Composed, config_shape
from ferhpo.config.files import GROUPS, NAMED
from ferhpo.config.input.draws import convert_draws
from ferhpo.config.input.overrides import not_set
from ferhpo.config.input.types import convert_section
from ferhpo.config.rules import objective_warnings, scheduler_faults, sweep_rules, top_level_faults
from ferhpo.config.settings import BudgetSettings, ComputeSettings, gpu_faults
from ferhpo.data.features.hog import given_features
from ferhpo.errors import ConfigError, Infeasible
from ferhpo.keys import Overrides, nearest, set_path
from ferhpo.scoring.metrics import section_faults
from ferhpo.space import Draw, Space
from ferhpo.space.given import given_faults
from ferhpo.tracking import TrackingSettings, trust_fault
from ferhpo.training.settings import TrainerSettings, make_loss

TOP_KEYS = {
    *GROUPS, "name", "seed", "num_trials", "keep_checkpoints", "budget", "objective", *NAMED, "output_dir",
    "allowed_targets", "first", "warm_start", "space",
}  # fmt: skip
TARGET_SECTIONS = ("data", "augment", "model", "loss", "optim", "lr_schedule", "trainer", "sampler", "scheduler")
NEEDS = {"lr_schedule": {"optim", "trainer"}, "loss": {"trainer"}}  # sections that a section is built from
REFUSED = (ValueError, TypeError, RuntimeError, AssertionError, OverflowError)  # raised for an argument out of range
WEIGHT_KEYS = ("model.arch", "model.weights")  # what pretrained weights depend on
IMAGE_SIZE = 48  # pixels; the side of the images of every data set unless data.image_size is set


def check(name: str, overrides: Overrides = (), config_dir: Path | None = None) -> list[str]:
    """Raise ConfigError with every fault of a configuration; return its warnings."""
    composed = compose(name, overrides, config_dir)
    warnings = check_composed(composed, for_sweep=composed.is_sweep)
    if contracts.is_own(composed.config["data"]):
        contracts.read_data(composed.name, composed.config["data"])
    return warnings


def check_composed(composed: Composed, for_sweep: bool = True) -> list[str]:
    """Raise ConfigError with every fault of a composed configuration; return its warnings.

    for_sweep: False skips what a single training does not use (space, sampler, scheduler)
    """
    faults, warnings = find_faults(composed, for_sweep)
    if faults:
        raise ConfigError(composed.name, faults)
    return [*warnings, *gpu_faults(ComputeSettings(**composed.config["compute"]))]


def find_faults(composed: Composed, for_sweep: bool = True) -> tuple[list[str], list[str]]:
    """Return (faults, warnings) of a configuration, as sentences."""
    config = composed.config
    faults = [f"{key} matches no key; {nearest(str(key), TOP_KEYS)}" for key in config if key not in TOP_KEYS]
    if shapeless := list(config_shape(config)):
        return faults + shapeless, []
    faults += list(top_level_faults(config, for_sweep))
    sections = TARGET_SECTIONS if for_sweep else TARGET_SECTIONS[:-2]
    broken = set()
    for section in sections:
        own = list(_bind(section, config[section], section, composed.groups.get(section)))
        for option, values in composed.options.get(section, {}).items():
            of_option = _bind(section, values, section, option)
            own += [f"space.{section}.options contains {option}: {fault}" for fault in of_option]
        broken |= {section} if own else set()
        faults += own
    faults += section_faults(config.get("metrics") or {})
    for role in NAMED:
        for name, section in (config.get(role) or {}).items():
            if not re.fullmatch(r"[\w-]+", str(name), re.ASCII):  # it names a metric or a folder
                faults.append(f"{role}.{name!s:.60}: a name may contain letters, digits, '-' and '_'")
            elif isinstance(section, Mapping):
                own = list(_bind(f"{role}.{name}", section, role, name))
                faults += own or contracts.named_faults(role, name, section)
            elif role != "metrics":
                faults.append(f"{role}.{name} is {str(section).lower()}; {own_code.no_option(role, str(name))}")
    for key, settings in (("compute", ComputeSettings), ("budget", BudgetSettings)):
        faults += _bind_settings(key, config[key], settings)
    faults += convert_section("tracking", config["tracking"], TrackingSettings, ("output_dir",))
    try:
        tracking = TrackingSettings.from_config(config["tracking"], Path(config["output_dir"]))
        distrusted = trust_fault(tracking), cluster_fault(config["compute"].get("address"))
        faults += [fault for fault in distrusted if fault]
    except ConfigError as error:
        faults += error.faults
    for section in sections:
        if section not in broken and not NEEDS.get(section, set()) & broken:
            try:
                tried = contracts.faults(section, config, *_image_shape(config))
                faults += _try_build(section, config) if tried is None else tried
            except Infeasible as error:
                faults += [_with_section(section, error)] if not for_sweep or not config["space"] else []
    draw_faults, warnings = convert_draws(composed) if for_sweep else ([], [])
    faults += draw_faults
    space, space_faults = composed.read_space() if for_sweep else (Space((), config), [])
    model_faults, model_warnings = ([], []) if "model" in broken else model_section.find_faults(composed, space)
    faults += model_faults
    warnings += objective_warnings(config)
    warnings += [*composed.warnings, *model_warnings]
    if for_sweep:
        faults += space_faults
        faults += [] if space_faults else given_faults(space, config.get("first") or [])
        if not space_faults and not draw_faults and not broken:
            faults += _try_bounds(space, config)
        if not space_faults and not broken & {"scheduler", "sampler"}:
            found = sweep_rules(config, space)
            faults, warnings = [*faults, *found[0]], [*warnings, *found[1]]
    return own_code.once(faults), warnings


def _bind(section: str, values: Any, role: str, option: str | None = None) -> Iterator[str]:
    """Yield the faults of a section's keys against its role and the signature of its `_target_`."""
    if not isinstance(values, Mapping) or "_target_" not in values:
        yield f"{section} has no _target_; {contracts.how_to_add_target(role, option)}"
        return
    try:
        target = locate(values["_target_"], role)
        parameters = inspect.signature(target).parameters
    except ValueError as error:  # also raised for a function in C, which has no signature
        yield f"{section}.{error}"
        return
    if section == "scheduler" and pauses_trials(values):
        yield (
            f"scheduler is {target.__name__}, which pauses trials or changes their hyperparameters, so that a sweep "
            "could not be resumed exactly; use scheduler=asha, hyperband or median"
        )
    if isinstance(values, dict):
        yield from convert_section(section, values, target, tuple(ROLES[role].given))
    if section == "scheduler":
        yield from scheduler_faults(values)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    given = ROLES[role].given
    names = [name for name in parameters if name not in given and name not in ("args", "kwargs")]
    for key, value in values.items():
        if key == "_target_":
            continue
        if key not in names and not takes_any:
            remedy = nearest(key, names) if names else f"it has no arguments to set; remove {key}"
            yield f"{section}.{key} matches no argument of {values['_target_']}; {remedy}"
        elif value == "???":
            yield not_set(f"{section}.{key}")
        elif isinstance(value, Mapping):
            nested = {key: value} if "_target_" in value else {f"{key}.{name}": child for name, child in value.items()}
            for path, child in nested.items():
                if not isinstance(child, Mapping) or "_target_" not in child:
                    continue
                inner = nested_role(target, key)
                if inner is None:
                    yield f"{section}.{not_nested(target, path, child['_target_'])}"
                else:
                    yield from _bind(f"{section}.{path}", child, inner)
    for name, parameter in parameters.items():
        missing = parameter.default is inspect.Parameter.empty and name not in values and name in names
        if missing and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            others = f" (ferhpo passes {contracts.passed(role)})" if contracts.is_own(values) else ""
            yield f"{section}.{name} is not set, but {values['_target_']} requires it{others}; add {section}.{name}=..."


def _bind_settings(section: str, values: dict[str, Any], settings: Callable[..., Any]) -> list[str]:
    names = list(inspect.signature(settings).parameters)
    faults = [f"{section}.{key} matches no key; {nearest(str(key), names)}" for key in values if key not in names]
    if not faults:
        wrong = list(convert_section(section, values, settings))
        try:
            settings(**values)
            faults += wrong
        except (TypeError, ValueError) as error:
            faults.append(_with_section(section, error))
    return faults


def _with_section(section: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        text if text.startswith(f"{section}.") else f"{section}.{text}" if " is " in text[:60] else f"{section}: {text}"
    )


def _try_build(section: str, config: Mapping[str, Any], device: str = "meta") -> list[str]:
    """Build a section's component and return its faults.

    Raises Infeasible for a network whose layers leave no pixels of the images.
    """
    import torch

    from ferhpo.models.meta import uncompiled_optimizers, without_weights

    values = config[section]
    try:
        if section == "model":
            channels, image_size = _image_shape(config)
            size = config["augment"].get("crop") or image_size
            with without_weights() if device == "meta" else torch.device(device):
                given = given_features(values, image_size)
                instantiate(values, "model", in_channels=channels, num_classes=7, image_size=size, **given)
        elif section in ("optim", "lr_schedule"):
            with uncompiled_optimizers():
                optimizer = instantiate(config["optim"], "optim", [torch.nn.Parameter(torch.zeros(1))])
            if section == "lr_schedule":
                epochs = int(config["trainer"]["max_epochs"])
                instantiate(values, "lr_schedule", optimizer, num_epochs=epochs, steps_per_epoch=10)
        elif section == "loss":
            make_loss(as_function(values, "loss"), _settings(config), None)
        elif section in ("augment", "trainer", "scheduler"):
            stops = section == "scheduler" and not is_fifo(values)
            instantiate(values, section, **({"metric": "val_acc", "mode": "max"} if stops else {}))
        elif section == "sampler" and not is_grid(values):  # a grid is built from the space
            with catch_warnings():
                simplefilter("ignore")
                takes_seed = "seed" in inspect.signature(locate(values["_target_"], "sampler")).parameters
                instantiate(values, "sampler", **({"seed": 0} if takes_seed else {}))
    except Exception as error:
        if not isinstance(error, REFUSED) and not contracts.is_own(values):
            raise
        if contracts.is_own(values) and not isinstance(error, ValueError):
            return [contracts.raised(f"{section}: {values['_target_']}", error, section)]
        return [_with_section(section, error)]
    return []


def _settings(config: Mapping[str, Any]) -> TrainerSettings:
    """Return the settings of the trainer; the default ones if they have faults, which are reported for the trainer."""
    try:
        return instantiate(config["trainer"], "trainer")  # type: ignore[no-any-return]
    except REFUSED:
        return TrainerSettings()


def _image_shape(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the channels and the side in pixels that the images of a configuration have, as far as it says so."""
    data = config["data"].get("main") or config["data"]  # merged sources follow the main one
    return data.get("channels") or 1, data.get("image_size") or IMAGE_SIZE


def check_weights(config: Mapping[str, Any], space: Space) -> None:
    """Check pretrained weights by building each network that uses them; missing ones are downloaded.

    Raises ConfigError for weights that cannot be read or do not fit, once for the sweep instead of in every trial.
    """
    faults = []
    first = {group: next(iter(sections)) for group, sections in space.options.items()}
    for option in space.options.get("model", (None,)):
        draws = [draw for draw in space.draws if draw.path in WEIGHT_KEYS and draw.option in (None, option)]
        for values in itertools.product(*(draw.choices for draw in draws)):
            tried = space.apply(first if option is None else {**first, "model": option})
            for draw, value in zip(draws, values, strict=True):
                set_path(tried, draw.path, value)
            if tried["model"].get("weights", "none") != "none":
                with suppress(Infeasible):
                    faults += _try_build("model", tried, device="cpu")
    if faults:
        raise ConfigError(str(config["name"]), list(dict.fromkeys(faults)))


def _try_bounds(space: Space, config: Mapping[str, Any]) -> Iterator[str]:
    """Build each draw's section at both ends of the draw, and yield a fault for each value that the component rejects.

    A network that cannot be built is not a fault: it depends on the other draws, and such a trial ends as infeasible.
    """
    for draw in space.draws:
        section = draw.path.split(".")[0]
        if draw.path in space.options or section not in ("model", "optim", "lr_schedule", "augment", "trainer"):
            continue
        sample = dict(_satisfy(draw, space))
        repeats = draw.repeat if isinstance(draw.repeat, int) else 8 if draw.repeat else None
        for end, value in draw.ends:
            tried = space.apply(sample)
            with suppress(Infeasible):
                if _try_build(section, tried):
                    continue  # the configuration itself has a fault, which is reported already
                set_path(tried, draw.path, value if repeats is None else [value] * repeats)
                for fault in _try_build(section, tried):
                    option = f" ({section}={draw.option})" if draw.option else ""
                    yield f"space.{draw.path}.{end} is {value}, which {section} rejects: {fault}{option}"


def _satisfy(draw: Draw, space: Space) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of other draws so that the conditions of `draw` hold."""
    for key, allowed in draw.when:
        if key in space.options or any(other.path == key for other in space.draws):
            yield key, allowed[0]
