"""Find the component that a section's `_target_` names, and call it with the section's other keys."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ferhpo.components import own_code
from ferhpo.components.roles import ROLES, Role, nested_role
from ferhpo.errors import ConfigError
from ferhpo.keys import closest


def locate(target: Any, role: str) -> Any:
    """Return the Python class or function that a `_target_` names.

    It must be listed by the role, or be own code, and must fit the role. Names that start with an underscore, and names
    inside a module that another module imports, e.g. torch.nn.functional.torch.hub.load, are never found.
    role: a key of ROLES
    Raises ValueError if it is not accepted or cannot be imported.
    """
    accepts = ROLES[role]
    if not isinstance(target, str) or not _is_dotted_name(target):
        raise ValueError(
            f"_target_ is {target}; it must be the dotted name of a class or function, e.g. torch.optim.SGD"
        )
    parts = target.split(".")
    if any(part.startswith("_") for part in parts):
        raise ValueError(f"_target_ is {target}; names that start with _ are private and never called")
    module_name, name = target.rpartition(".")[::2]
    is_own = not accepts.lists(target) and own_code.trusts(module_name)
    if not is_own and not accepts.lists(target):
        raise ValueError(f"_target_ is {target}; {_rule(accepts)}; {_how_to_allow(module_name or target)}")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # what a module does when it is imported
        why = error if isinstance(error, ImportError | SyntaxError) else own_code.reason(error)
        raise ValueError(f"_target_ is {target}, which cannot be imported ({why})") from None
    if not hasattr(module, name):
        names = [key for key in dir(module) if not key.startswith("_") and accepts.fits(getattr(module, key, None))]
        near = closest(name, names)
        remedy = f"did you mean {module_name}.{near}?" if near else f"it must be {accepts.what}"
        why = f"module {module_name!r} has no attribute {name!r}"
        raise ValueError(f"_target_ is {target}, which cannot be imported ({why}); {remedy}")
    found = getattr(module, name)
    if not accepts.fits(found):
        kind = "a class" if isinstance(found, type) else "a function" if inspect.isroutine(found) else ""
        shown = kind if kind and _named(found) == target else f"which is {_named(found)}"
        raise ValueError(f"_target_ is {target}, {shown}; it must be {accepts.what}")
    # Own code may pass on a class of a package, which fits the role, but not any function that it imports.
    is_checked = isinstance(found, type) and accepts.bases
    if not is_checked and found.__module__ != module_name and not own_code.trusts(found.__module__):
        raise ValueError(
            f"_target_ is {target}, which is {_named(found)}; it must be defined in {module_name}: call it there "
            "from a function of your own"
        )
    return found


def _is_dotted_name(target: str) -> bool:
    parts = target.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _rule(role: Role) -> str:
    names = f", from {' or '.join(role.names)}," if role.names else ""
    return f"it must be {role.what}{names} or from a Python file in {own_code.FOLDER}/"


def _how_to_allow(module: str) -> str:
    if fault := own_code.hidden(module) or own_code.missing(module):
        return fault
    modules = ", ".join([*own_code.allowed(), module])
    return f"add allowed_targets=[{modules}] to the command line if you trust it (or --allow {module})"


def _named(found: Any) -> str:
    if not hasattr(found, "__module__") or not hasattr(found, "__qualname__"):
        return f"of type {type(found).__name__}"
    return f"{found.__module__}.{found.__qualname__}"


def _located(section: Mapping[str, Any], role: str) -> Any:
    """Return what a section's `_target_` names.

    Raises ConfigError if it is not accepted, e.g. because a sweep's folder was edited.
    """
    try:
        return locate(section.get("_target_"), role)
    except ValueError as error:
        raise ConfigError("configuration", [f"{role}.{error}"]) from None


def _inner(target: Any, key: str, value: Mapping[str, Any], outer: str) -> str:
    """Return the role of a section that is an argument of a component. Raises ConfigError if it takes none there."""
    role = nested_role(target, key)
    if role is None:
        raise ConfigError("configuration", [f"{outer}.{not_nested(target, key, value['_target_'])}"])
    return role


def not_nested(target: Any, key: str, inner: Any) -> str:
    """Return the fault of a `_target_` inside a section whose component declares no component there."""
    return (
        f"{key}._target_ is {inner}, but {_named(target)} takes no component as {key}; an argument that takes one says "
        "so by its annotation, e.g. torch.nn.Module"
    )


def instantiate(section: Mapping[str, Any], role: str, *args: Any, **extra: Any) -> Any:
    """Call a section's `_target_` with its other keys, nested sections first.

    role: a key of ROLES
    extra: arguments that are known only at run time; they take precedence over the section's keys
    """
    target = _located(section, role)
    kwargs = {
        key: instantiate(value, _inner(target, key, value, role))
        if isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in section.items()
        if key != "_target_"
    }
    return target(*args, **{**kwargs, **extra})


def as_function(section: Mapping[str, Any], role: str) -> Callable[..., Any]:
    """Return a section's `_target_` with its other keys bound, not called yet; nested sections likewise."""
    target = _located(section, role)

    def filled(key: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if "_target_" in value:
            return as_function(value, _inner(target, key, value, role))
        return {name: filled(key, child) for name, child in value.items()}

    kwargs = {key: filled(key, value) for key, value in section.items() if key != "_target_"}
    return functools.partial(target, **kwargs)
