"""What a `model` section requires of the other sections: HOG features, and the settings of scikit-learn's estimators.

Note: features are computed once, before the first trial, and shared by all trials. Every model that a sweep chooses
among must therefore use the same HOG settings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ferhpo.components.kinds import is_estimator
from ferhpo.config.composed import Composed
from ferhpo.data.features.hog import Hog, hog_of
from ferhpo.space import Space
from ferhpo.training.settings import TrainerSettings

# Settings of a network's training that have no effect on an estimator.
FOR_NETWORKS = (
    "label_smoothing", "class_weights", "sampling", "gradient_clip_norm", "weight_averaging", "early_stopping_patience",
    "frozen_epochs", "body_lr_factor",
)  # fmt: skip
RANDOM_CHANGES = ("flip", "shift", "rotation", "scale", "brightness", "contrast", "erasing", "mixup")


def shared_hog(composed: Composed) -> Hog | None:
    """Return the HOG features that trials of this configuration may use; None if no trial uses any.

    Raises ValueError for settings out of range, and for models with different settings.
    """
    draws = [draw for draw in composed.read_space()[0].draws if draw.path == "model.features"]
    may_draw = {draw.option for draw in draws if "hog" in draw.choices}
    wanted: dict[Hog, str] = {}
    for option, model in _models(composed):
        hog = hog_of({**model, "features": "hog"} if may_draw & {option, None} else model)
        if hog is not None:
            wanted.setdefault(hog, option)
    if len(wanted) > 1:
        (one, first), (other, second) = list(wanted.items())[:2]
        raise ValueError(
            f"hog of {first} is {asdict(one)}, but that of {second} is {asdict(other)}; all trials share the features: "
            "use the same settings"
        )
    return next(iter(wanted), None)


def find_faults(composed: Composed, space: Space) -> tuple[list[str], list[str]]:
    """Return (faults, warnings) about features, and about settings that estimators do not use."""
    faults = [
        f"space.{draw.path}: HOG settings cannot be searched, because features are computed once per sweep; set "
        "model.hog, and run one sweep per setting"
        for draw in space.draws
        if draw.path.split(".")[:2] == ["model", "hog"]
    ]
    try:
        shared_hog(composed)
    except ValueError as error:
        faults.append(f"model.{error}")
    options = dict(_models(composed))
    estimators = [option for option, model in options.items() if is_estimator(model)]
    if len(estimators) == len(options):
        return faults + list(_useless_settings(composed.config, space, " and ".join(estimators))), []
    warnings = [
        f"{option} is fitted once, to unmodified images; trainer, augment, optim and lr_schedule apply to networks only"
        for option in estimators
    ]
    return faults, warnings


def _models(composed: Composed) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (option, section) of the model, or of each model that the space chooses among."""
    chosen = composed.options.get("model")
    yield from chosen.items() if chosen else [(composed.groups.get("model", ""), composed.config["model"])]


def _useless_settings(config: Mapping[str, Any], space: Space, models: str) -> Iterator[str]:
    """Yield a fault for each setting of a network's training, if all models are estimators."""
    trainer, augment = config["trainer"], config["augment"]
    if trainer.get("max_epochs") != 1:
        num_epochs = trainer.get("max_epochs")
        yield f"trainer.max_epochs is {num_epochs}, but {models} is fitted once; set trainer.max_epochs=1"
    default = TrainerSettings()
    for key in FOR_NETWORKS:
        usual = getattr(default, key)
        if trainer.get(key, usual) != usual:
            remedy = f"set trainer.{key}={'null' if usual is None else usual}"
            yield f"trainer.{key} is {trainer[key]}, but {models} does not use it; {remedy}"
    changes = [f"augment.{key}" for key in RANDOM_CHANGES if augment.get(key)]
    if changes:
        yield f"{', '.join(changes)} is set, but {models} is fitted once, to unmodified images; set augment=none"
    for draw in space.draws:
        section = draw.path.split(".")[0]
        if section in ("optim", "lr_schedule", "augment", "trainer") and draw.path != "trainer.normalise":
            yield f"space.{draw.path} is a draw, but {models} does not use it; remove it with ~space.{draw.path}"
