"""Where the network looks: gradient saliency and Grad-CAM of correct and wrong predictions.

Saliency shows which pixels the prediction is most sensitive to; Grad-CAM shows which regions support it. Note: both
explain the prediction, not the label.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import (
    BATCH_SIZE,
    POOLS,
    as_maps,
    check_images,
    hooked,
    is_network,
    logits_of,
    most_confident,
    pixels_of,
    probabilities_of,
    stages,
    watch,
)
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, heat, marked, photograph, shortened
from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLORS

GAP = 8
PAIR_GAP = 24
SIDE = (WIDTH - 2 * GAP - PAIR_GAP - 4 * GAP) // 6  # two images per row, three pictures of each


def panel(subject: Subject, folder: Path, images: Sequence[int] | None = None) -> Panel | None:
    """Show saliency and, if the network has maps, Grad-CAM of the predictions for some images.

    images: indices in the data set; by default the most confident correct and the most confident wrong prediction of
        each class on validation. Raises ValueError for images that do not exist or are in the test split.
    """
    if not is_network(subject.network):
        return None
    if images is None:
        groups = {"correct": most_confident(subject, correct=True), "wrong": most_confident(subject, correct=False)}
    else:
        groups = {"chosen": check_images(subject, images)}
    paths, num_empty = [], 0
    stage = last_maps(subject)
    for name, indices in groups.items():
        if indices:
            paths.append(folder / f"saliency_{name}.png")
            num_empty += _draw(subject, indices, stage, paths[-1])
    if not paths:
        return None
    text = "For each image, from the left: the input; the pixels that the prediction is most sensitive to (light)"
    if stage is None:
        text += ". The network has no maps, so there is no Grad-CAM."
    else:
        text += f"; the regions that support the prediction (orange; Grad-CAM at {stage})."
    if images is None:
        text += " First the most confident correct prediction of each class, then the most confident wrong one."
    if num_empty:
        num_images = sum(map(len, groups.values()))
        text += (
            f" In {num_empty} of {num_images} images Grad-CAM finds no region that supports the prediction. This "
            "happens when dense layers treat each position of a map separately."
        )
    return Panel("Where the network looks", text, tuple(paths))


def saliency(subject: Subject, indices: Sequence[int], targets: Tensor) -> Tensor:
    """Return the absolute derivative of each image's target logit with respect to its pixels, float32 [N, H, W].

    For color images it is the maximum over channels (Simonyan et al. 2014, arXiv 1312.6034, section 3.1).
    targets: int64 [N], classes
    """
    parts = []
    for start in range(0, len(indices), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        pixels = pixels_of(subject, indices[part]).requires_grad_()
        chosen = _target_logits(logits_of(subject, pixels, indices[part]), targets[part])
        (gradient,) = torch.autograd.grad(chosen.sum(), pixels)
        parts.append(gradient.abs().amax(1).cpu())
    return torch.cat(parts)


def grad_cam(subject: Subject, indices: Sequence[int], targets: Tensor, stage: str) -> Tensor:
    """Return the Grad-CAM of each image's target class at a stage, float32 [N, h, w], non-negative.

    Selvaraju et al. 2017 (arXiv 1610.02391). targets: int64 [N], classes; stage: a name of looking.stages
    """
    layers = {stage: stages(subject.network)[stage]}
    parts = []
    for start in range(0, len(indices), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        outputs: list[Tensor] = []

        def keep(name: str, output: Tensor, outputs: list[Tensor] = outputs) -> Tensor:
            outputs.append(output)
            return output.clone()  # the next layer may work in place

        pixels = pixels_of(subject, indices[part]).requires_grad_()  # so that frozen layers have gradients, too
        with hooked(layers, keep):
            logits = logits_of(subject, pixels, indices[part])
        (gradient,) = torch.autograd.grad(_target_logits(logits, targets[part]).sum(), outputs[-1])
        maps, gradients = as_maps(outputs[-1].detach()), as_maps(gradient)
        weights = gradients.mean((2, 3), keepdim=True)  # eq. 1
        parts.append((weights * maps).sum(1).relu().cpu())  # eq. 2
    return torch.cat(parts)


def last_maps(subject: Subject) -> str | None:
    """Return the last stage with spatial output that is not pooling, which would be coarser; None without one.

    In a plain network that is the activation after the last convolution; in a transformer the last block.
    """
    names = []
    layers = {name: layer for name, layer in stages(subject.network).items() if not isinstance(layer, POOLS)}

    def add_if_spatial(name: str, output: Tensor) -> None:
        if as_maps(output).ndim == 4:
            names.append(name)

    watch(subject, layers, subject.predictions.indices[:1].tolist(), add_if_spatial)
    return names[-1] if names else None


def _target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets.to(logits.device)[:, None])


def _draw(subject: Subject, indices: list[int], stage: str | None, path: Path) -> int:
    """Write a sheet; return how many images have an empty Grad-CAM."""
    probabilities = probabilities_of(subject, indices)
    predicted = probabilities.argmax(1)
    photographs = _window(subject, pixels_of(subject, indices)).cpu().numpy()
    gradients = _window(subject, saliency(subject, indices, predicted)[:, None])[:, 0].numpy()
    size = subject.preprocess.input_size
    cams = None
    if stage is not None:
        maps = grad_cam(subject, indices, predicted, stage)[:, None]
        cams = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)[:, 0].numpy()

    names = subject.data.class_names
    cell = SIDE + LINE + 2 * GAP
    sheet = Sheet(GAP + -(-len(indices) // 2) * cell)
    for place, index in enumerate(indices):
        left = GAP + place % 2 * (3 * SIDE + 2 * GAP + PAIR_GAP)
        top = GAP + place // 2 * cell
        label, prediction = subject.data.labels[index], int(predicted[place])
        photo = photograph(photographs[place])
        pictures = [photo, heat(gradients[place], 0, float(np.quantile(gradients[place], 0.99)))]
        if cams is not None:
            pictures.append(marked(photo, cams[place] / max(float(cams[place].max()), 1e-12), COLORS[1]))
        for column, picture in enumerate(pictures):
            sheet.picture(picture, left + column * (SIDE + GAP), top + LINE, SIDE)
        half = 1.5 * SIDE
        probability = f" {float(probabilities[place, prediction]):.0%}"
        title = shortened(names[prediction], half, suffix=probability, bold=True)
        if label == prediction:
            sheet.words(title, left, top, color=COLORS[2], bold=True)
        else:
            title += shortened(f", label {names[label]}", half, bold=True)
            sheet.words(title, left, top, color=COLORS[5], bold=True)
    sheet.write(path)
    return 0 if cams is None else int((cams.max((1, 2)) == 0).sum())


def _window(subject: Subject, pictures: Tensor) -> Tensor:
    """Return the center of the pictures, which the preprocessing passes to the network."""
    edge = (subject.preprocess.image_size - subject.preprocess.input_size) // 2
    size = subject.preprocess.input_size
    return pictures[..., edge : edge + size, edge : edge + size]
