"""The metrics of the validation split that every epoch reports.

To add one to ferhpo, write a function here and enter it in METRICS: each epoch then reports `val_<name>`, and it is in
the study, in MLflow, in leaderboard.csv and in the report, and may be the objective. A metric of your own needs no
change of ferhpo: `metrics: {kappa: {_target_: my_metrics.kappa}}` in the configuration (docs/how-to/add-a-metric.md).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferhpo.data.dataset import FaceData
    from ferhpo.scoring.predict import Evaluation

Metric = Callable[["Evaluation"], float]
METRICS: dict[str, Metric] = {
    "loss": lambda found: found.loss,
    "acc": lambda found: found.acc,
    "macro_f1": lambda found: found.macro_f1,
}
TRAIN_METRICS = ("train_loss", "train_acc")
DEDUP = "val_acc_dedup"  # val_acc without the images whose pixels are also in the training split
NAMES_BEFORE = {"val_acc_clean": DEDUP}  # as versions up to 0.1 wrote them into studies and checkpoints


def objective_names(own: Iterable[str] = ()) -> list[str]:
    """Return the names of all metrics that may be the objective. own: names in the section `metrics`"""
    return [*TRAIN_METRICS, *(f"val_{name}" for name in (*METRICS, *own)), DEDUP]


def val_metrics(found: "Evaluation", data: "FaceData", own: Mapping[str, Metric]) -> dict[str, float]:
    """Return the metrics of the validation split by their full names.

    own: metrics of the configuration. Raises ValueError if one of them does not return a number.
    """
    from ferhpo.scoring.scores import score_variants

    values = {f"val_{name}": metric(found) for name, metric in METRICS.items()}
    dedup = score_variants(found, data).dedup
    if dedup is not None:
        values[DEDUP] = dedup.acc
    for name, metric in own.items():
        value = metric(found)
        try:
            values[f"val_{name}"] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metrics.{name} returned {value!r:.60}; a metric must return one number") from None
    return values


def with_present_names(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row of metrics that an earlier version wrote under the names of this one."""
    return {NAMES_BEFORE.get(name, name): value for name, value in row.items()}
