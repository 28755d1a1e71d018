"""DeepDream: pictures that maximize the logit of each class, by gradient ascent.

Mordvintsev, Olah and Tyka, "Inceptionism: Going deeper into neural networks", 2015. There, an octave is the picture at
another size. Our networks take one size only, so an octave is the size of the change, which is upsampled and added to
the picture: large shapes first, details last. Note: a picture shows what raises the logit, which need not be a face.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor

from ferhpo.data.dataset import TRAIN
from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import device_of, is_network, logits_of
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, photograph, shortened
from ferhpo.reports.panel import Panel

GAP = 8
STARTS = ("noise", "mean face")
MOST_COLUMNS = 8
SMALLEST_SIDE = 8  # pixels of the smallest octave
MEAN_OF_MOST = 2000  # images in the mean face


@dataclass(frozen=True)
class DreamSettings:
    """Settings of DeepDream; pixels are in 0..255.

    iterations: steps in each octave; step: mean change of a pixel per step
    octaves, octave_scale: number of sizes, and the ratio of consecutive ones; the last is the image's size
    jitter: maximum random shift of the picture in each step, in pixels, so that no single pixel dominates
    total_variation: weight of the direction that smooths the change, relative to the one that raises the logit
    noise: standard deviation of the noise around mid-gray
    """

    iterations: int = 20
    step: float = 3.0
    octaves: int = 3
    octave_scale: float = 1.6
    jitter: int = 2
    total_variation: float = 0.3
    noise: float = 10.0

    def __post_init__(self) -> None:
        for key in ("iterations", "octaves"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be 1 or more")
        for key in ("jitter", "total_variation", "noise"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be 0 or more")
        if self.step <= 0:
            raise ValueError(f"step is {self.step}; it must be above 0")
        if self.octave_scale < 1:
            raise ValueError(f"octave_scale is {self.octave_scale}; it must be 1 or more")


def panel(
    subject: Subject,
    folder: Path,
    starts: Sequence[str] = STARTS,
    seed: int = 0,
    settings: DreamSettings | None = None,
) -> Panel | None:
    """Draw a picture of each class from each start, "noise" or "mean face"; None for a scikit-learn estimator."""
    if not is_network(subject.network):
        return None
    names = subject.data.class_names
    targets = torch.arange(len(names)).repeat(len(starts))
    initial = torch.cat([start_pixels(subject, start, len(names), seed, settings) for start in starts])
    dreams = dream(subject, initial, targets, seed, settings)
    with torch.no_grad():
        before, after = logits_of(subject, initial).cpu(), logits_of(subject, dreams).cpu()
    raised = (after - before).gather(1, targets[:, None])[:, 0]
    probabilities = after.softmax(1).gather(1, targets[:, None])[:, 0]

    path = folder / "deepdream.png"
    words = [f"{float(p):.0%} {float(rise):+.2g}" for p, rise in zip(probabilities, raised, strict=True)]
    _draw(path, initial, dreams, starts, names, words)
    return Panel(
        "DeepDream",
        "Pictures made by gradient ascent on the logit of one class each, starting from the picture at the left. Below "
        "each: the probability of the class at the end, and the increase of its logit. "
        f"{int((after.argmax(1) == targets).sum())} of {len(targets)} are predicted as their class.",
        (path,),
    )


def dream(
    subject: Subject, pixels: Tensor, targets: Tensor, seed: int = 0, settings: DreamSettings | None = None
) -> Tensor:
    """Return pictures float32 [N, C, H, W] in 0..255 whose target logits are higher than those of `pixels`.

    pixels: the initial pictures, float32 [N, C, H, W] in 0..255; targets: int64 [N], classes
    The result depends only on the arguments.
    """
    settings = settings or DreamSettings()
    rng = np.random.default_rng(seed)
    size = pixels.shape[2]
    targets = targets.to(pixels.device)
    initial = pixels
    for octave in reversed(range(settings.octaves)):
        side = max(round(size / settings.octave_scale**octave), min(SMALLEST_SIDE, size))
        change = torch.zeros(*pixels.shape[:2], side, side, device=pixels.device, requires_grad=True)
        for _ in range(settings.iterations):
            shift = rng.integers(-settings.jitter, settings.jitter + 1, 2).tolist()
            picture = (initial + _enlarged(change, size)).clamp(0, 255)
            logit = logits_of(subject, picture.roll(shift, (2, 3))).gather(1, targets[:, None]).sum()
            (upwards,) = torch.autograd.grad(logit, change)
            (rougher,) = torch.autograd.grad(total_variation(initial + _enlarged(change, size) - pixels).sum(), change)
            with torch.no_grad():  # both directions normalized per picture, like the steps in the authors' code
                change += settings.step * (_scaled(upwards) - settings.total_variation * _scaled(rougher))
        initial = (initial + _enlarged(change.detach(), size)).clamp(0, 255)
    return initial


def total_variation(pictures: Tensor) -> Tensor:
    """Return the mean absolute difference of neighboring pixels of each picture [N, C, H, W] (Rudin et al. 1992)."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean((1, 2, 3))
    across = (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).abs().mean((1, 2, 3))
    return down + across


def start_pixels(
    subject: Subject, start: str, num: int, seed: int = 0, settings: DreamSettings | None = None
) -> Tensor:
    """Return num equal pictures float32 [num, C, H, W] in 0..255: "noise" around mid-gray, or the "mean face"."""
    data, device = subject.data, device_of(subject.network)
    if start == "noise":
        deviation = (settings or DreamSettings()).noise
        shape = (data.channels, data.image_size, data.image_size)
        picture = np.random.default_rng(seed).normal(127.5, deviation, shape).clip(0, 255)
    elif start == "mean face":
        chosen = np.flatnonzero(data.split == TRAIN)[:MEAN_OF_MOST]
        picture = data.images[chosen].mean(0)
        picture = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    else:
        raise ValueError(f"starts has {start!r}; it may contain {' and '.join(STARTS)}")
    return torch.from_numpy(picture.astype(np.float32)).to(device).expand(num, -1, -1, -1).contiguous()


def _draw(
    path: Path, initial: Tensor, dreams: Tensor, starts: Sequence[str], names: Sequence[str], words: Sequence[str]
) -> None:
    """Draw a row for each start, with the start at the left, and a column for each class; many classes in bands.

    initial, dreams, words: ordered by start, then by class
    """
    num_columns = min(len(names), MOST_COLUMNS)
    side = (WIDTH - GAP) // (num_columns + 1) - GAP
    cell = side + LINE + GAP
    band = LINE + len(starts) * cell + GAP
    sheet = Sheet(-(-len(names) // num_columns) * band)
    for i, text in enumerate(words):
        row, label = divmod(i, len(names))
        bands, column = divmod(label, num_columns)
        left, top = GAP + (column + 1) * (side + GAP), bands * band + LINE + row * cell
        sheet.picture(photograph(dreams[i].cpu().numpy()), left, top, side)
        sheet.words(text, left + side / 2, top + side, align="center")
        if row == 0:
            sheet.words(
                shortened(names[label], side, bold=True), left + side / 2, top - LINE, align="center", bold=True
            )
        if column == 0:
            sheet.picture(photograph(initial[i].cpu().numpy()), GAP, top, side)
            sheet.words(starts[row], GAP + side / 2, top + side, align="center")
    sheet.write(path)


def _scaled(gradients: Tensor) -> Tensor:
    return gradients / gradients.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)


def _enlarged(pictures: Tensor, size: int) -> Tensor:
    if pictures.shape[2] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
