"""Ask a component what kind it is: the class that its `_target_` names, so that a user's subclass counts too.

Note: Ray's other schedulers derive from FIFOScheduler, so `is_fifo` compares methods, not base classes. The functions
return False for a `_target_` that is not allowed or cannot be imported; config/validate.py reports it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ferhpo.components.build import locate

# These schedulers pause trials or change a trial's hyperparameters; each trial would no longer have one fixed sample.
PAUSING_SCHEDULERS = ("HyperBandScheduler", "PopulationBasedTraining", "PB2", "ResourceChangingScheduler",
                      "PopulationBasedTrainingReplay")  # fmt: skip
UNCONDITIONAL_SAMPLERS = ("GridSampler", "CmaEsSampler")


def component(section: Mapping[str, Any], role: str) -> Any:
    """Return the class or function that a section's `_target_` names; None if it may not or cannot be imported.

    role: a key of roles.ROLES
    """
    try:
        return locate(section.get("_target_"), role)
    except ValueError:
        return None


def derives_from(section: Mapping[str, Any], role: str, package: str, names: Iterable[str]) -> bool:
    """Return whether a section's class is, or derives from, a class of `package` with one of `names`.

    Classes are compared by name, so that `package` need not be imported to ask.
    """
    names = set(names)
    return any(
        base.__name__ in names and f"{base.__module__}.".startswith(f"{package}.")
        for base in _bases(component(section, role))
    )


def is_estimator(model: Mapping[str, Any]) -> bool:
    """Return whether a model is a scikit-learn estimator: fitted once, without optimizer, schedule and augmentation."""
    return derives_from(model, "model", "ferhpo.models.estimators", ["Estimator"])


def has_estimator(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a whole configuration is a scikit-learn estimator."""
    return is_estimator(config["model"])


def is_grid(sampler: Mapping[str, Any]) -> bool:
    """Return whether a sampler visits every point of a finite space once and then ends."""
    return derives_from(sampler, "sampler", "optuna", ["GridSampler"])


def ignores_conditions(sampler: Mapping[str, Any]) -> bool:
    """Return whether a sampler does not support conditional spaces."""
    return derives_from(sampler, "sampler", "optuna", UNCONDITIONAL_SAMPLERS)


def is_fifo(scheduler: Mapping[str, Any]) -> bool:
    """Return whether a scheduler never stops a trial early: it decides on results as Ray's FIFOScheduler does."""
    for base in _bases(component(scheduler, "scheduler")):
        if "on_trial_result" in vars(base):
            return bool(base.__name__ == "FIFOScheduler" and base.__module__.startswith("ray."))
    return False


def is_median_rule(scheduler: Mapping[str, Any]) -> bool:
    """Return whether a scheduler is Ray's median stopping rule."""
    return derives_from(scheduler, "scheduler", "ray", ["MedianStoppingRule"])


def pauses_trials(scheduler: Mapping[str, Any]) -> bool:
    """Return whether a scheduler pauses trials or changes their hyperparameters, which ferhpo does not support."""
    return derives_from(scheduler, "scheduler", "ray", PAUSING_SCHEDULERS)


def is_data_set(data: Mapping[str, Any], name: str) -> bool:
    """Return whether a data set is read by the module ferhpo.data.<name>, e.g. "image_folder"."""
    return getattr(component(data, "data"), "__module__", None) == f"ferhpo.data.{name}"


def _bases(found: Any) -> tuple[type, ...]:
    return found.__mro__ if isinstance(found, type) else ()
