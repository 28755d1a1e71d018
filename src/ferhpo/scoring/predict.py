"""The predictions and metrics of a network on a split; everything in ferhpo is scored by this module.

Note: networks are scored in float32, whatever the precision of training, so that the scores are those of the registered
model. The loss is plain cross-entropy, without label smoothing and class weights, so that trials that differ in these
can be compared.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from torch import Tensor, nn

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.errors import is_out_of_memory
from ferhpo.scoring.device_data import DeviceData, eval_batches, indices_of, release_gpu_memory, to_device
from ferhpo.scoring.exact import exact_float32
from ferhpo.scoring.preprocess import Preprocess

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network on a split.

    acc, macro_f1: from 0 to 1
    confusion: int64 [classes, classes], rows are true classes
    probabilities, labels: float32 [N, classes] and int64 [N], of the images at `indices` of the data set
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
    """Score a network on the split "train", "val" or "test", without augmentation.

    The network keeps its mode, training or evaluation. Accuracy and F1 compare predictions with labels; the loss uses
    the soft targets if the data has them. If memory runs out, batches are halved.
    Raises ValueError if the split has no images.
    """
    indices = indices_of(data, SPLIT_NAMES.index(split))
    device = device or next(network.parameters(), torch.empty(0)).device  # an estimator has no parameters
    on_device = on_device or to_device(data, device, network)
    was_training = network.training
    network.eval()
    try:
        all_logits, all_labels, loss = with_smaller_batches(
            lambda size: logits_of(network, on_device, indices, preprocess, size), batch_size
        )
    finally:
        network.train(was_training)
    predicted = all_logits.argmax(1)
    confusion = confusion_of(predicted, all_labels, data.num_classes)
    return Evaluation(
        loss=float(loss) / len(indices),
        acc=accuracy(confusion),
        macro_f1=macro_f1(predicted, all_labels, data.num_classes),
        confusion=confusion,
        probabilities=all_logits.softmax(1).cpu().numpy(),
        labels=all_labels.cpu().numpy(),
        indices=indices,
    )


def logits_of(
    network: nn.Module, on_device: DeviceData, indices: NDArray[np.intp], preprocess: Preprocess, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits float32 [N, classes], labels int64 [N] and the sum of the losses."""
    logits, labels = [], []
    loss = torch.zeros((), dtype=torch.float64, device=on_device.labels.device)
    with torch.inference_mode(), exact_float32():
        for inputs, batch_labels, soft in eval_batches(on_device, indices, preprocess, batch_size):
            output = network(*inputs).float()
            targets = batch_labels if soft is None else soft
            loss = loss + F.cross_entropy(output, targets, reduction="sum").double()
            logits.append(output)
            labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels), loss


def with_smaller_batches(run: Callable[[int], T], batch_size: int) -> T:
    """Return run(batch_size), with half the batch size as often as memory runs out.

    Batches of evaluation are larger than those of training, and only a matter of speed.
    """
    while True:
        try:
            return run(batch_size)
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold tensors
        batch_size //= 2
        release_gpu_memory()


def confusion_of(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the confusion matrix, int64 [classes, classes] on the CPU, of class indices int64 [N]; rows are true."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix  # which imports for seconds

    return multiclass_confusion_matrix(predicted, labels, num_classes, validate_args=False).cpu()


def macro_f1(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Return the mean F1 of the classes, of class indices int64 [N]."""
    from torchmetrics.functional.classification import multiclass_f1_score

    return float(multiclass_f1_score(predicted, labels, num_classes, "macro", validate_args=False))


def accuracy(confusion: Tensor) -> float:
    """Return the fraction of images on the diagonal; exact, whereas torchmetrics rounds to float32."""
    return int(confusion.diagonal().sum()) / int(confusion.sum())
