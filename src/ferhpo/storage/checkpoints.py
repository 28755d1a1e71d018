"""Where the checkpoints of a sweep's trials are, and which of them are kept."""

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
    """How many trials keep their checkpoints; None for all."""
    value = config.get("keep_checkpoints", ALL)  # sweeps begun before there was the key keep all
    return None if value == ALL else int(value)


def best_checkpoint(record: Sweep, trial: TrialRecord) -> Path:
    """Where the network that stands for a trial lies. Raises SweepError where the sweep has removed it."""
    path, keep = record.kept_folder(trial.number) / BEST, num_kept(record.config)
    if keep is not None and not path.exists() and trial.state.is_over and trial.best_epoch is not None:
        where = "; its MLflow run has it under checkpoint/" if record.config["tracking"]["uri"] != "none" else ""
        raise SweepError(
            f"{path} does not exist: keep_checkpoints is {keep}, and trial {trial.number} was not among the best{where}"
        )
    return path


def has_checkpoint(record: Sweep, trial: TrialRecord) -> bool:
    """Whether the network that stands for a trial is still on this disk."""
    return (record.kept_folder(trial.number) / BEST).exists()


def kept_confusion(folder: Path, num_folds: int = 0) -> dict[str, Any] | None:
    """`class_names` and `confusion` of a trial's checkpoint, in images: rows are true classes, columns answers.

    num_folds: of a cross-validated trial; the matrix is then their sum, in which each image was judged by the network
        that had not seen it
    None where there is no checkpoint, not of every fold, or one that cannot be read.
    """
    folders = [fold_folder(folder, fold) for fold in range(num_folds)] or [folder]
    checkpoints = [path / BEST for path in folders]
    import torch

    from ferhpo.training.checkpoint import read

    try:
        if not all(path.exists() for path in checkpoints):
            return None
        kept = [read(path) for path in checkpoints]
    except (SweepError, StorageError, OSError):
        return None  # a damaged one is told where its network is wanted
    confusion = torch.stack([part["confusion"] for part in kept]).sum(dim=0).tolist()
    return {"class_names": kept[0]["class_names"], "confusion": confusion}
