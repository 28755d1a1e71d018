"""Where in the image the network looks: gradient saliency and Grad-CAM, for right and for wrong answers.

Saliency says which pixels would change the answer most if they changed; Grad-CAM, which places spoke for it. Both
explain the answer that the network gave, not the label.
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
    pixels_of,
    probabilities_of,
    stages,
    surest,
    watch,
)
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, heat, marked, photograph, shortened
from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLOURS

GAP = 8
PAIR_GAP = 24
SIDE = (WIDTH - 2 * GAP - PAIR_GAP - 4 * GAP) // 6  # two images a row, three pictures of each


def panel(subject: Subject, folder: Path, images: Sequence[int] | None = None) -> Panel | None:
    """Show saliency and, where the network has maps, Grad-CAM of the answers on some images.

    images: indices in the data set; by default for each class the surest right and the surest wrong answer of
    validation. ValueError for images that are not there or stand in the test split.
    """
    if not is_network(subject.network):
        return None
    if images is None:
        groups = {"right": surest(subject, right=True), "wrong": surest(subject, right=False)}
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
    text = "Of each image, from the left: what the network sees; the pixels that would change its answer most (light)"
    if stage is None:
        text += ". The network has no maps, so there is no Grad-CAM."
    else:
        text += f"; the places that spoke for its answer (orange; Grad-CAM at {stage})."
    if images is None:
        text += " First the surest right answer for each class, then the surest wrong one."
    if num_empty:
        num_images = sum(map(len, groups.values()))
        text += (
            f" In {num_empty} of {num_images} images Grad-CAM finds no place that spoke for the answer, as may happen "
            "where dense layers read every place of a map apart."
        )
    return Panel("Where the network looks", text, tuple(paths))


def saliency(subject: Subject, indices: Sequence[int], targets: Tensor) -> Tensor:
    """Return the absolute derivative of each image's target logit by its pixels, float32 [N, H, W].

    Of a pixel's colours the largest counts (Simonyan et al. 2014, arXiv 1312.6034, section 3.1).
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
    """Return the Grad-CAM of each image's target class at a stage, float32 [N, h, w], not below 0.

    Selvaraju et al. 2017 (arXiv 1610.02391). targets: int64 [N], classes; stage: a name of looking.stages
    """
    layers = {stage: stages(subject.network)[stage]}
    parts = []
    for start in range(0, len(indices), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        outputs: list[Tensor] = []

        def keep(name: str, output: Tensor, outputs: list[Tensor] = outputs) -> Tensor:
            outputs.append(output)
            return output.clone()  # the next layer may write into what it gets

        pixels = pixels_of(subject, indices[part]).requires_grad_()  # so that all layers have gradients, frozen or not
        with hooked(layers, keep):
            logits = logits_of(subject, pixels, indices[part])
        (gradient,) = torch.autograd.grad(_target_logits(logits, targets[part]).sum(), outputs[-1])
        maps, gradients = as_maps(outputs[-1].detach()), as_maps(gradient)
        weights = gradients.mean((2, 3), keepdim=True)  # eq. 1
        parts.append((weights * maps).sum(1).relu().cpu())  # eq. 2
    return torch.cat(parts)


def last_maps(subject: Subject) -> str | None:
    """Return the last stage whose output has a place in the image, before pooling makes it coarser; None if none has.

    In a plain network that is the last convolution after its activation; in a transformer its last block.
    """
    found = []
    layers = {name: layer for name, layer in stages(subject.network).items() if not isinstance(layer, POOLS)}

    def seen(name: str, output: Tensor) -> None:
        if as_maps(output).ndim == 4:
            found.append(name)

    watch(subject, layers, subject.answers.indices[:1].tolist(), seen)
    return found[-1] if found else None


def _target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets.to(logits.device)[:, None])


def _draw(subject: Subject, indices: list[int], stage: str | None, path: Path) -> int:
    """Write a sheet; return how many images have an empty Grad-CAM."""
    probabilities = probabilities_of(subject, indices)
    answers = probabilities.argmax(1)
    photographs = _window(subject, pixels_of(subject, indices)).cpu().numpy()
    gradients = _window(subject, saliency(subject, indices, answers)[:, None])[:, 0].numpy()
    size = subject.preprocess.input_size
    cams = None
    if stage is not None:
        maps = grad_cam(subject, indices, answers, stage)[:, None]
        cams = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)[:, 0].numpy()

    names = subject.data.class_names
    cell = SIDE + LINE + 2 * GAP
    sheet = Sheet(GAP + -(-len(indices) // 2) * cell)
    for place, index in enumerate(indices):
        left = GAP + place % 2 * (3 * SIDE + 2 * GAP + PAIR_GAP)
        top = GAP + place // 2 * cell
        label, answer = subject.data.labels[index], int(answers[place])
        photo = photograph(photographs[place])
        pictures = [photo, heat(gradients[place], 0, float(np.quantile(gradients[place], 0.99)))]
        if cams is not None:
            pictures.append(marked(photo, cams[place] / max(float(cams[place].max()), 1e-12), COLOURS[1]))
        for column, picture in enumerate(pictures):
            sheet.picture(picture, left + column * (SIDE + GAP), top + LINE, SIDE)
        half = 1.5 * SIDE
        said = shortened(names[answer], half, suffix=f" {float(probabilities[place, answer]):.0%}", bold=True)
        if label == answer:
            sheet.words(said, left, top, colour=COLOURS[2], bold=True)
        else:
            meant = shortened(f", label {names[label]}", half, bold=True)
            sheet.words(said + meant, left, top, colour=COLOURS[5], bold=True)
    sheet.write(path)
    return 0 if cams is None else int((cams.max((1, 2)) == 0).sum())


def _window(subject: Subject, pictures: Tensor) -> Tensor:
    """The middle of the image, which is what the network sees."""
    edge = (subject.preprocess.image_size - subject.preprocess.input_size) // 2
    size = subject.preprocess.input_size
    return pictures[..., edge : edge + size, edge : edge + size]
