"""The result of `evaluate`, and its record in the test log and in MLflow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from ferhpo.data.dataset import FaceData
from ferhpo.errors import TrackingError
from ferhpo.evaluation.load import TrainedModel
from ferhpo.evaluation.robustness import Corrupted
from ferhpo.scoring.scores import ClassScore, ScoreVariants
from ferhpo.scoring.statistics.calibration import Calibration
from ferhpo.storage import evaluation_log
from ferhpo.tracking import add_to_run

SHIP_SECONDS = 15.0  # how long to wait for MLflow; `ferhpo sync` uploads the rest later


@dataclass(frozen=True)
class ModelScores:
    """The result of `evaluate`.

    scores: from one view of each image; ten_crop: from ten, if asked for. Both with every metric that comes with
        ferhpo, and those of the model's configuration
    classes, confusion (rows are true classes): of all images of the split, from ten views if asked for
    calibration: whether probabilities say how often the network is right, if asked for; the temperature is fitted to
        the validation images
    robustness: accuracy under each corruption and severity, if asked for
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
    calibration: Calibration | None = None
    robustness: list[Corrupted] = field(default_factory=list)
    num_test_evaluations: int = 0
    warnings: list[str] = field(default_factory=list)


def logged(
    scores: ModelScores, trained: TrainedModel, data: FaceData, training: FaceData | None, verb: str = "evaluate"
) -> ModelScores:
    """Log a test evaluation by a verb in the folder of the selecting sweep and in the model's MLflow run."""
    plain = {
        "one_view": asdict(scores.scores),
        "ten_crop": None if scores.ten_crop is None else asdict(scores.ten_crop),
    }
    entry = evaluation_log.new_entry(verb, trained.label, data, plain)
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
