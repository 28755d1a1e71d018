"""The best value of a sweep, corrected for the choice among its trials, from the predictions that the trials keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ferhpo.config.folds import fold_folder, num_folds
from ferhpo.scoring.kept import ValPredictions, read_predictions
from ferhpo.scoring.metrics import DEDUP, Metric
from ferhpo.scoring.objective import Objective
from ferhpo.scoring.predict import Evaluation, accuracy, confusion_of, macro_f1
from ferhpo.scoring.statistics.choice import (
    MOST_TRIALS,
    NUM_DRAWS,
    OF_CONFUSION,
    SLOW_TRIALS,
    Scorer,
    affordable_draws,
    choice,
    confusion_scorer,
    slow_scorer,
    sum_scorer,
)
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed, ranked
from ferhpo.trial.run import metrics_of

LEAST_IMAGES = 30
_MOST_CELLS = 50_000_000  # of confusion matrices in memory
_ARRAYS = ("indices", "labels", "probabilities", "losses", "in_training")


@dataclass(frozen=True)
class Corrected:
    """The best value of a sweep, and how much of it is luck.

    value: as reported, of the trial `number`; corrected: what to expect on other images of the same kind
    low, high: the 95 % interval of the true value
    probability: that no other trial is better in truth; likely: (number, probability) of the trials, most likely first
    num_trials: that have ended and were compared; num_images: of the validation split that were used
    """

    number: int
    value: float
    corrected: float
    low: float
    high: float
    probability: float
    likely: tuple[tuple[int, float], ...]
    num_trials: int
    num_images: int


def corrected_best(sweep: Sweep, trials: Sequence[TrialRecord]) -> tuple[Corrected | None, str]:
    """Return the corrected best value of the COMPLETE trials, or None and why it cannot be computed.

    Raises SweepError for a damaged file.
    """
    objective = sweep.objective
    if not objective.metric.startswith("val_"):
        return None, f"the objective {objective.metric} is not a metric of the validation images"
    done = completed(ranked(trials, objective))
    kept = {trial.number: kept_predictions(sweep, trial) for trial in done[:MOST_TRIALS]}
    compared = [trial for trial in done[:MOST_TRIALS] if kept[trial.number] is not None]
    if not compared or compared[0] is not done[0]:
        return None, "the best trial has no stored predictions; those of earlier versions have none"
    first = kept[compared[0].number]
    assert first is not None
    same = [trial for trial in compared if same_images(kept[trial.number], first)]
    predictions = [found for trial in same if (found := kept[trial.number]) is not None]
    if objective.metric == DEDUP:
        predictions = [_only(found, ~found.in_training) for found in predictions]
    num_images = len(predictions[0].labels)
    if num_images < LEAST_IMAGES:
        return None, f"{num_images} validation images are too few; {LEAST_IMAGES} are needed"
    scorer, num_compared, num_draws = _scorer(objective, predictions, sweep)
    same = same[:num_compared]
    scores = [objective.score(trial.value) for trial in same if trial.value is not None]
    result = choice(scores, scorer, num_images, num_draws)
    ends = sorted((objective.score(result.low), objective.score(result.high)))
    order = np.argsort(-result.probabilities, kind="stable")
    best = same[0]
    assert best.value is not None
    return Corrected(
        number=best.number,
        value=best.value,
        corrected=objective.score(result.corrected),
        low=ends[0],
        high=ends[1],
        probability=float(result.probabilities[0]),
        likely=tuple((same[place].number, float(result.probabilities[place])) for place in order),
        num_trials=len(done),
        num_images=num_images,
    ), ""


def sentences(found: Corrected, metric: str) -> list[str]:
    """Return what a corrected best value says, as sentences."""
    if found.num_trials == 1:
        return [f"With its 95 % interval, {metric} is {found.low:.4f} to {found.high:.4f} ({_images(found)})."]
    others = [
        f"{number} ({_percent(share)})" for number, share in found.likely if number != found.number and share >= 0.1
    ]
    rivals = f"; other candidates: {', '.join(others[:3])}" if others else ""
    return [
        f"Corrected for the choice among {found.num_trials} complete trials, the best {metric} is "
        f"{found.corrected:.4f}, 95 % interval {found.low:.4f} to {found.high:.4f} ({_images(found)}).",
        f"Trial {found.number} is really the best with probability {_percent(found.probability)}{rivals}.",
    ]


def as_metrics(found: Corrected, metric: str) -> dict[str, float]:
    """Return the metrics of the sweep's run."""
    return {
        f"best_{metric}_corrected": found.corrected,
        f"best_{metric}_corrected_low": found.low,
        f"best_{metric}_corrected_high": found.high,
        "best_trial_probability": found.probability,
    }


def as_dict(found: Corrected) -> dict[str, Any]:
    """Return what --json prints of it."""
    return {key: getattr(found, key) for key in ("corrected", "low", "high", "probability", "num_trials", "num_images")}


def _images(found: Corrected) -> str:
    return f"{found.num_images:,} validation images"


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.01 else "more than 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def kept_predictions(sweep: Sweep, trial: TrialRecord) -> ValPredictions | None:
    """Return the stored predictions of a trial's best epoch; of a cross-validated one, those of all folds together.

    None if there are none, or if they are of another epoch. Raises SweepError for a damaged file.
    """
    folder, folds = sweep.trial_folder(trial.number), num_folds(sweep.config)
    if folds is None:
        found = read_predictions(folder)
        return found if found is not None and found.epoch == trial.best_epoch else None
    parts = [read_predictions(fold_folder(folder, fold)) for fold in range(folds)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.probabilities.shape[1] for part in known}) > 1:
        return None
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in known]) for name in _ARRAYS}
    return replace(known[0], num_images=sum(part.num_images for part in known), **arrays)


def same_images(one: ValPredictions | None, other: ValPredictions) -> bool:
    if one is None or one.digest != other.digest or one.probabilities.shape != other.probabilities.shape:
        return False
    return np.array_equal(one.indices, other.indices) and np.array_equal(one.labels, other.labels)


def _only(found: ValPredictions, keep: NDArray[np.bool_]) -> ValPredictions:
    return replace(found, **{name: getattr(found, name)[keep] for name in _ARRAYS})


def _scorer(objective: Objective, predictions: Sequence[ValPredictions], sweep: Sweep) -> tuple[Scorer, int, int]:
    """Return the scorer of the objective, larger is better, for how many trials, and for how many draws."""
    metric, labels = objective.metric, predictions[0].labels
    predicted = np.stack([found.probabilities.argmax(1) for found in predictions])
    sign = objective.score(1.0)
    if metric in ("val_acc", DEDUP):
        return sum_scorer((sign * (predicted == labels)).astype(np.float32)), len(predictions), NUM_DRAWS
    if metric == "val_loss":
        losses = np.stack([found.losses for found in predictions])
        return sum_scorer((sign * losses).astype(np.float32)), len(predictions), NUM_DRAWS
    name = metric.removeprefix("val_")
    if metric in OF_CONFUSION and not isinstance((sweep.config.get("metrics") or {}).get(name), Mapping):
        of = OF_CONFUSION[metric]
        num_classes = predictions[0].probabilities.shape[1]
        # One matrix for each draw and trial: of many classes, fewer of both.
        num_compared = max(1, min(len(predictions), _MOST_CELLS // (100 * num_classes**2)))
        num_draws = max(20, min(NUM_DRAWS, _MOST_CELLS // (num_compared * num_classes**2)))
        scorer = confusion_scorer(predicted[:num_compared], labels, num_classes, lambda counts: sign * of(counts))
        return scorer, num_compared, num_draws
    function = metrics_of(sweep.config)[name]
    compared = predictions[:SLOW_TRIALS]
    of_trial = [partial(_value, function, found, sign) for found in compared]
    everything = np.arange(len(labels))
    num_draws = affordable_draws(lambda: of_trial[0](everything), len(compared))
    return slow_scorer(of_trial), len(compared), num_draws


def _value(metric: Metric, found: ValPredictions, sign: float, images: NDArray[np.intp]) -> float:
    """Return a metric of the images at these places, which may repeat."""
    probabilities, labels = found.probabilities[images].astype(np.float32), found.labels[images]
    predicted, true = torch.from_numpy(probabilities.argmax(1)), torch.from_numpy(labels)
    confusion = confusion_of(predicted, true, probabilities.shape[1])
    f1 = macro_f1(predicted, true, probabilities.shape[1])
    loss = float(found.losses[images].mean())
    return sign * float(
        metric(Evaluation(loss, accuracy(confusion), f1, confusion, probabilities, labels, found.indices[images]))
    )
