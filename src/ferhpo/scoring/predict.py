"""Metrics of a network on a split, by torchmetrics. The one way in which anything in ferhpo is scored.

Always in float32, whatever precision training has: the numbers are those that the registered model gives. The loss is
plain cross-entropy, without label smoothing and class weights, so that trials that differ in them can be compared.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.scoring.device_data import DeviceData, eval_batches, indices_of, to_device
from ferhpo.scoring.preprocess import Preprocess


@dataclass(frozen=True)
class Evaluation:
    """Scores of a network on a split.

    loss, acc and macro_f1 (0..1); confusion int64 [classes, classes], rows are true classes; probabilities float32
    [N, classes] and labels int64 [N] of the images at `indices` of the data set.
    """

    loss: float
    acc: float
    macro_f1: float
    confusion: Tensor
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.intp]


def evaluate(
    network: nn.Module,
    data: FaceData,
    split: str,
    preprocess: Preprocess,
    *,
    batch_size: int = 512,
    device: torch.device | None = None,
    on_device: DeviceData | None = None,
) -> Evaluation:
    """Score a network on the split "train", "val" or "test" without augmentation.

    Left in the mode, training or evaluation, in which it came. Accuracy and F1 compare with the labels, the loss with
    the soft targets where the data has them. ValueError where the split has no images.
    """
    indices = indices_of(data, SPLIT_NAMES.index(split))
    device = device or next(network.parameters(), torch.empty(0)).device  # an estimator has no parameters of torch's
    on_device = on_device or to_device(data, device, network)
    was_training = network.training
    network.eval()
    logits, labels, loss = [], [], torch.zeros((), dtype=torch.float64)
    try:
        with torch.inference_mode():
            for inputs, batch_labels, soft in eval_batches(on_device, indices, preprocess, batch_size):
                output = network(*inputs).float()
                targets = batch_labels if soft is None else soft
                loss = loss.to(device) + F.cross_entropy(output, targets, reduction="sum").double()
                logits.append(output)
                labels.append(batch_labels)
    finally:
        network.train(was_training)
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    predicted = all_logits.argmax(1)
    confusion = confusion_of(predicted, all_labels, data.num_classes)
    return Evaluation(
        loss=float(loss) / len(indices),
        acc=accuracy(confusion),
        macro_f1=float(multiclass_f1_score(predicted, all_labels, data.num_classes, "macro", validate_args=False)),
        confusion=confusion,
        probabilities=all_logits.softmax(1).cpu().numpy(),
        labels=all_labels.cpu().numpy(),
        indices=indices,
    )


def confusion_of(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return int64 [classes, classes] on the CPU, rows are true classes, from class indices int64 [N]."""
    return multiclass_confusion_matrix(predicted, labels, num_classes, validate_args=False).cpu()


def accuracy(confusion: Tensor) -> float:
    """Return the share of images on the diagonal; exact, where torchmetrics rounds to float32."""
    return int(confusion.diagonal().sum()) / int(confusion.sum())
