"""Learning curves of a trial: training and validation accuracy and loss by epoch, and the gap between them.

Note: training accuracy and loss are measured during training, with augmentation, with dropout and while the weights
change; in early epochs they are often worse than those of validation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ferhpo.config import Objective
from ferhpo.reports.panel import Panel, safe_name
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.scoring.metrics import DEDUP, METRICS
from ferhpo.storage.trial_record import TrialRecord

if TYPE_CHECKING:
    from ferhpo.evaluation.load import Subject

TRAIN_STYLE = {"color": COLORS[1], "linestyle": "--", "marker": "s"}
VAL_STYLE = {"color": COLORS[0], "linestyle": "-", "marker": "o"}
KINDS = {"acc": "accuracy", "loss": "loss"}
GAP_POINTS = 0.1  # overfitting: training accuracy exceeds that of validation by more than this
LOSS_RISE = 0.05  # overfitting: the last validation loss exceeds the smallest by more than this share
Row = dict[str, float]


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Draw the curves of the subject's trial."""
    return of_trial(subject.trial, subject.sweep.objective, folder)


def of_trial(trial: TrialRecord, objective: Objective, folder: Path) -> Panel | None:
    """Do the same from the trial's record alone; None if it has no epoch."""
    kinds = [kind for kind in KINDS if any(f"val_{kind}" in row for row in trial.epochs)]
    # Of the other metrics, those that the user chose: the metrics that not every trial reports, and the objective.
    reported = {key.removeprefix("val_") for row in trial.epochs for key in row if key.startswith("val_")}
    usual = {*METRICS, DEDUP.removeprefix("val_")} - {objective.metric.removeprefix("val_")}
    kinds += sorted(reported - usual - set(kinds))
    if not kinds or trial.best_epoch is None:
        return None
    files = {kind: folder / f"curve_{safe_name(kind)}.svg" for kind in kinds}
    images = tuple(draw(path, trial, [kind]) for kind, path in files.items())
    return Panel("Learning curves", describe(trial, objective), images)


def draw(path: Path, trial: TrialRecord, kinds: Sequence[str]) -> Path:
    """Draw a figure with a chart for each of `kinds` (metrics, e.g. "acc" or "loss") and return its path."""
    with figure(path, COLUMN_INCHES * len(kinds), 3.1) as drawn:
        for index, kind in enumerate(kinds, 1):
            axes = drawn.add_subplot(1, len(kinds), index)
            marker_size = 4.5 if len(trial.epochs) <= 30 else 0
            for split, style in (("train", TRAIN_STYLE), ("val", VAL_STYLE)):
                rows = [row for row in trial.epochs if f"{split}_{kind}" in row]
                if not rows:
                    continue
                x, y = [row["epoch"] for row in rows], [row[f"{split}_{kind}"] for row in rows]
                label = {"train": "training", "val": "validation"}[split]
                axes.plot(x, y, label=label, linewidth=1.8, markersize=marker_size, **style)  # type: ignore[arg-type]
            _mark_gap(axes, trial, kind)
            axes.set_xlabel("epoch")
            axes.set_ylabel(KINDS.get(kind, kind))
            axes.set_xlim(trial.epochs[0]["epoch"] - 0.4, trial.epochs[-1]["epoch"] + 0.4)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if index == 1:
                drawn.legend(loc="outside lower center", ncols=3, fontsize=9, columnspacing=1.0)
    return path


def _mark_gap(axes: Axes, trial: TrialRecord, kind: str) -> None:
    """Shade the area between the curves where the network overfits, and mark the best epoch."""
    both = [row for row in trial.epochs if f"train_{kind}" in row and f"val_{kind}" in row]
    x = [row["epoch"] for row in both]
    train, val = [row[f"train_{kind}"] for row in both], [row[f"val_{kind}"] for row in both]
    over = [t > v if kind == "acc" else t < v for t, v in zip(train, val, strict=True)]
    if any(over) and len(both) > 1:
        axes.fill_between(
            x, train, val, where=over, interpolate=True, color=COLORS[5], alpha=0.16, linewidth=0,
            label="overfitting gap",
        )  # fmt: skip
    best = trial.best_epoch
    at_best = next((row for row in trial.epochs if row["epoch"] == best), None)
    if best is None or at_best is None or f"val_{kind}" not in at_best:
        return
    axes.axvline(best, color=COLORS[7], linewidth=1.0, linestyle=":")
    axes.scatter(best, at_best[f"val_{kind}"], s=110, facecolor="none", edgecolor=COLORS[7], linewidth=1.6, zorder=4)
    is_left = best <= (trial.epochs[0]["epoch"] + trial.epochs[-1]["epoch"]) / 2
    # The label is at the end of the line that is farther from the curves.
    bottom, top = axes.get_ylim()
    low = at_best[f"val_{kind}"] + at_best.get(f"train_{kind}", at_best[f"val_{kind}"]) > bottom + top
    axes.annotate(
        f"best epoch {best}", (best, 0.0 if low else 1.0), xycoords=("data", "axes fraction"),
        xytext=(4 if is_left else -4, 3 if low else -3), textcoords="offset points",
        ha="left" if is_left else "right", va="bottom" if low else "top", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )  # fmt: skip


def describe(trial: TrialRecord, objective: Objective) -> str:
    """Return what the curves show, in sentences: best epoch, gap, and whether the validation loss rose again."""
    at_best = next(row for row in trial.epochs if row["epoch"] == trial.best_epoch)
    parts = [f"Best at epoch {trial.best_epoch} of {len(trial.epochs)}: {objective.metric} {trial.value:.4f}."]
    if "train_acc" in at_best and "val_acc" in at_best:
        parts.append(_gap_sentence(at_best["train_acc"] - at_best["val_acc"]))
    losses = [(row["val_loss"], int(row["epoch"])) for row in trial.epochs if "val_loss" in row]
    if losses:
        least, epoch = min(losses)
        last = losses[-1][0]
        if last > least * (1 + LOSS_RISE):
            parts.append(
                f"Validation loss is lowest at epoch {epoch} ({least:.3f}) and rises to {last:.3f}: overfitting."
            )
        elif epoch == losses[-1][1] and len(losses) > 1:
            parts.append("Validation loss was still falling at the last epoch: more epochs may help.")
    if trial.best_epoch is not None and "train_acc" in at_best:
        parts.append("Training values are measured during training, with augmentation and dropout.")
    return " ".join(parts)


def _gap_sentence(gap: float) -> str:
    size = f"{100 * abs(gap):.1f} points"
    if gap > GAP_POINTS:
        return f"Training accuracy is {size} above validation accuracy at that epoch: overfitting."
    if gap >= 0:
        return f"Training accuracy is {size} above validation accuracy at that epoch, a small gap."
    return f"Training accuracy is {size} below validation accuracy at that epoch: no overfitting."
