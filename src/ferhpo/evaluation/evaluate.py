"""The verb `evaluate`: scores of a sweep's trial or of a registered model, in both lines, on validation or test images.

What a reader would get wrong: with another data set, "without images that stand in training" speaks of the images that
the model was trained on, not of the training images of that other set.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.config import Composed
from ferhpo.config.compose import compose, set_values
from ferhpo.config.folds import KEPT_FOLD, num_folds
from ferhpo.data.dataset import SPLIT_NAMES, TEST, TRAIN, VAL, FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import ConfigError, DataError, TrackingError
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.scoring.device_data import default_device
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.predict import evaluate as answer
from ferhpo.scoring.scores import ClassScore, Lines, class_scores, score_lines, seen_in_training, stand_among
from ferhpo.scoring.ten_crop import evaluate_ten_crop
from ferhpo.storage import test_log
from ferhpo.storage.lock import FolderLock
from ferhpo.tracking import add_to_run
from ferhpo.trial.load_data import fold_data, load_data

SHIP_SECONDS = 15.0  # how long a note of a reading waits for MLflow; `ferhpo sync` ships it later
EVALUATED_SPLITS = ("val", "test")


@dataclass(frozen=True)
class ModelScores:
    """What `evaluate` found.

    scores: by one view of each image; ten_crop: by ten, where that was asked
    classes, confusion (rows are true classes): of all images of the split, by ten views where that was asked
    num_readings: how often test images have been read for the sweep, this time included; 0 for validation
    """

    model: str
    split: str
    split_name: str
    source: str
    data_digest: str
    scores: Lines
    ten_crop: Lines | None
    class_names: tuple[str, ...]
    classes: list[ClassScore]
    confusion: list[list[int]]
    num_readings: int = 0
    warnings: list[str] = field(default_factory=list)


def evaluate(
    model: str,
    overrides: Sequence[str] = (),
    *,
    split: str = "val",
    ten_crop: bool = False,
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
) -> ModelScores:
    """Score a model on the validation or, which is recorded, the test images of a data set.

    model: a sweep (its best trial), SWEEP/7 (trial 7), or models:/NAME@ALIAS or models:/NAME/VERSION of the registry
    overrides: data=... and data.key=... choose another data set; tracking.key=... another store for models:/
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError.
    """
    if split not in EVALUATED_SPLITS:
        raise ConfigError("evaluate", [f"--split is {split}; it is val or test"])
    data_overrides = [text for text in overrides if text.startswith(("data=", "data."))]
    stores = [text for text in overrides if text.startswith("tracking.")]
    faults = [
        f"{text.partition('=')[0]} is no setting of an evaluation; data=... and data.key=... choose what is evaluated"
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
        for record in {r.folder: r for r in (trained.chooser, trained.record) if r is not None}.values():
            locks.callback(FolderLock(record.folder).release)  # refuses while the sweep runs
        found = _score(trained, data, training, split, ten_crop, warnings)
        return _noted(found, trained, data, training)


def _load(trained: TrainedModel, section: Mapping[str, Any]) -> FaceData:
    config = {**trained.config, "data": dict(section)}
    data = load_data(Composed("evaluate", config))
    return data if num_folds(config) is None else fold_data(data, section, KEPT_FOLD)  # whose network stands for all


def _score(
    trained: TrainedModel, data: FaceData, training: FaceData | None, split: str, ten_crop: bool, warnings: list[str]
) -> ModelScores:
    network, preprocess = trained.network.to(default_device()), trained.preprocess
    seen = None if training is None else seen_in_training(data, training)
    answers = answer(network, data, split, preprocess)
    scores, tens = lines_of(answers, data, seen), None
    if ten_crop:
        try:
            answers = evaluate_ten_crop(network, data, split, preprocess)
        except ValueError as error:
            raise ConfigError("evaluate", [f"--ten-crop: {error}"]) from None
        tens = lines_of(answers, data, seen)
    return ModelScores(
        model=trained.words,
        split=split,
        split_name=data.split_name,
        source=data.source,
        data_digest=data.digest,
        scores=scores,
        ten_crop=tens,
        class_names=data.class_names,
        classes=class_scores(answers.confusion.numpy(), data.class_names),
        confusion=answers.confusion.tolist(),
        warnings=warnings,
    )


def _data_section(trained: TrainedModel, overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """The data section to evaluate on: the model's own, changed; or that of another option of the group data."""
    if any(text.startswith("data=") for text in overrides):
        section: dict[str, Any] = compose(None, overrides, config_dir).config["data"]
        return section
    config = {"data": dict(trained.config["data"])}
    faults = set_values(config, overrides)
    if faults:
        raise ConfigError("evaluate", faults)
    return config["data"]


def _training_data(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, is_other: bool
) -> tuple[FaceData | None, list[str]]:
    """The data set whose training images the model saw, None where it cannot be read; and warnings."""
    noted = {} if trained.record is None else trained.record.meta.get("data", {})
    if not is_other:
        if num_folds(trained.config) is None and noted.get("digest", data.digest) != data.digest:
            return data, ["the data set has changed since the model was trained: its digest was " + noted["digest"]]
        return data, []
    try:
        return _load(trained, trained.config["data"]), []
    except (ConfigError, DataError) as error:
        if section["_target_"] == trained.config["data"]["_target_"]:
            return data, [f"the model's own data cannot be read; the training images of {data.source} stand for it"]
        return None, [f"the model's own data cannot be read, so the overlap is not known ({error})"]


def _check(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, training: FaceData | None, split: str
) -> None:
    """Raise ConfigError where the images do not fit the model, or its selection may have seen them."""
    faults, wanted = [], trained.preprocess
    if data.image_size != wanted.image_size:
        side = wanted.image_size
        faults.append(f"data has images of {data.image_size} pixels a side, and the model takes {side}; "
                      f"add data.image_size={side}")  # fmt: skip
    if data.channels != wanted.channels:
        faults.append(f"data has {data.channels} channels, and the model takes {wanted.channels}; "
                      f"add data.channels={wanted.channels}")  # fmt: skip
    if not (data.split == SPLIT_NAMES.index(split)).any():
        faults.append(f"data.split is {data.split_name}, which leaves no {split} images in {data.source}")
    elif split == "test" and _may_have_seen(trained, section, data, training):
        faults.append(
            f"data.split is {data.split_name}, and {trained.label} was trained under "
            f"data.split={_split_of(trained, training)}: its training or its selection may have "
            "seen these test images; leave data.split as it was, or train under data.split=published"
        )
    if faults:
        raise ConfigError("evaluate", faults)


def _may_have_seen(
    trained: TrainedModel, section: Mapping[str, Any], data: FaceData, training: FaceData | None
) -> bool:
    """Whether test images may have been trained or selected on: the same source divided in another way than the
    published one, or pixels in common with what trained and validated."""
    own = trained.config["data"]
    splits = {_split_of(trained, training), data.split_name.partition(",")[0]}
    if splits == {"published"} or (training is not None and training.digest == data.digest):
        return False
    # FER2013 in another form has other pixels and is the same data; two folders are the same where their path is.
    any_folder = str(own["_target_"]).endswith("image_folder.load")
    if section["_target_"] == own["_target_"] and (not any_folder or section.get("path") == own.get("path")):
        return True
    if training is None:
        return False
    known = training.images[(training.split == TRAIN) | (training.split == VAL)]
    return bool(stand_among(data, known)[data.split == TEST].any())


def _split_of(trained: TrainedModel, training: FaceData | None) -> str:
    """The split that a model was trained under, without its fold."""
    name = trained.config["data"].get("split") or "published"
    return (str(name) if training is None else training.split_name).partition(",")[0]


def _noted(found: ModelScores, trained: TrainedModel, data: FaceData, training: FaceData | None) -> ModelScores:
    """Note that test images were read: in the folder of the sweep that chose, and in the model's MLflow run."""
    scores = {"one_view": asdict(found.scores), "ten_crop": None if found.ten_crop is None else asdict(found.ten_crop)}
    reading = test_log.new_reading("evaluate", trained.label, data, scores)
    # Metrics called test_... are those of the test images that belong to what the model was trained on.
    is_own = training is not None and training.digest == data.digest
    metrics = test_log.metrics(scores) if is_own else {}
    if trained.record is None or trained.chooser is None:
        return _noted_in_mlflow(found, trained, reading, metrics)
    noted = test_log.note(trained.chooser.folder, reading)
    told = [*found.warnings, *test_log.repeated(trained.chooser.name, noted)]
    tags, record = test_log.tags(reading, len(noted)), trained.record
    try:
        left = add_to_run(record.folder, trained.settings, trained.number, tags, metrics, SHIP_SECONDS)
    except TrackingError as error:  # the reading counts all the same
        told.append(f"MLflow is not told of this reading: {error}")
    else:
        if left:
            told.append(f"{left} records wait for MLflow; ferhpo sync {record.name} ships them")
    return replace(found, num_readings=len(noted), warnings=told)


def _noted_in_mlflow(
    found: ModelScores, trained: TrainedModel, reading: test_log.Reading, metrics: Mapping[str, float]
) -> ModelScores:
    """Note a reading where no folder here holds the model's sweep: its run alone counts."""
    from ferhpo.tracking import registry

    assert trained.run_id is not None
    number = int(registry.run_tags(trained.settings, trained.run_id).get(test_log.NUMBER_TAG, "0")) + 1
    registry.note_on_run(trained.settings, trained.run_id, test_log.tags(reading, number), metrics)
    told = ["no folder here holds the sweep of this model; the reading is noted in its MLflow run alone"]
    if number > 1:
        told.append(f"test has been read {number} times for this sweep, as the MLflow run of its model says")
    return replace(found, num_readings=number, warnings=[*found.warnings, *told])


def lines_of(answers: Evaluation, data: FaceData, seen: NDArray[np.bool_] | None) -> Lines:
    """Both lines; no second one where `seen` is None, because nobody knows what the model was trained on."""
    if seen is None:
        return replace(score_lines(answers, data, np.zeros(len(data.labels), np.bool_)), clean=None)
    return score_lines(answers, data, seen)
