"""How reports look into a network: pixels in, answers and the outputs of its layers out.

The one place where a report calls a network. Pictures are float32 pixels in 0..255, as the data set has them, and go
through the trial's own preprocessing, which gradients pass too; so a picture that a report draws is seen as any other.
A network comes out of here as it went in: its mode, parameters, gradients and hooks.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ferhpo.data.dataset import TEST, TRAIN
from ferhpo.evaluation.load import Subject
from ferhpo.models.backbone import Backbone
from ferhpo.models.layers import ACTIVATIONS
from ferhpo.training.checkpoint import epoch_file, kept_epochs, load_network

BATCH_SIZE = 32  # images at once: the layers of a wide network take 20 MB an image
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
ACTIVATION_LAYERS = tuple(ACTIVATIONS.values())
SHOWN_LAYERS = (nn.Conv2d, nn.Linear, *POOLS, *ACTIVATION_LAYERS)
CONTAINERS = re.compile(r"^((features|classifier|stages)\.)+")
T = TypeVar("T")


def is_network(network: nn.Module) -> bool:
    """Whether there is anything to look into: an estimator of scikit-learn's is a module without parameters."""
    return isinstance(network, nn.Module) and any(True for _ in network.parameters())


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters; the CPU where it has none."""
    return next(network.parameters(), torch.empty(0)).device


def pixels_of(subject: Subject, indices: Sequence[int]) -> Tensor:
    """Return a copy of images of the data set as float32 [N, C, H, W] in 0..255, on the network's device."""
    images = torch.from_numpy(subject.data.images[np.asarray(indices, np.intp)])
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.to(device_of(subject.network), torch.float32)


def logits_of(subject: Subject, pixels: Tensor, indices: Sequence[int] | None = None) -> Tensor:
    """Return the network's float32 logits [N, classes] in evaluation mode; differentiable by the pixels.

    indices: the images of the data set whose features (HOG) the network sees too, if it takes any; without them, as
    for pictures that are in no data set, it sees the mean features of the training images
    """
    inputs = [subject.preprocess(pixels.clone())]  # preprocessing writes into what it is given
    features = subject.data.features
    if getattr(subject.network, "num_image_features", 0):
        assert features is not None, "the data set was read with the features that its network takes"
        if indices is None:
            chosen = np.repeat(features[subject.data.split == TRAIN].mean(0, keepdims=True), len(pixels), 0)
        else:
            chosen = features[np.asarray(indices, np.intp)]
        inputs.append(torch.from_numpy(chosen).to(pixels.device))
    with evaluation_mode(subject.network):
        logits: Tensor = subject.network(*inputs)
    return logits.float()


def probabilities_of(subject: Subject, indices: Sequence[int]) -> Tensor:
    """Return the network's answers float32 [N, classes] on images of the data set, on the CPU."""
    parts = [indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE)]
    with torch.no_grad():
        return torch.cat([logits_of(subject, pixels_of(subject, part), part).softmax(1).cpu() for part in parts])


def watch(
    subject: Subject,
    layers: Mapping[str, nn.Module],
    indices: Sequence[int],
    seen: Callable[[str, Tensor], None],
) -> None:
    """Run the network on images of the data set, BATCH_SIZE at once; call seen(name, output) for each layer's output.

    Without gradients. `seen` must copy what it keeps: the next layer may write into the output.
    """
    for start in range(0, len(indices), BATCH_SIZE):
        part = indices[start : start + BATCH_SIZE]
        with torch.no_grad(), hooked(layers, seen):
            logits_of(subject, pixels_of(subject, part), part)


@contextmanager
def hooked(layers: Mapping[str, nn.Module], seen: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call seen(name, output) when a layer has run, within the block; a tensor that it returns replaces the output.

    Outputs that are no tensor are passed over.
    """

    def hook(name: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        return lambda module, inputs, output: seen(name, output) if isinstance(output, Tensor) else None

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode for the block; each module then has its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that are worth a look, by name: convolutions, activations, pooling, dense layers.

    A block with a shortcut (of a residual network, a transformer, an EfficientNet) is one stage, its sum.
    """
    found: dict[str, nn.Module] = {}

    def descend(parent: nn.Module, prefix: str) -> None:
        for name, child in parent.named_children():
            if not list(child.children()):
                if isinstance(child, SHOWN_LAYERS):
                    found[prefix + name] = child
            # torchvision's whole network is one child of ours; its blocks are subclasses of Sequential
            elif type(child) is nn.Sequential or isinstance(parent, Backbone):
                descend(child, f"{prefix}{name}.")
            else:
                found[prefix + name] = child

    descend(network, "")
    return found


def short_name(name: str, layer: nn.Module) -> str:
    """Return a layer's name without the containers that all layers share; with its class where a number is left."""
    short = CONTAINERS.sub("", name)
    return f"{type(layer).__name__} {short}" if short.isdecimal() else short


def as_maps(output: Tensor) -> Tensor:
    """Return a layer's output as maps [N, C, H, W] or, where it has no place in the image, as values [N, D].

    The tokens [N, T, D] of a transformer stand in rows from the top left, as a square.
    """
    if output.ndim == 3:
        side = math.isqrt(output.shape[1])
        if side > 1 and side * side == output.shape[1]:
            return output.transpose(1, 2).reshape(len(output), -1, side, side)
        return output.mean(1)
    if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
        return output
    return output.flatten(1)


def by_epoch(subject: Subject, most: int = 10) -> Iterator[tuple[int, Subject]]:
    """Yield the epochs whose networks are kept (trainer.keep_epochs) and the best one, in order, each as a subject.

    Of more than `most` epochs those that are evenly spread, the best one always. The answers of all of them are those
    of the best epoch.
    """
    folder, best = subject.record.kept_folder(subject.trial.number), subject.trial.best_epoch or 0
    others = [epoch for epoch in kept_epochs(folder) if epoch != best]
    for epoch in sorted([best, *evenly_spread(others, most - 1)]):
        if epoch == best:
            yield epoch, subject
        else:
            network = copy.deepcopy(subject.network)
            load_network(epoch_file(folder, epoch), network)
            yield epoch, replace(subject, network=network)


def evenly_spread(values: Sequence[T], most: int) -> list[T]:
    """Return `most` of the values, in their order, the first and the last among them; all where there are no more."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most)]


def surest(subject: Subject, right: bool) -> list[int]:
    """Return for each class the image of validation, by its index in the data set, that is answered rightly (or
    wrongly) with the highest probability; a class without such an image is left out."""
    answers, labels = subject.answers, subject.data.labels[subject.answers.indices]
    predicted, probability = answers.probabilities.argmax(1), answers.probabilities.max(1)
    chosen = []
    for label in range(subject.data.num_classes):
        candidates = np.flatnonzero((labels == label) & ((predicted == labels) == right))
        if len(candidates):
            chosen.append(int(answers.indices[candidates[probability[candidates].argmax()]]))
    return chosen


def check_images(subject: Subject, images: Sequence[int]) -> list[int]:
    """Return the images that a user chose. ValueError for one that is not there or stands in the test split."""
    num_images = len(subject.data.images)
    wrong = [index for index in images if not 0 <= index < num_images]
    if wrong:
        raise ValueError(
            f"images has {', '.join(map(str, wrong))}; the data set has {num_images:,} images, counted from 0"
        )
    tested = [index for index in images if subject.data.split[index] == TEST]
    if tested:
        raise ValueError(
            f"images has {', '.join(map(str, tested))} of the test split, which stays unseen; take images of validation"
        )
    return [int(index) for index in images]
