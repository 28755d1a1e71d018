"""What a `_target_` may name, and how a section of a configuration is called. Free of Hydra, because workers use it."""

import functools
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ferhpo.errors import ConfigError

# Of ferhpo, only what configurations are made of: other modules could load, write and serve files for anyone who
# writes a _target_.
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


def locate(target: Any, allowed: Any = ()) -> Any:
    """Return the Python class or function that a `_target_` names.

    Both its name and the module that defines it must be allowed: what an allowed module imports from elsewhere, e.g.
    torch.nn.functional.torch.hub.load, is not allowed.
    allowed: further prefixes, from the configuration's `allowed_targets`
    Raises ValueError if the name is not allowed or cannot be imported.
    """
    trusted = [name for name in allowed if isinstance(name, str)] if isinstance(allowed, Sequence) else []
    prefixes = (*ALLOWED_TARGETS, *(f"{name.rstrip('.')}." for name in trusted))
    rule = f"only names under {', '.join(prefix.rstrip('.') for prefix in prefixes)} are allowed"
    if not isinstance(target, str) or not _is_dotted_name(target):
        raise ValueError(
            f"_target_ is {target}; it must be the dotted name of a class or function, e.g. torch.optim.SGD"
        )
    if not f"{target}.".startswith(prefixes):
        raise ValueError(f"_target_ is {target}; {rule}; {_how_to_allow(trusted, target.rpartition('.')[0] or target)}")
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ValueError(f"_target_ is {target}, which cannot be imported ({error})") from None
    module = getattr(found, "__module__", None)
    if not callable(found) or not isinstance(module, str):
        raise ValueError(f"_target_ is {target}, which is not a class or function")
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
    """Return what a section's `_target_` names.

    Raises ConfigError if it is not allowed, e.g. because a sweep's folder was edited.
    """
    try:
        return locate(section.get("_target_"), allowed)
    except ValueError as error:
        raise ConfigError("configuration", [str(error)]) from None


def instantiate(section: Mapping[str, Any], *args: Any, allowed: Sequence[str] = (), **extra: Any) -> Any:
    """Call a section's `_target_` with its other keys, nested sections first.

    extra: arguments that are known only at run time; they take precedence over the section's keys
    """
    target = _located(section, allowed)
    kwargs = {
        key: instantiate(value, allowed=allowed) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in section.items()
        if key != "_target_"
    }
    return target(*args, **{**kwargs, **extra})


def as_function(section: Mapping[str, Any], allowed: Sequence[str] = ()) -> Callable[..., Any]:
    """Return a section's `_target_` with its other keys bound, not called yet; nested sections likewise."""

    def filled(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if "_target_" in value:
            return as_function(value, allowed)
        return {key: filled(child) for key, child in value.items()}

    kwargs = {key: filled(value) for key, value in section.items() if key != "_target_"}
    return functools.partial(_located(section, allowed), **kwargs)
