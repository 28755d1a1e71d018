"""Cross-validation in configurations and records: the number of folds, and what trials report.

`data.folds=5` makes every trial train five folds, one after the other (trial/cross_validation.py). If `data.fold=2` is
set too, a trial is one ordinary training. Note: `data.fold` counts from 0, as do the names of folders and runs; reports
count completed folds from 1, as they count epochs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

EPOCH, FOLD = "epoch", "fold"  # what a trial reports, and what a scheduler counts
KEPT_FOLD = 0  # the fold whose network represents the trial: see docs/decisions/0007


def num_folds(config: Mapping[str, Any]) -> int | None:
    """Return how many folds each trial trains; None without cross-validation."""
    data = config["data"]
    folds = data.get("folds")
    return int(folds) if folds is not None and data.get("fold") is None else None


def report_unit(config: Mapping[str, Any]) -> str:
    """Return what a trial reports after: each epoch, or each fold if it is cross-validated."""
    return EPOCH if num_folds(config) is None else FOLD


def num_reports(config: Mapping[str, Any]) -> int:
    """Return how many epochs, or folds, a trial has if nothing stops it."""
    return num_folds(config) or int(config["trainer"]["max_epochs"])


def fold_folder(trial_folder: Path, fold: int) -> Path:
    """Return the folder of a fold's checkpoints; `fold` counts from 0."""
    return trial_folder / f"fold{fold}"
