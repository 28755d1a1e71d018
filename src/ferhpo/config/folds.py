"""Cross-validation as configurations and records tell it: how many folds, what they are reported as, what they come to.

`data.folds=5` alone makes every trial train five folds, one after the other (cross_validation.py does); with
`data.fold=2` a trial is one training as any other. What a reader would get wrong: `data.fold` counts from 0 and names a
fold, in folders and runs too; a report counts folds that are done, from 1, as epochs are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

EPOCH, FOLD = "epoch", "fold"  # what a trial reports, and what a scheduler counts
KEPT_FOLD = 0  # whose network stands for a trial: see docs/decisions/0007


def num_folds(config: Mapping[str, Any]) -> int | None:
    """How many folds each trial of a configuration trains; None where it trains once."""
    data = config["data"]
    folds = data.get("folds")
    return int(folds) if folds is not None and data.get("fold") is None else None


def report_unit(config: Mapping[str, Any]) -> str:
    """What each report of a trial ends: an epoch, or a fold where trials are cross-validated."""
    return EPOCH if num_folds(config) is None else FOLD


def num_reports(config: Mapping[str, Any]) -> int:
    """How many epochs, or folds, a trial has that runs to its end."""
    return num_folds(config) or int(config["trainer"]["max_epochs"])


def fold_folder(trial_folder: Path, fold: int) -> Path:
    """Where a fold of a trial keeps its checkpoints; `fold` counts from 0."""
    return trial_folder / f"fold{fold}"
