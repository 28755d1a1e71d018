"""Locate the checkpoints of a sweep's trials, and read the rule for which are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferhpo.config.folds import fold_folder
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord

ALL = "all"
BEST, LAST = "best.ckpt", "last.ckpt"  # as in training/checkpoint.py, which imports torch


def num_kept(config: Mapping[str, Any]) -> int | None:
    """Return how many trials keep their checkpoints; None for all."""
    value = config.get("keep_checkpoints", ALL)  # sweeps older than this key keep all
    return None if value == ALL else int(value)


def best_checkpoint(sweep: Sweep, trial: TrialRecord) -> Path:
    """Return the path of a trial's best checkpoint. Raises SweepError if the sweep has removed it."""
    path, keep = sweep.kept_folder(trial.number) / BEST, num_kept(sweep.config)
    try:
        is_there = path.exists()
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from None
    if keep is not None and not is_there and trial.state.is_over and trial.best_epoch is not None:
        remedy = "; its MLflow run has it under checkpoint/" if sweep.config["tracking"]["uri"] != "none" else ""
        raise SweepError(
            f"{path} does not exist: keep_checkpoints is {keep}, and trial {trial.number} was not among the best"
            f"{remedy}"
        )
    return path


def has_checkpoint(sweep: Sweep, trial: TrialRecord) -> bool:
    """Return whether a trial's best checkpoint is still in the sweep's folder."""
    return (sweep.kept_folder(trial.number) / BEST).exists()


def kept_confusion(folder: Path, num_folds: int = 0) -> dict[str, Any] | None:
    """Return `class_names` and `confusion` of a trial's best checkpoint.

    The matrix counts images: rows are true classes, columns are predictions.
    num_folds: of a cross-validated trial; the matrix is then the sum over folds, in which each image was predicted by
        the network that was not trained on it
    Returns None if a checkpoint is missing or cannot be read.
    """
    folders = [fold_folder(folder, fold) for fold in range(num_folds)] or [folder]
    try:
        kept = [_confusion_of(path) for path in folders if (path / BEST).exists()]
    except (SweepError, StorageError, OSError):
        return None  # a damaged checkpoint is reported when its network is needed
    if len(kept) < len(folders):
        return None
    confusion = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*(k[1] for k in kept), strict=True)]
    return {"class_names": kept[0][0], "confusion": confusion}


def _confusion_of(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Return class names and confusion matrix of a training's best epoch.

    The last checkpoint of a training that is over has both, and no weights.
    """
    from ferhpo.training.checkpoint import LAST_KEYS, read

    best, last = folder / BEST, folder / LAST
    if last.exists() and last.stat().st_size < best.stat().st_size:
        found = read(last, LAST_KEYS)
        if "class_names" in found:
            return found["class_names"], found["confusion"]
    found = read(best)
    return found["class_names"], found["confusion"].tolist()
