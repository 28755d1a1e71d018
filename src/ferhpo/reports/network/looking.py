"""Run a network for a report: from pixels to predictions and outputs of layers.

This is the only module in which reports call a network. Pictures are float32 pixels in 0..255, as in the data set, and
pass through the trial's own preprocessing, which is differentiable; a picture that a report generates is treated like
any image. Note: every function leaves the network unchanged: its modes, parameters, gradients and hooks.
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

BATCH_SIZE = 32  # the layer outputs of a wide network take 20 MB per image
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
ACTIVATION_LAYERS = tuple(ACTIVATIONS.values())
SHOWN_LAYERS = (nn.Conv2d, nn.Linear, *POOLS, *ACTIVATION_LAYERS)
CONTAINERS = re.compile(r"^((features|classifier|stages)\.)+")
T = TypeVar("T")


def is_network(network: nn.Module) -> bool:
    """Return whether a model has layers to look into; a scikit-learn estimator is a module without parameters."""
    return isinstance(network, nn.Module) and any(True for _ in network.parameters())


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters; the CPU if it has none."""
    return next(network.parameters(), torch.empty(0)).device


def pixels_of(subject: Subject, indices: Sequence[int]) -> Tensor:
    """Return a copy of images of the data set as float32 [N, C, H, W] in 0..255, on the network's device."""
    images = torch.from_numpy(subject.data.images[np.asarray(indices, np.intp)])
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.to(device_of(subject.network), torch.float32)


def logits_of(subject: Subject, pixels: Tensor, indices: Sequence[int] | None = None) -> Tensor:
    """Return the network's float32 logits [N, classes] in evaluation mode; differentiable by the pixels.

    indices: the images of the data set, for a network that also takes features (HOG); without indices, e.g. for
        generated pictures, it gets the mean features of the training images
    """
    inputs = [subject.preprocess(pixels.clone())]  # preprocessing works in place
    features = subject.data.features
    if getattr(subject.network, "num_image_features", 0):
        assert features is not None, "the data set was loaded without the features that the network takes"
        if indices is None:
            chosen = np.repeat(features[subject.data.split == TRAIN].mean(0, keepdims=True), len(pixels), 0)
        else:
            chosen = features[np.asarray(indices, np.intp)]
        inputs.append(torch.from_numpy(chosen).to(pixels.device))
    with evaluation_mode(subject.network):
        logits: Tensor = subject.network(*inputs)
    return logits.float()


def probabilities_of(subject: Subject, indices: Sequence[int]) -> Tensor:
    """Return the predicted probabilities float32 [N, classes] of images of the data set, on the CPU."""
    parts = [indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE)]
    with torch.no_grad():
        return torch.cat([logits_of(subject, pixels_of(subject, part), part).softmax(1).cpu() for part in parts])


def watch(
    subject: Subject,
    layers: Mapping[str, nn.Module],
    indices: Sequence[int],
    receive: Callable[[str, Tensor], None],
) -> None:
    """Run the network on images of the data set and call receive(name, output) with each layer's output.

    Runs without gradients, in batches of BATCH_SIZE. Note: `receive` must copy what it keeps, because the next layer
    may work in place.
    """
    for start in range(0, len(indices), BATCH_SIZE):
        part = indices[start : start + BATCH_SIZE]
        with torch.no_grad(), hooked(layers, receive):
            logits_of(subject, pixels_of(subject, part), part)


@contextmanager
def hooked(layers: Mapping[str, nn.Module], receive: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Within the block, call receive(name, output) after a layer has run; a tensor that it returns replaces the output.

    Outputs that are not tensors are ignored.
    """

    def hook(name: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        return lambda module, inputs, output: receive(name, output) if isinstance(output, Tensor) else None

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode within the block, then restore the mode of each module."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers to show, by name: convolutions, activations, pooling, dense layers.

    A block with a shortcut (in a residual network, a transformer, an EfficientNet) is a single stage.
    """
    layers: dict[str, nn.Module] = {}

    def descend(parent: nn.Module, prefix: str) -> None:
        for name, child in parent.named_children():
            if not list(child.children()):
                if isinstance(child, SHOWN_LAYERS):
                    layers[prefix + name] = child
            # A torchvision network is one child of a Backbone; its blocks are subclasses of Sequential
            elif type(child) is nn.Sequential or isinstance(parent, Backbone):
                descend(child, f"{prefix}{name}.")
            else:
                layers[prefix + name] = child

    descend(network, "")
    return layers


def short_name(name: str, layer: nn.Module) -> str:
    """Return a layer's name without the common containers; with its class if only a number is left."""
    short = CONTAINERS.sub("", name)
    return f"{type(layer).__name__} {short}" if short.isdecimal() else short


def as_maps(output: Tensor) -> Tensor:
    """Return a layer's output as maps [N, C, H, W] or, if it has no spatial dimensions, as values [N, D].

    The tokens [N, T, D] of a transformer are arranged as a square, in rows from the top left.
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
    """Yield (epoch, subject) for each epoch whose network is kept (trainer.keep_epochs) and for the best one, in order.

    At most `most` epochs, evenly spaced, always including the best one. Note: the predictions of every subject are
    those of the best epoch.
    """
    folder, best = subject.sweep.kept_folder(subject.trial.number), subject.trial.best_epoch or 0
    others = [epoch for epoch in kept_epochs(folder) if epoch != best]
    for epoch in sorted([best, *evenly_spread(others, most - 1)]):
        if epoch == best:
            yield epoch, subject
        else:
            network = copy.deepcopy(subject.network)
            load_network(epoch_file(folder, epoch), network)
            yield epoch, replace(subject, network=network)


def evenly_spread(values: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of the values, in their order, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most)]


def most_confident(subject: Subject, correct: bool) -> list[int]:
    """Return the most confident correct (or wrong) prediction of each class, as indices of validation images.

    A class without such an image is left out.
    """
    predictions = subject.predictions
    labels = subject.data.labels[predictions.indices]
    predicted, probability = predictions.probabilities.argmax(1), predictions.probabilities.max(1)
    chosen = []
    for label in range(subject.data.num_classes):
        candidates = np.flatnonzero((labels == label) & ((predicted == labels) == correct))
        if len(candidates):
            chosen.append(int(predictions.indices[candidates[probability[candidates].argmax()]]))
    return chosen


def check_images(subject: Subject, images: Sequence[int]) -> list[int]:
    """Return the images chosen by the user. Raises ValueError if one does not exist or is in the test split."""
    num_images = len(subject.data.images)
    missing = [index for index in images if not 0 <= index < num_images]
    if missing:
        raise ValueError(
            f"images has {', '.join(map(str, missing))}; the data set has {num_images:,} images, counted from 0"
        )
    tested = [index for index in images if subject.data.split[index] == TEST]
    if tested:
        raise ValueError(
            f"images has {', '.join(map(str, tested))} of the test split, which reports do not show; choose validation "
            "images"
        )
    return [int(index) for index in images]
