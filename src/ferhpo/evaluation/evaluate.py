"""The verb `evaluate`: score a sweep's trial or a registered model on validation or test images, in both variants.

Note: on another data set, the `dedup` variant leaves out the images that the model was trained on, not the training
images of that other data set.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferhpo.components.kinds import is_data_set
from ferhpo.config import Composed
from ferhpo.config.change import set_values
from ferhpo.config.compose import compose
from ferhpo.config.folds import KEPT_FOLD, num_folds
from ferhpo.data.dataset import SPLIT_NAMES, TEST, TRAIN, VAL, FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import ConfigError, DataError
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.evaluation.model_scores import ModelScores, logged
from ferhpo.evaluation.robustness import calibrated, predicted, robustness_of
from ferhpo.evaluation.versions import REQUIRE_SIGNATURE
from ferhpo.keys import Overrides, override_texts
from ferhpo.scoring.device_data import device_for
from ferhpo.scoring.metrics import CHOSEN, Metric, with_metrics
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.scores import (
    ScoreVariants,
    class_scores,
    in_training_mask,
    matches_any,
    score_variants,
)
from ferhpo.scoring.ten_crop import evaluate_ten_crop
from ferhpo.storage.lock import FolderLock
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.trial.run import metrics_of


class Configured(Protocol):
    """Whatever has the configuration of a trial."""

    @property
    def config(self) -> Mapping[str, Any]: ...


EVALUATED_SPLITS = ("val", "test")


def evaluate(
    model: str,
    overrides: Overrides = (),
    *,
    split: str = "val",
    ten_crop: bool = False,
    calibration: bool = False,
    robustness: bool = False,
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
) -> ModelScores:
    """Score a model on the validation or test images of a data set. Test evaluations are logged (evaluation_log.py).

    model: SWEEP (its best trial), SWEEP/7 (trial 7), or models:/NAME@ALIAS or models:/NAME/VERSION of the registry
    overrides: data=... and data.KEY=... select another data set; tracking.KEY=... another store for models:/
    calibration: also fit a temperature to the validation images, and compare confidence with accuracy
    robustness: also score corrupted images: blurred, noisy, dark, turned, covered, ...
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError.
    """
    if split not in EVALUATED_SPLITS:
        raise ConfigError("evaluate", [f"--split is {split}; it must be val or test"])
    data_overrides, stores, faults = divided(overrides, "an evaluation")
    if faults:
        raise ConfigError("evaluate", faults)
    trained = find_model(model, output_dir, stores, config_dir)
    section = data_section(trained, data_overrides, config_dir)
    data = load_for(trained, section)
    training, warnings = training_data(trained, section, data, bool(data_overrides))
    warnings = [*trained.warnings, *warnings]
    check_fits(trained, section, data, training, split)
    data = with_classes(data, trained.class_names)

    def scored() -> ModelScores:
        found = predicted(trained, data, split)
        scores = scores_of(trained, data, training, split, found, ten_crop, warnings)
        if calibration:
            scores = replace(scores, calibration=calibrated(trained, data, split, found))
        return replace(scores, robustness=robustness_of(trained, data, split)) if robustness else scores

    if split == "val":
        return scored()
    with no_driver(trained):
        return logged(scored(), trained, data, training)


def divided(overrides: Overrides, where: str) -> tuple[list[str], list[str], list[str]]:
    """Return the overrides of the data set, those of the store of models:/, and the faults of all others."""
    texts = override_texts(overrides)
    of_data = [text for text in texts if text.startswith(("data=", "data."))]
    stores = [text for text in texts if text.startswith(("tracking.", f"{REQUIRE_SIGNATURE}="))]
    faults = [
        f"{text.partition('=')[0]} cannot be overridden in {where}; select the data set with data=... and data.KEY=..."
        for text in texts
        if text not in of_data and text not in stores
    ]
    return of_data, stores, faults


@contextmanager
def no_driver(trained: TrainedModel) -> Iterator[None]:
    """Hold the folders of a network's sweeps. Raises StillRunning while a driver runs one of them."""
    with ExitStack() as locks:
        sweeps = [sweep for sweep in (trained.selecting_sweep, trained.sweep) if sweep is not None]
        for folder in {sweep.folder for sweep in sweeps}:
            locks.callback(FolderLock(folder).release)
        yield


def load_for(trained: Configured, section: Mapping[str, Any]) -> FaceData:
    """Load the data set of a section as the network needs it."""
    config = {**trained.config, "data": dict(section)}
    data = load_data(Composed("evaluate", config), for_training=False)
    # The network of a cross-validated trial is that of one fold, and is evaluated on that fold.
    return data if num_folds(config) is None else fold_data(data, section, KEPT_FOLD)


def scores_of(
    trained: TrainedModel,
    data: FaceData,
    training: FaceData | None,
    split: str,
    predictions: Evaluation,
    ten_crop: bool,
    warnings: list[str],
) -> ModelScores:
    """Score the predictions for a split, and also the mean of ten views if `ten_crop`. Nothing is logged."""
    in_training = None if training is None else in_training_mask(data, training)
    try:
        metrics = {**CHOSEN, **metrics_of(trained.config)}
    except ConfigError as error:  # e.g. a registered model, whose own metrics are not here
        metrics, warnings = CHOSEN, [*warnings, f"the model's own metrics are left out: {'; '.join(error.faults)}"]
    scores, ten_crop_scores = _variants(predictions, data, in_training, metrics), None
    if ten_crop:
        try:
            network = trained.network.to(device_for(trained.config))
            predictions = evaluate_ten_crop(network, data, split, trained.preprocess)
        except ValueError as error:
            raise ConfigError("evaluate", [f"--ten-crop: {error}"]) from None
        ten_crop_scores = _variants(predictions, data, in_training, metrics)
    return ModelScores(
        model=trained.description,
        split=split,
        split_name=data.split_name,
        source=data.source,
        data_digest=data.digest,
        scores=scores,
        ten_crop=ten_crop_scores,
        class_names=data.class_names,
        classes=class_scores(predictions.confusion.numpy(), data.class_names),
        confusion=predictions.confusion.tolist(),
        warnings=warnings,
    )


def _variants(
    predictions: Evaluation, data: FaceData, in_training: NDArray[np.bool_] | None, metrics: Mapping[str, Metric]
) -> ScoreVariants:
    """Score both variants; only `all` if the training images are unknown (in_training is None)."""
    known = np.zeros(len(data.labels), np.bool_) if in_training is None else in_training
    variants = score_variants(predictions, data, known)
    if in_training is None:
        variants = replace(variants, dedup=None)
    return with_metrics(variants, predictions, known, metrics)


def data_section(trained: Configured, overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """Return the data section to evaluate on: the model's own with overrides, or that of another option of `data`."""
    if any(text.startswith("data=") for text in overrides):
        section: dict[str, Any] = compose(None, overrides, config_dir).config["data"]
        return section
    config = {"data": copy.deepcopy(trained.config["data"])}
    faults = set_values(config, overrides)
    if faults:
        raise ConfigError("evaluate", faults)
    changed: dict[str, Any] = config["data"]
    return changed


def training_data(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, is_other: bool
) -> tuple[FaceData | None, list[str]]:
    """Return the data set that the model was trained on, None if it cannot be read, and warnings."""
    recorded = {} if trained.sweep is None else trained.sweep.meta.get("data", {})
    if not is_other:
        if num_folds(trained.config) is None and recorded.get("digest", data.digest) != data.digest:
            return data, [f"the data set has changed since the model was trained; its digest was {recorded['digest']}"]
        return data, []
    try:
        return load_for(trained, trained.config["data"]), []
    except (ConfigError, DataError) as error:
        if section["_target_"] == trained.config["data"]["_target_"]:
            return data, [
                "the model's own data cannot be read; dedup scores leave out the training images of "
                f"{data.source} instead"
            ]
        return None, [f"the model's own data cannot be read, so there are no dedup scores ({error})"]


def check_fits(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, training: FaceData | None, split: str
) -> None:
    """Raise ConfigError if the images do not fit the model, or if training or selection may have used them."""
    faults, expected = [], trained.preprocess
    for key, value, needed in (
        ("image_size", data.image_size, expected.image_size),
        ("channels", data.channels, expected.channels),
    ):
        if value != needed:
            faults.append(f"data.{key} is {value}; the model takes {needed}; add data.{key}={needed}")
    if not (data.split == SPLIT_NAMES.index(split)).any():
        faults.append(
            f"data.split is {data.split_name}; {data.source} then has no {split} images; choose another split"
        )
    elif split == "test" and _may_have_used(trained, section, data, training):
        trained_on = _split_of(trained, training)
        faults.append(
            f"data.split is {data.split_name}; {trained.label} was trained under data.split={trained_on}, so these "
            "test images may have been used for training or selection; evaluate on the split of the training, or train "
            "under data.split=published"
        )
    if faults:
        raise ConfigError("evaluate", faults)


def _may_have_used(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, training: FaceData | None
) -> bool:
    """Return whether test images may have been used for training or selection.

    They may if the same source was split in another way than the published one, or if they have pixels in common with
    the model's training or validation images.
    """
    own = trained.config["data"]
    splits = {_split_of(trained, training), data.split_name.partition(",")[0]}
    if splits == {"published"} or (training is not None and training.digest == data.digest):
        return False
    # FER2013 in another form has other pixels and is the same data; two folders are the same if their paths are.
    any_folder = is_data_set(own, "image_folder") or is_data_set(own, "image_table")
    if section["_target_"] == own["_target_"] and (not any_folder or section.get("path") == own.get("path")):
        return True
    if training is None:
        return False
    used = training.images[(training.split == TRAIN) | (training.split == VAL)]
    return bool(matches_any(data, used)[data.split == TEST].any())


def _split_of(trained: TrainedModel, training: FaceData | None) -> str:
    """Return the name of the split that a model was trained on, without its fold."""
    name = trained.config["data"].get("split") or "published"
    return (str(name) if training is None else training.split_name).partition(",")[0]
