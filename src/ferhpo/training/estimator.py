"""The fit of a scikit-learn estimator as a training of one epoch: same metrics, checkpoints and report as a network.

Note: the training metrics are those of the fitted estimator; those of a network are collected while it still changes.
Images are preprocessed as for a network, but never augmented.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ferhpo.data.dataset import TRAIN, FaceData
from ferhpo.models.estimators import Estimator
from ferhpo.scoring.device_data import eval_batches, indices_of, to_device
from ferhpo.scoring.kept import write_predictions
from ferhpo.scoring.metrics import Metric, val_metrics, with_present_names
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.training.checkpoint import BEST, FORMAT, load_last, load_network, save_checkpoints
from ferhpo.training.epoch_end import Report
from ferhpo.training.fit import FitResult
from ferhpo.training.settings import TrainerSettings

CPU = torch.device("cpu")


def fit_estimator(
    estimator: Estimator,
    data: FaceData,
    *,
    settings: TrainerSettings,
    input_size: int,
    metric: str = "val_acc",
    folder: Path,
    seed: int,
    report: Report,
    more_metrics: Mapping[str, Metric] = MappingProxyType({}),
    on_fitted: Callable[[], None] = lambda: None,
) -> FitResult:
    """Fit an estimator to the training split and write it to best.ckpt, or load the one in `folder`.

    It is fitted to the labels, even if the data has soft targets; these are used for the losses only.
    input_size: side in pixels of the center of the images that is its input
    report: called once, with epoch 1
    on_fitted: called before the report, when `estimator.cost()` is known
    Raises StorageError for a full disk, SweepError for a damaged checkpoint, ValueError if the data does not fit.
    """
    last = load_last(folder)
    if last is None:
        last = _fit(estimator, data, settings, input_size, folder, seed, more_metrics)
    else:
        load_network(folder / BEST, estimator)
    on_fitted()
    (row,) = map(with_present_names, last["history"])
    report(1, {key: value for key, value in row.items() if key != "epoch"})
    return FitResult(
        history=[row],
        best_epoch=1,
        best_value=row[metric],
        epochs_done=1,
        stopped_early=False,
        confusion=last["confusion"],
    )


def _fit(
    estimator: Estimator,
    data: FaceData,
    settings: TrainerSettings,
    input_size: int,
    folder: Path,
    seed: int,
    more_metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """Fit, score, write best.ckpt and last.ckpt; return the content of last.ckpt."""
    preprocess = preprocess_of(data, input_size, settings.normalise)
    on_device = to_device(data, CPU, estimator)
    indices = indices_of(data, TRAIN)
    start = time.perf_counter()
    batches = [
        estimator.inputs_of(*inputs)
        for inputs, _, _ in eval_batches(on_device, indices, preprocess, settings.eval_batch_size)
    ]
    estimator.fit(np.concatenate(batches), data.labels[indices], seed)
    fit_seconds = time.perf_counter() - start
    train, val = (
        evaluate(
            estimator, data, split, preprocess, batch_size=settings.eval_batch_size, device=CPU, on_device=on_device
        )
        for split in ("train", "val")
    )
    metrics = {
        "train_loss": train.loss,
        "train_acc": train.acc,
        **val_metrics(val, data, more_metrics),
        "epoch_seconds": time.perf_counter() - start,
        "images_per_second": len(indices) / fit_seconds,
    }
    best = {
        "format": FORMAT,
        "epoch": 1,
        "metrics": metrics,
        "network": estimator.state_dict(),
        "confusion": val.confusion,
        "class_names": list(data.class_names),
        "preprocess": asdict(preprocess),
    }
    confusion = val.confusion.tolist()
    last = {"format": FORMAT, "history": [{"epoch": 1, **metrics}], "best_epoch": 1, "confusion": confusion}
    write_predictions(folder, val, data, 1)
    save_checkpoints(folder, last, best)
    return last
