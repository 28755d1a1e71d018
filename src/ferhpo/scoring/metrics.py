"""The metrics of the validation split that every epoch reports.

METRICS are reported by every trial, as `val_<name>`. CHOSEN come with ferhpo too, and are reported if the section
`metrics` of the configuration switches them on (`metrics.kappa=true`), or if they are the objective. A metric of your
own needs no change of ferhpo: `metrics: {brier: {_target_: my_metrics.brier}}` (docs/how-to/add-a-metric.md).

To add one to ferhpo, write a function here and enter it in CHOSEN. The study, MLflow, leaderboard.csv, the report and
`ferhpo evaluate` take whatever is reported.

Note: CHOSEN are off by default, so that a sweep's tables and charts have the columns that its user asked for; macro F1,
which is on, already shows a network that ignores the rare classes.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ferhpo.components import own_code
from ferhpo.keys import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ferhpo.data.dataset import FaceData
    from ferhpo.scoring.predict import Evaluation
    from ferhpo.scoring.scores import ScoreVariants

Metric = Callable[["Evaluation"], float]


def balanced_acc(found: "Evaluation") -> float:
    """Return the mean recall of the classes, also called mean class accuracy; from 0 to 1.

    Classes without images in the split are left out.
    """
    images = found.confusion.sum(1)
    present = images > 0
    return float((found.confusion.diagonal()[present].double() / images[present]).mean())


def kappa(found: "Evaluation") -> float:
    """Return Cohen's kappa: 1 if all predictions are right, 0 if they are as good as chance, negative if worse.

    0 if the images have only one class and the network predicts only that one, where kappa is not defined.
    """
    matrix = found.confusion.double()
    total = float(matrix.sum())
    by_chance = float(matrix.sum(0) @ matrix.sum(1)) / total**2
    if by_chance == 1:
        return 0.0
    return (float(matrix.diagonal().sum()) / total - by_chance) / (1 - by_chance)


def macro_auc(found: "Evaluation") -> float:
    """Return the area under the ROC curve, one class against the rest, as the mean over the classes; from 0 to 1.

    The area is the probability that an image of the class gets a larger probability for it than an image of another
    class; equal probabilities count half. Classes that have no image in the split, or all of them, are left out; 0.5 if
    none is left.
    """
    areas = []
    for index in range(found.probabilities.shape[1]):
        is_class = found.labels == index
        inside, outside = found.probabilities[is_class, index], found.probabilities[~is_class, index]
        if len(inside) and len(outside):
            outside.sort()
            below = outside.searchsorted(inside, "left") + outside.searchsorted(inside, "right")
            areas.append(float(below.mean()) / (2 * len(outside)))
    return sum(areas) / len(areas) if areas else 0.5


def top2_acc(found: "Evaluation") -> float:
    """Return the fraction of images whose true class is one of the two most probable; from 0 to 1.

    Of equal probabilities, the class that comes first is taken for the more probable, as for the accuracy. 1 with fewer
    than three classes.
    """
    import numpy as np

    true = np.take_along_axis(found.probabilities, found.labels[:, None], 1)
    is_first = np.arange(found.probabilities.shape[1]) < found.labels[:, None]
    is_ahead = (found.probabilities > true) | ((found.probabilities == true) & is_first)
    return float((is_ahead.sum(1) < 2).mean())


def ece(found: "Evaluation") -> float:
    """Return the expected calibration error; from 0 to 1, and smaller is better.

    The confidence of a prediction is its probability. The images are divided by confidence into 15 bins of equal width,
    each without its lower and with its upper bound; the error is the mean over the bins, weighted by their images, of
    the difference between accuracy and mean confidence (Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    import numpy as np

    confidence = found.probabilities.max(1).astype(np.float64)
    surplus = confidence - (found.probabilities.argmax(1) == found.labels)
    bins = np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, confidence)
    return float(np.abs(np.bincount(bins, surplus)).sum() / len(surplus))


ECE_BINS = 15
METRICS: dict[str, Metric] = {
    "loss": lambda found: found.loss,
    "acc": lambda found: found.acc,
    "macro_f1": lambda found: found.macro_f1,
}
CHOSEN: dict[str, Metric] = {each.__name__: each for each in (balanced_acc, kappa, macro_auc, top2_acc, ece)}
TRAIN_METRICS = ("train_loss", "train_acc")
DEDUP = "val_acc_dedup"  # val_acc without the images whose pixels are also in the training split
MINIMIZED = ("train_loss", "val_loss", "val_ece")  # of the others, larger values are better
NAMES_BEFORE = {"val_acc_clean": DEDUP}  # as versions up to 0.1 wrote them into studies and checkpoints


def objective_names(own: Iterable[str] = ()) -> list[str]:
    """Return the names of all metrics that may be the objective. own: names in the section `metrics`"""
    return [*TRAIN_METRICS, *(f"val_{name}" for name in dict.fromkeys((*METRICS, *CHOSEN, *own))), DEDUP]


def direction(metric: str) -> str:
    """Return the mode of an objective that does not state one: "min" or "max"."""
    return "min" if metric in MINIMIZED else "max"


def objective_mode(config: Mapping[str, Any]) -> str:
    """Return the mode of a configuration's objective if its files and overrides state none."""
    return direction(config["objective"].get("metric"))


def chosen(config: Mapping[str, Any]) -> tuple[dict[str, Metric], dict[str, Mapping[str, Any]]]:
    """Return the metrics of ferhpo that a configuration adds to METRICS, and the sections of the user's own ones."""
    sections, objective = config.get("metrics") or {}, config["objective"].get("metric")
    own = {name: section for name, section in sections.items() if isinstance(section, Mapping)}
    names = [name for name in CHOSEN if name not in own and (sections.get(name) is True or objective == f"val_{name}")]
    return {name: CHOSEN[name] for name in names}, own


def section_faults(sections: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the names in the section `metrics`, and with the entries that are not a component."""
    for name, value in sections.items():
        shown = str(value).lower() if isinstance(value, bool) else f"{value!r:.60}"
        if f"val_{name}" in (*(f"val_{known}" for known in METRICS), DEDUP):
            yield f"metrics.{name} has the name of a metric that ferhpo always reports; choose another name"
        elif not re.fullmatch(r"[\w-]+", str(name), re.ASCII):
            yield f"metrics has the name {name!r:.60}; it may contain letters, digits, '_' and '-'"
        elif isinstance(value, Mapping) or ((value is None or isinstance(value, bool)) and name in CHOSEN):
            continue
        elif name in CHOSEN:
            yield f"metrics.{name} is {shown}; it must be true or false"
        else:
            near = nearest(str(name), [*CHOSEN, *own_code.options("metrics")])
            yield (
                f"metrics.{name} is {shown}; ferhpo has no metric {name}; {near}; "
                f"a metric of your own is a section, e.g. {{_target_: my_metrics.{name}}}"
            )


def val_metrics(found: "Evaluation", data: "FaceData", more: Mapping[str, Metric]) -> dict[str, float]:
    """Return the metrics of the validation split by their full names.

    more: metrics besides METRICS. Raises ValueError if one of them does not return a number.
    """
    from ferhpo.scoring.scores import score_variants

    values = {f"val_{name}": metric(found) for name, metric in METRICS.items()}
    dedup = score_variants(found, data).dedup
    if dedup is not None:
        values[DEDUP] = dedup.acc
    return values | {f"val_{name}": value for name, value in values_of(found, more).items()}


def with_metrics(
    variants: "ScoreVariants", found: "Evaluation", in_training: "NDArray[np.bool_]", metrics: Mapping[str, Metric]
) -> "ScoreVariants":
    """Return the scores of a split with the values of `metrics` in both variants.

    in_training: bool [N] over all images of the data set, as in `score_variants`
    """
    from ferhpo.scoring.scores import subset

    everything, dedup = replace(variants.all, metrics=values_of(found, metrics)), variants.dedup
    if dedup is not None:
        kept = subset(found, ~in_training[found.indices], dedup)
        dedup = replace(dedup, metrics=values_of(kept, metrics))
    return replace(variants, all=everything, dedup=dedup)


def values_of(found: "Evaluation", metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the values of `metrics` by name. Raises ValueError if one of them does not return a number."""
    values = {}
    for name, metric in metrics.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, e.g. of an empty mean: NaN is reported instead
            value = metric(found)
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            values[name] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metrics.{name} returned {value!r:.60}; a metric must return one number") from None
    return values


def with_present_names(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row of metrics that an earlier version wrote under the names of this one."""
    return {NAMES_BEFORE.get(name, name): value for name, value in row.items()}
