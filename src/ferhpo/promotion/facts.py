"""What is known of a version that is to be promoted, beside the version that the alias names now."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import ConfigError, DataError, FerhpoError, first_line
from ferhpo.evaluation.evaluate import check_fits, load_for, no_driver, scores_of, training_data
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.evaluation.model_scores import ModelScores, logged
from ferhpo.evaluation.robustness import Corrupted, robustness_of
from ferhpo.models.count import count_parameters
from ferhpo.promotion.gates import Facts
from ferhpo.scoring.collapse import collapse, most_answered
from ferhpo.scoring.device_data import device_for
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.predict import evaluate as predict
from ferhpo.scoring.scores import class_scores, in_training_mask
from ferhpo.scoring.statistics.calibration import Calibration, calibration, fit_temperature
from ferhpo.scoring.statistics.paired import Difference, difference
from ferhpo.tracking.registry import Version

NUM_TIMED = 20
MOST_CORRUPTED, SHOWN_SEVERITIES = 300, (1, 3, 5)  # of the robustness in the model card


@dataclass(frozen=True)
class Examined:
    """A candidate with its data and predictions, and the facts that gates ask for."""

    trained: TrainedModel
    data: FaceData
    training: FaceData | None
    found: Evaluation
    calibration: Calibration
    facts: Facts
    scores: ModelScores
    robustness: list[Corrupted]


def examine(
    candidate: Version, champion: Version | None, purpose: str, output_dir: str | Path, stores: list[str]
) -> Examined:
    """Load a version and score it on the test images of its data set; without test images, on the validation images.

    Raises TrackingError, SweepError, ConfigError, DataError if it or its data cannot be loaded.
    """
    trained = find_model(f"models:/{candidate.name}/{candidate.number}", output_dir, stores)
    section = trained.config["data"]
    data = load_for(trained, section)
    training, notes = training_data(trained, section, data, is_other=False)
    split = "test" if (data.split == SPLIT_NAMES.index("test")).any() else "val"
    if split == "val":
        notes = [*notes, f"{data.source} has no test images under the {data.split_name} split"]
    check_fits(trained, section, data, training, split)
    data = with_classes(data, trained.class_names)
    if split == "test":  # every reading of test images is noted
        with no_driver(trained):
            scores = logged(scores_of(trained, data, training, split, False, []), trained, data, training, "promote")
        notes = [*notes, *scores.warnings]
    else:
        scores = scores_of(trained, data, training, split, False, [])
    network = trained.network.to(device_for(trained.config))
    found = predict(network, data, split, trained.preprocess)
    temperature = None
    if split == "test" and (data.split == SPLIT_NAMES.index("val")).any():
        val = predict(network, data, "val", trained.preprocess)
        temperature = fit_temperature(val.probabilities, val.labels)
    calibrated = calibration(found.probabilities, found.labels, temperature)
    classes = class_scores(found.confusion.numpy(), data.class_names)
    against, why_not = _against(champion, data, split, found, output_dir, stores)
    facts = Facts(
        scored_on=split,
        num_images=len(found.labels),
        acc=found.acc,
        macro_f1=found.macro_f1,
        recalls={each.name: each.recall for each in classes if each.n},
        calibration_error=calibrated.ece_after,
        split_name=data.split_name,
        num_parameters=count_parameters(network),
        milliseconds=_milliseconds(trained, data),
        num_seeds=_whole(candidate.tags.get("ferhpo.num_seeds")),
        collapsed_to=collapse(most_answered(found.confusion.tolist(), data.class_names)),
        data_digest=data.digest,
        champion=None if champion is None else f"version {champion.number}",
        against_champion=against,
        champion_digest="" if champion is None else _digest_of(champion, output_dir, stores),
        purpose=purpose,
        notes=[*notes, *([why_not] if why_not else [])],
    )
    robustness = robustness_of(trained, data, split, MOST_CORRUPTED, SHOWN_SEVERITIES)
    return Examined(trained, data, training, found, calibrated, facts, scores, robustness)


def _against(
    champion: Version | None,
    data: FaceData,
    split: str,
    found: Evaluation,
    output_dir: str | Path,
    stores: list[str],
) -> tuple[Difference | None, str]:
    """Return the candidate's right answers beside the champion's, or None and why there are none."""
    if champion is None:
        return None, ""
    try:
        other = find_model(f"models:/{champion.name}/{champion.number}", output_dir, stores)
        training, _ = training_data(other, other.config["data"], data, is_other=True)
        check_fits(other, other.config["data"], data, training, split)
        ordered = with_classes(data, other.class_names)
        predicted = predict(other.network.to(device_for(other.config)), ordered, split, other.preprocess)
    except FerhpoError as error:
        return None, f"the champion, version {champion.number}, cannot be scored: {first_line(error)}"
    names = np.array([data.class_names.index(name) for name in ordered.class_names])
    unseen = np.ones(len(found.labels), np.bool_)
    if training is not None and training.digest != data.digest:
        unseen = ~in_training_mask(data, training)[found.indices]
    right = found.probabilities.argmax(1) == found.labels
    right_other: NDArray[np.bool_] = names[predicted.probabilities.argmax(1)] == found.labels
    if not unseen.any():
        return None, f"the champion, version {champion.number}, was trained on all of these images"
    return difference(right[unseen], right_other[unseen]), ""


def _digest_of(version: Version, output_dir: str | Path, stores: list[str]) -> str:
    """Return the digest of the data set that a version was trained on; "" if its data cannot be read here."""
    try:
        trained = find_model(f"models:/{version.name}/{version.number}", output_dir, stores)
        return load_for(trained, trained.config["data"]).digest
    except (FerhpoError, ConfigError, DataError):
        return ""


def _milliseconds(trained: TrainedModel, data: FaceData) -> float:
    """Return the median time of one image on one CPU thread, from pixels to probabilities."""
    image = data.images[:1]
    threads, device = torch.get_num_threads(), next(trained.network.parameters(), torch.empty(0)).device
    torch.set_num_threads(1)
    try:
        trained.network.to("cpu")
        trained.predict(image)
        seconds = []
        for _ in range(NUM_TIMED):
            start = time.perf_counter()
            trained.predict(image)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
        trained.network.to(device)
    return 1000 * statistics.median(seconds)


def _whole(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() else None
