"""The roles of components: what each section of a configuration accepts as its `_target_`, and nothing else is called.

A section accepts the names that its role lists, and own code (own_code.py). Both must fit: be a class that derives from
one of the role's base classes, or a function where the role accepts functions.
"""

import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Role:
    """What a `_target_` may be.

    what: in messages, e.g. "a subclass of torch.optim.Optimizer"
    names: patterns of the dotted names in ferhpo and its libraries; * is one part of a name
    bases: a class must derive from one of these
    functions: whether it may be a function
    given: arguments that ferhpo passes, so that the configuration does not have to
    """

    what: str
    names: tuple[str, ...]
    bases: tuple[str, ...] = ()
    functions: bool = False
    given: frozenset[str] = frozenset()

    def lists(self, target: str) -> bool:
        """Return whether `names` lists a dotted name."""
        parts = target.split(".")
        patterns = (name.split(".") for name in self.names)
        return any(len(p) == len(parts) and all(map(fnmatchcase, parts, p)) for p in patterns)

    def fits(self, found: Any) -> bool:
        """Return whether a class or function can play this role."""
        if isinstance(found, type):
            # A class without its base among the bases may still be called like a function.
            return self.functions if not self.bases else issubclass(found, tuple(map(resolve_name, self.bases)))
        return self.functions and inspect.isroutine(found)


ROLES = {
    "data": Role(
        "a function that returns a FaceData", ("ferhpo.data.*.load", "ferhpo.data.labeled_files.*.load"), functions=True
    ),
    "augment": Role(
        "ferhpo.training.augment.Augment or a subclass",
        ("ferhpo.training.augment.Augment",),
        ("ferhpo.training.augment.Augment",),
    ),
    "model": Role(
        "a subclass of torch.nn.Module",
        ("ferhpo.models.*.*",),
        ("torch.nn.Module",),
        given=frozenset({"in_channels", "num_classes", "image_size", "num_features"}),
    ),
    "loss": Role(
        "a subclass of torch.nn.Module",
        ("torch.nn.*Loss", "torch.nn.modules.loss.*Loss"),
        ("torch.nn.Module",),
        given=frozenset({"weight", "label_smoothing"}),
    ),
    "callbacks": Role("a subclass of pytorch_lightning.Callback", (), ("pytorch_lightning.Callback",)),
    "panels": Role("a function that returns a Panel", (), functions=True, given=frozenset({"sweep", "folder"})),
    "exports": Role(
        "a function that writes files", (), functions=True, given=frozenset({"network", "images", "folder"})
    ),
    "optim": Role(
        "a subclass of torch.optim.Optimizer",
        ("torch.optim.*", "torch.optim.*.*"),
        ("torch.optim.Optimizer",),
        given=frozenset({"params"}),
    ),
    "lr_schedule": Role(
        "a function that returns a ferhpo.training.schedules.Schedule",
        tuple(f"ferhpo.training.schedules.{name}" for name in ("constant", "cosine", "one_cycle", "plateau", "step")),
        functions=True,
        given=frozenset({"optimizer", "num_epochs", "steps_per_epoch"}),
    ),
    "trainer": Role(
        "ferhpo.training.settings.TrainerSettings",
        ("ferhpo.training.settings.TrainerSettings",),
        ("ferhpo.training.settings.TrainerSettings",),
    ),
    "sampler": Role(
        "a subclass of optuna.samplers.BaseSampler",
        ("optuna.samplers.*",),
        ("optuna.samplers.BaseSampler",),
        given=frozenset({"seed", "search_space"}),
    ),
    "scheduler": Role(
        "a subclass of ray.tune.schedulers.TrialScheduler",
        ("ray.tune.schedulers.*", "ray.tune.schedulers.*.*"),
        ("ray.tune.schedulers.TrialScheduler",),
        given=frozenset({"metric", "mode"}),
    ),
    "metrics": Role(
        "a function of an Evaluation that returns a number", (), functions=True, given=frozenset({"found"})
    ),
    "layer": Role(
        "a subclass of torch.nn.Module", ("torch.nn.*", "torch.nn.modules.*.*"), ("torch.nn.Module",)
    ),  # an argument of a network
}


def nested_role(component: Any, argument: str) -> str | None:
    """Return the role of a section with a `_target_` that is an argument of a component; None if it takes none there.

    The component declares it by the annotation of the argument: torch.nn.Module for a layer, a reader
    (Callable[..., FaceData]) for data, optuna.samplers.BaseSampler for a sampler; also in Optional, Mapping and unions.
    """
    from torch import nn

    from ferhpo.data.dataset import FaceData

    called = component.__init__ if inspect.isclass(component) else component
    try:
        hints = typing.get_type_hints(called)
    except (NameError, TypeError, AttributeError, ImportError):  # names that other packages import for type checks only
        hints = getattr(called, "__annotations__", {})
    for part in _parts(hints.get(argument)):
        if isinstance(part, str) and "BaseSampler" in part:
            return "sampler"
        if part is FaceData:
            return "data"
        if isinstance(part, type) and issubclass(part, nn.Module):
            return "layer"
        if isinstance(part, type) and any(base.__module__.startswith("optuna.samplers.") for base in part.__mro__):
            return "sampler"
    return None


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and everything inside it."""
    yield annotation
    for part in typing.get_args(annotation):
        for inner in part if isinstance(part, list) else [part]:
            yield from _parts(inner)
