"""What a `model` section asks of the rest: to be fitted once (scikit-learn's estimators), and features of the images.

What a reader would get wrong: features are computed before the first trial and shared by all, so every model that a
sweep may choose must agree on how.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ferhpo.config.composed import Composed
from ferhpo.data.features.hog import Hog
from ferhpo.space import Space
from ferhpo.training.settings import TrainerSettings

ESTIMATORS = "ferhpo.models.estimators."
# What rules the training of a network beside its epochs, and would change nothing in an estimator.
FOR_NETWORKS = (
    "label_smoothing", "class_weights", "sampling", "gradient_clip_norm", "weight_averaging", "early_stopping_patience",
    "frozen_epochs", "body_lr_factor",
)  # fmt: skip
RANDOM_CHANGES = ("flip", "shift", "rotation", "scale", "brightness", "contrast", "erasing", "mixup")


def is_estimator(model: Mapping[str, Any]) -> bool:
    """Whether a model is fitted in one go by scikit-learn, without optimiser, schedule, augmentation and epochs."""
    return str(model.get("_target_")).startswith(ESTIMATORS)


def hog_of(model: Mapping[str, Any]) -> Hog | None:
    """The HOG features that a model takes; None where it takes images alone. ValueError for settings out of range."""
    if model.get("hog") is None or model.get("features") == "pixels":
        return None
    return Hog.from_config(model["hog"])


def given_features(model: Mapping[str, Any], image_size: int) -> dict[str, int]:
    """The argument num_features for a model that takes features, as images of so many pixels a side have them."""
    hog = hog_of(model)
    return {} if hog is None else {"num_features": hog.num_features(image_size)}


def shared_hog(composed: Composed) -> Hog | None:
    """The HOG features that trials of this configuration may take; None where none does.

    ValueError for settings out of range, and where two models want different ones.
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
            f"hog of {first} is {asdict(one)}, and that of {second} {asdict(other)}; all trials share one: set them "
            "alike"
        )
    return next(iter(wanted), None)


def find_faults(composed: Composed, space: Space) -> tuple[list[str], list[str]]:
    """(faults, warnings) of a configuration about features, and about settings that an estimator has no use for."""
    faults = [
        f"space.{draw.path} is drawn, and features are computed once, before the first trial; set model.hog, and run a "
        "sweep for each"
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
        f"{option} is fitted once, to images as they are: trainer, augment, optim and lr_schedule rule networks only"
        for option in estimators
    ]
    return faults, warnings


def _models(composed: Composed) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(option, section) of the model, or of each that the space chooses among."""
    chosen = composed.options.get("model")
    yield from chosen.items() if chosen else [(composed.groups.get("model", ""), composed.config["model"])]


def _useless_settings(config: Mapping[str, Any], space: Space, models: str) -> Iterator[str]:
    trainer, augment = config["trainer"], config["augment"]
    if trainer.get("max_epochs") != 1:
        num_epochs = trainer.get("max_epochs")
        yield f"trainer.max_epochs is {num_epochs}, and {models} is fitted once; set trainer.max_epochs=1"
    default = TrainerSettings()
    for key in FOR_NETWORKS:
        usual = getattr(default, key)
        if trainer.get(key, usual) != usual:
            remedy = f"set trainer.{key}={'null' if usual is None else usual}"
            yield f"trainer.{key} is {trainer[key]}, and {models} has no use for it; {remedy}"
    changes = [f"augment.{key}" for key in RANDOM_CHANGES if augment.get(key)]
    if changes:
        yield f"{', '.join(changes)} is set, and {models} is fitted once, to images as they are; set augment=none"
    for draw in space.draws:
        section = draw.path.split(".")[0]
        if section in ("optim", "lr_schedule", "augment", "trainer") and draw.path != "trainer.normalise":
            yield f"space.{draw.path} is drawn, and {models} has no use for it; take it out with ~space.{draw.path}"
