"""What is known of a version that is to be promoted, beside the version that the alias names now."""

import logging
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ferhpo.config import Composed
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import FerhpoError, first_line
from ferhpo.evaluation.evaluate import check_fits, load_for, no_driver, scores_of, training_data
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.evaluation.model_scores import ModelScores, logged
from ferhpo.evaluation.robustness import Corrupted, calibrated, predicted, robustness_of
from ferhpo.models.count import count_parameters
from ferhpo.promotion.gates import Facts
from ferhpo.scoring.collapse import collapse, most_answered
from ferhpo.scoring.predict import Evaluation
from ferhpo.scoring.scores import in_training_mask
from ferhpo.scoring.statistics.calibration import Calibration
from ferhpo.scoring.statistics.paired import Difference, difference
from ferhpo.text import STEPS
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.registry import Version
from ferhpo.trial.load_data import load_data

log = logging.getLogger(STEPS)
NUM_TIMED = 20
MOST_CORRUPTED, SHOWN_SEVERITIES = 300, (1, 3, 5)  # of the robustness in the model card


@dataclass(frozen=True)
class Examined:
    """A candidate's data and scores, and the facts that gates ask for."""

    data: FaceData
    calibration: Calibration
    facts: Facts
    scores: ModelScores
    trained: TrainedModel
    split: str


def examine(
    candidate: Version, champion: Version | None, purpose: str, output_dir: Path, settings: TrackingSettings
) -> Examined:
    """Load a version and score it on the test images of its data set; without test images, on the validation images.

    Raises TrackingError, SweepError, ConfigError, DataError if it or its data cannot be loaded.
    """
    trained = find_model(f"models:/{candidate.name}/{candidate.number}", output_dir, tracking=settings)
    section = trained.config["data"]
    data = load_for(trained, section)
    training, notes = training_data(trained, section, data, is_other=False)
    split = "test" if (data.split == SPLIT_NAMES.index("test")).any() else "val"
    if split == "val":
        notes = [*notes, f"{data.source} has no test images under the {data.split_name} split"]
    check_fits(trained, section, data, training, split)
    data = with_classes(data, trained.class_names)
    beside = "" if champion is None else f", and {champion.number}, the champion,"
    log.info("scoring %s version %d%s on %s images", candidate.name, candidate.number, beside, split)
    with no_driver(trained) if split == "test" else nullcontext():
        found = predicted(trained, data, split)
        scores = scores_of(trained, data, training, split, found, False, [])
        if split == "test":  # every reading of test images is noted
            scores = logged(scores, trained, data, training, "promote")
            notes = [*notes, *scores.warnings]
    calibration = calibrated(trained, data, split, found)
    answered = most_answered(found.confusion.tolist(), data.class_names)
    present = _present_digest(trained)  # what the folder of its sweep says is no proof: it may have been copied
    rival = _champion(champion, data, split, found, output_dir, settings)
    facts = Facts(
        scored_on=split,
        num_images=len(found.labels),
        acc=found.acc,
        macro_f1=found.macro_f1,
        recalls={each.name: each.recall for each in scores.classes if each.n},
        calibration_error=calibration.ece_after,
        split_name=data.split_name,
        num_parameters=count_parameters(trained.network),
        milliseconds=_milliseconds(trained, data),
        num_seeds=_whole(candidate.tags.get("ferhpo.num_seeds")),
        collapsed_to=collapse(answered),
        most_answered=f"{answered['class']} {100 * answered['share']:.1f} %",
        data_digest=present,
        is_data_changed=_recorded_digest(trained) not in ("", present),
        champion=None if champion is None else f"version {champion.number}",
        against_champion=rival.against,
        champion_digest=rival.data_digest,
        purpose=purpose,
        notes=[*notes, *rival.notes],
    )
    return Examined(data, calibration, facts, scores, trained, split)


def robustness(examined: Examined) -> list[Corrupted]:
    """Return the scores of a candidate on corrupted images, which take longer than the rest."""
    log.info("scoring corrupted images, for the model card")
    return robustness_of(examined.trained, examined.data, examined.split, MOST_CORRUPTED, SHOWN_SEVERITIES)


@dataclass(frozen=True)
class _Champion:
    """What is known of the version that the alias names now. notes: why it could not be compared"""

    data_digest: str = ""
    against: Difference | None = None
    notes: tuple[str, ...] = ()


def _champion(
    champion: Version | None,
    data: FaceData,
    split: str,
    found: Evaluation,
    output_dir: Path,
    settings: TrackingSettings,
) -> _Champion:
    """Return what is known of the champion, and the candidate's right answers beside the champion's."""
    if champion is None:
        return _Champion()
    label, digest = f"the champion, version {champion.number}", ""
    try:
        other = find_model(f"models:/{champion.name}/{champion.number}", output_dir, tracking=settings)
        digest = _recorded_digest(other) or _present_digest(other)
        training, _ = training_data(other, other.config["data"], data, is_other=True)
        check_fits(other, other.config["data"], data, training, split)
        ordered = with_classes(data, other.class_names)
        of_other = predicted(other, ordered, split)
    except FerhpoError as error:
        return _Champion(digest, notes=(f"{label}, cannot be scored: {first_line(error)}",))
    names = np.array([data.class_names.index(name) for name in ordered.class_names])
    unseen = np.ones(len(found.labels), np.bool_)
    if training is not None and training.digest != data.digest:
        unseen = ~in_training_mask(data, training)[found.indices]
    right = found.probabilities.argmax(1) == found.labels
    right_other: NDArray[np.bool_] = names[of_other.probabilities.argmax(1)] == found.labels
    if not unseen.any():
        return _Champion(digest, notes=(f"{label}, was trained on all of these images",))
    return _Champion(digest, difference(right[unseen], right_other[unseen]))


def _recorded_digest(trained: TrainedModel) -> str:
    """Return the digest of the data set that a sweep's folder says it was trained on; "" without such a folder."""
    return "" if trained.sweep is None else str(trained.sweep.meta.get("data", {}).get("digest", ""))


def _present_digest(trained: TrainedModel) -> str:
    """Return the digest of the data set that a network's configuration names, as it is now; "" if it is not here."""
    try:
        return load_data(Composed("promote", dict(trained.config)), for_training=False).digest
    except FerhpoError:
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
