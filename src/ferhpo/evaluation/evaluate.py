"""The verb `evaluate`: score a sweep's trial or a registered model on validation or test images, in both variants.

Note: on another data set, the `dedup` variant leaves out the images that the model was trained on, not the training
images of that other data set.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.components.kinds import is_data_set
from ferhpo.config import Composed
from ferhpo.config.change import set_values
from ferhpo.config.compose import compose
from ferhpo.config.folds import KEPT_FOLD, num_folds
from ferhpo.data.dataset import SPLIT_NAMES, TEST, TRAIN, VAL, FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import ConfigError, DataError, TrackingError
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.keys import Overrides, override_texts
from ferhpo.scoring.device_data import device_for
from ferhpo.scoring.metrics import CHOSEN, Metric, with_metrics
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.predict import evaluate as predict
from ferhpo.scoring.scores import (
    ClassScore,
    ScoreVariants,
    class_scores,
    in_training_mask,
    matches_any,
    score_variants,
)
from ferhpo.scoring.ten_crop import evaluate_ten_crop
from ferhpo.storage import evaluation_log
from ferhpo.storage.lock import FolderLock
from ferhpo.tracking import add_to_run
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.trial.run import metrics_of

SHIP_SECONDS = 15.0  # how long to wait for MLflow; `ferhpo sync` uploads the rest later
EVALUATED_SPLITS = ("val", "test")


@dataclass(frozen=True)
class ModelScores:
    """The result of `evaluate`.

    scores: from one view of each image; ten_crop: from ten, if asked for. Both with every metric that comes with
        ferhpo, and those of the model's configuration
    classes, confusion (rows are true classes): of all images of the split, from ten views if asked for
    num_test_evaluations: of the model's sweep on test, including this one; 0 for validation
    """

    model: str
    split: str
    split_name: str
    source: str
    data_digest: str
    scores: ScoreVariants
    ten_crop: ScoreVariants | None
    class_names: tuple[str, ...]
    classes: list[ClassScore]
    confusion: list[list[int]]
    num_test_evaluations: int = 0
    warnings: list[str] = field(default_factory=list)


def evaluate(
    model: str,
    overrides: Overrides = (),
    *,
    split: str = "val",
    ten_crop: bool = False,
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
) -> ModelScores:
    """Score a model on the validation or test images of a data set. Test evaluations are logged (evaluation_log.py).

    model: SWEEP (its best trial), SWEEP/7 (trial 7), or models:/NAME@ALIAS or models:/NAME/VERSION of the registry
    overrides: data=... and data.KEY=... select another data set; tracking.KEY=... another store for models:/
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError.
    """
    if split not in EVALUATED_SPLITS:
        raise ConfigError("evaluate", [f"--split is {split}; it must be val or test"])
    overrides = override_texts(overrides)
    data_overrides = [text for text in overrides if text.startswith(("data=", "data."))]
    stores = [text for text in overrides if text.startswith("tracking.")]
    faults = [
        f"{text.partition('=')[0]} cannot be overridden in an evaluation; select the data set with data=... and "
        "data.KEY=..."
        for text in overrides
        if text not in data_overrides and text not in stores
    ]
    if faults:
        raise ConfigError("evaluate", faults)
    trained = find_model(model, output_dir, stores, config_dir)
    section = _data_section(trained, data_overrides, config_dir)
    data = _load(trained, section)
    training, warnings = _training_data(trained, section, data, bool(data_overrides))
    _check(trained, section, data, training, split)
    data = with_classes(data, trained.class_names)
    if split == "val":
        return _score(trained, data, training, split, ten_crop, warnings)
    with ExitStack() as locks:
        sweeps = [sweep for sweep in (trained.selecting_sweep, trained.sweep) if sweep is not None]
        for folder in {sweep.folder for sweep in sweeps}:
            locks.callback(FolderLock(folder).release)  # raises while the sweep runs
        scores = _score(trained, data, training, split, ten_crop, warnings)
        return _logged(scores, trained, data, training)


def _load(trained: TrainedModel, section: Mapping[str, Any]) -> FaceData:
    config = {**trained.config, "data": dict(section)}
    data = load_data(Composed("evaluate", config), for_training=False)
    # The network of a cross-validated trial is that of one fold, and is evaluated on that fold.
    return data if num_folds(config) is None else fold_data(data, section, KEPT_FOLD)


def _score(
    trained: TrainedModel, data: FaceData, training: FaceData | None, split: str, ten_crop: bool, warnings: list[str]
) -> ModelScores:
    network, preprocess = trained.network.to(device_for(trained.config)), trained.preprocess
    in_training = None if training is None else in_training_mask(data, training)
    try:
        metrics = {**CHOSEN, **metrics_of(trained.config)}
    except ConfigError as error:  # e.g. a registered model, whose own metrics are not here
        metrics, warnings = CHOSEN, [*warnings, f"the model's own metrics are left out: {'; '.join(error.faults)}"]
    predictions = predict(network, data, split, preprocess)
    scores, ten_crop_scores = _variants(predictions, data, in_training, metrics), None
    if ten_crop:
        try:
            predictions = evaluate_ten_crop(network, data, split, preprocess)
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


def _data_section(trained: TrainedModel, overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
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


def _training_data(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, is_other: bool
) -> tuple[FaceData | None, list[str]]:
    """Return the data set that the model was trained on, None if it cannot be read, and warnings."""
    recorded = {} if trained.sweep is None else trained.sweep.meta.get("data", {})
    if not is_other:
        if num_folds(trained.config) is None and recorded.get("digest", data.digest) != data.digest:
            return data, [f"the data set has changed since the model was trained; its digest was {recorded['digest']}"]
        return data, []
    try:
        return _load(trained, trained.config["data"]), []
    except (ConfigError, DataError) as error:
        if section["_target_"] == trained.config["data"]["_target_"]:
            return data, [
                "the model's own data cannot be read; dedup scores leave out the training images of "
                f"{data.source} instead"
            ]
        return None, [f"the model's own data cannot be read, so there are no dedup scores ({error})"]


def _check(
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


def _logged(scores: ModelScores, trained: TrainedModel, data: FaceData, training: FaceData | None) -> ModelScores:
    """Log a test evaluation in the folder of the selecting sweep and in the model's MLflow run."""
    plain = {
        "one_view": asdict(scores.scores),
        "ten_crop": None if scores.ten_crop is None else asdict(scores.ten_crop),
    }
    entry = evaluation_log.new_entry("evaluate", trained.label, data, plain)
    # The metrics test_... of a run are those on the test images of the data set that the model was trained on.
    is_own = training is not None and training.digest == data.digest
    metrics = evaluation_log.metrics(plain) if is_own else {}
    if trained.sweep is None or trained.selecting_sweep is None:
        return _logged_in_mlflow(scores, trained, entry, metrics)
    log = evaluation_log.append(trained.selecting_sweep.folder, entry)
    warnings = [*scores.warnings, *evaluation_log.repeat_warnings(trained.selecting_sweep.name, log)]
    tags = evaluation_log.tags(entry, len(log))
    try:
        left = add_to_run(trained.sweep.folder, trained.tracking, trained.number, tags, metrics, SHIP_SECONDS)
    except TrackingError as error:  # the evaluation has happened, and counts
        warnings.append(f"this test evaluation is not recorded in MLflow: {error}")
    else:
        if left:
            command = trained.sweep.command("sync")
            warnings.append(f"{left} records are not in MLflow yet; upload them with: {command}")
    return replace(scores, num_test_evaluations=len(log), warnings=warnings)


def _logged_in_mlflow(
    scores: ModelScores, trained: TrainedModel, entry: evaluation_log.TestEvaluation, metrics: Mapping[str, float]
) -> ModelScores:
    """Log a test evaluation if no folder here holds the model's sweep: the count is that of its MLflow run."""
    from ferhpo.tracking import registry

    assert trained.run_id is not None
    number = int(registry.run_tags(trained.tracking, trained.run_id).get(evaluation_log.COUNT_TAG, "0")) + 1
    registry.note_on_run(trained.tracking, trained.run_id, evaluation_log.tags(entry, number), metrics)
    warnings = ["the sweep folder of this model is not here; the test evaluation is recorded in its MLflow run only"]
    if number > 1:
        warnings.append(
            f"the sweep of this model has been evaluated on test {number} times, according to the model's MLflow run"
        )
    return replace(scores, num_test_evaluations=number, warnings=[*scores.warnings, *warnings])
