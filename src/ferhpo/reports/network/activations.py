"""The activation maps of each layer for an image, from the first layer to the last, and over training.

A layer's row shows the channels that vary most over the images, all at the same contrast, so that a dark tile is an
inactive channel. Note: rows cannot be compared with each other, because each has its own contrast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from numpy.typing import NDArray
from torch import Tensor, nn

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import (
    ACTIVATION_LAYERS,
    BATCH_SIZE,
    as_maps,
    by_epoch,
    check_images,
    evenly_spread,
    is_network,
    most_confident,
    pixels_of,
    probabilities_of,
    short_name,
    stages,
    watch,
)
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, heat, photograph, shortened
from ferhpo.reports.panel import Panel

GAP = 4
MARGIN = 200  # pixels at the left, for the names of layers
NUM_CHANNELS = 10
SIDE = (WIDTH - MARGIN - NUM_CHANNELS * GAP) // NUM_CHANNELS
SMALL_SIDE, GROUP_GAP = 56, 12  # for maps over epochs
STRIP_WIDTH, STRIP = WIDTH - MARGIN - GAP, LINE + 4  # width and height for a layer without maps
PHOTO = 2 * SIDE + GAP
MOST_ROWS = 24
FEW_IMAGES = 16  # enough to select channels by
QUANTILE = 0.995  # the lightest color; scaled to the maximum, a single extreme pixel would darken all others


@dataclass(frozen=True)
class Row:
    """A layer to show: the shape of its output for one image, and the selected channels (all if it has no maps)."""

    name: str
    title: str
    shape: tuple[int, ...]
    channels: list[int]

    @property
    def has_maps(self) -> bool:
        return len(self.shape) == 3


def panel(
    subject: Subject, folder: Path, images: Sequence[int] | None = None, num_over_epochs: int = 1
) -> Panel | None:
    """Draw the maps of every layer for some images, and for the first num_over_epochs images also over kept epochs.

    images: indices in the data set; by default the most confident correct prediction of each class on validation
    None for a scikit-learn estimator, and if no image is given or none is predicted correctly.
    """
    if not is_network(subject.network):
        return None
    chosen = most_confident(subject, correct=True) if images is None else check_images(subject, images)
    if not chosen:
        return None
    rows, num_left_out = choose_rows(subject, chosen[:FEW_IMAGES])
    outputs = outputs_of(subject, rows, chosen)
    probabilities = probabilities_of(subject, chosen)
    names, photographs = subject.data.class_names, pixels_of(subject, chosen).cpu().numpy()
    titles = [
        f"label {names[subject.data.labels[index]]}, prediction {names[row.argmax()]} {float(row.max()):.0%}"
        for index, row in zip(chosen, probabilities, strict=True)
    ]
    paths = []
    for i, index in enumerate(chosen):
        paths.append(folder / f"activations_{index}.png")
        layers = {row.name: outputs[row.name][i] for row in rows}
        _draw(paths[-1], photograph(photographs[i]), titles[i], rows, layers, names)
    text = (
        f"The output of each layer for an image, the first layer on top: the {NUM_CHANNELS} channels that vary most "
        "over the images, light is strong; a layer without maps is a strip of all its values."
    )
    if num_left_out:
        text += f" {num_left_out} layers between these are not shown."

    over_epochs = chosen[:num_over_epochs]
    by_epochs = {epoch: outputs_of(kept, rows, over_epochs) for epoch, kept in by_epoch(subject, most=NUM_CHANNELS)}
    if len(by_epochs) > 1:
        for i, index in enumerate(over_epochs):
            paths.append(folder / f"activations_{index}_epochs.png")
            of_image = {epoch: {row.name: layers[row.name][i] for row in rows} for epoch, layers in by_epochs.items()}
            _draw_epochs(paths[-1], photograph(photographs[i]), f"{titles[i]}, over training", rows, of_image)
        epochs = ", ".join(map(str, by_epochs))
        text += f" The last figure shows some of these channels, side by side, at the epochs {epochs}."
    return Panel("Activation maps", text, tuple(paths))


def choose_rows(subject: Subject, images: Sequence[int]) -> tuple[list[Row], int]:
    """Return the layers to show, in the order of the forward pass, and how many are left out to save space.

    Of many layers, convolutions and dense layers that an activation follows are left out first; the others are then
    evenly spaced.
    """
    layers = stages(subject.network)
    outputs: dict[str, Tensor] = {}
    watch(subject, layers, images, lambda name, output: outputs.update({name: as_maps(output).cpu().clone()}))
    names = list(outputs)
    if len(names) > MOST_ROWS:
        follows = dict(zip(names, [*names[1:], names[-1]], strict=True))
        weighs = {name for name in names if isinstance(layers[name], nn.Conv2d | nn.Linear)}
        names = [n for n in names if n not in weighs or not isinstance(layers[follows[n]], ACTIVATION_LAYERS)]
    names = evenly_spread(names, MOST_ROWS)
    return [_row(name, layers[name], outputs[name]) for name in names], len(outputs) - len(names)


def _row(name: str, layer: nn.Module, output: Tensor) -> Row:
    channels = list(range(output.shape[1]))
    if output.ndim == 4:
        channels = output.std((0, 2, 3)).argsort(descending=True)[:NUM_CHANNELS].tolist()
    return Row(name, short_name(name, layer), tuple(output.shape[1:]), channels)


def outputs_of(subject: Subject, rows: Sequence[Row], images: Sequence[int]) -> dict[str, list[NDArray[np.float32]]]:
    """Return what to show of each row's layer, image by image: maps [channels, h, w] or values [D]."""
    layers, known = stages(subject.network), {row.name: row for row in rows}
    shown: dict[str, list[NDArray[np.float32]]] = {row.name: [] for row in rows}
    for start in range(0, len(images), BATCH_SIZE):
        batch: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor, batch: dict[str, Tensor] = batch) -> None:
            maps = as_maps(output)[:, known[name].channels]
            if maps.ndim == 4 and maps.shape[2] > SIDE:
                maps = F.adaptive_avg_pool2d(maps, SIDE)  # no larger than its tile
            batch[name] = maps.cpu().clone()

        watch(subject, {name: layers[name] for name in known}, images[start : start + BATCH_SIZE], keep)
        for name, maps in batch.items():
            shown[name] += list(maps.numpy())
    return shown


def _draw(
    path: Path,
    photo: NDArray[np.uint8],
    title: str,
    rows: Sequence[Row],
    layers: Mapping[str, NDArray[np.float32]],
    class_names: Sequence[str],
) -> None:
    top = PHOTO + 2 * GAP
    sheet = Sheet(top + sum((SIDE if row.has_maps else STRIP) + GAP for row in rows))
    sheet.picture(photo, MARGIN, GAP, PHOTO)
    sheet.words(title, MARGIN + PHOTO + 16, GAP, bold=True)
    for row in rows:
        _name_row(sheet, row, top)
        low, high = _contrast([layers[row.name]])
        if row.has_maps:
            for column, values in enumerate(layers[row.name]):
                sheet.picture(heat(values, low, high), MARGIN + column * (SIDE + GAP), top, SIDE)
            top += SIDE + GAP
        else:
            strip = layers[row.name]
            sheet.picture(heat(strip[None], low, high), MARGIN, top, STRIP_WIDTH, STRIP)
            if row is rows[-1] and len(strip) == len(class_names):
                _name_classes(sheet, strip, low, high, class_names, top)
            top += STRIP + GAP
    sheet.write(path)


def _draw_epochs(
    path: Path,
    photo: NDArray[np.uint8],
    title: str,
    rows: Sequence[Row],
    by_epochs: Mapping[int, Mapping[str, NDArray[np.float32]]],
) -> None:
    """Draw the maps of each channel over the epochs side by side; strips of values one below the other."""
    num_groups = (WIDTH - MARGIN) // (len(by_epochs) * (SMALL_SIDE + GAP) + GROUP_GAP)
    num_groups = min(max(num_groups, 1), NUM_CHANNELS)
    group = (WIDTH - MARGIN) // num_groups
    side = min((group - GROUP_GAP) // len(by_epochs) - GAP, SIDE)
    thin = STRIP // 2
    heights = [(side if row.has_maps else len(by_epochs) * (thin + 2)) + GAP for row in rows]
    top = PHOTO + 2 * GAP + LINE
    sheet = Sheet(top + sum(heights))
    sheet.picture(photo, MARGIN, GAP, PHOTO)
    sheet.words(title, MARGIN + PHOTO + 16, GAP, bold=True)
    for i in range(num_groups):
        for column, epoch in enumerate(by_epochs):
            middle = MARGIN + i * group + column * (side + GAP) + side / 2
            sheet.words(str(epoch), middle, top - LINE, align="center")
    sheet.words("epoch", GAP, top - LINE)
    for row, height in zip(rows, heights, strict=True):
        _name_row(sheet, row, top)
        low, high = _contrast(
            [layers[row.name][:num_groups] if row.has_maps else layers[row.name] for layers in by_epochs.values()]
        )
        for column, layers in enumerate(by_epochs.values()):
            if row.has_maps:
                for i, values in enumerate(layers[row.name][:num_groups]):
                    left = MARGIN + i * group + column * (side + GAP)
                    sheet.picture(heat(values, low, high), left, top, side)
            else:
                strip = heat(layers[row.name][None], low, high)
                sheet.picture(strip, MARGIN, top + column * (thin + 2), STRIP_WIDTH, thin)
        top += height
    sheet.write(path)


def _contrast(values: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the values of the darkest and of the lightest color."""
    low, high = np.quantile(np.concatenate([part.ravel() for part in values]), [1 - QUANTILE, QUANTILE]).tolist()
    return low, high


def _name_row(sheet: Sheet, row: Row, top: int) -> None:
    if row.has_maps:
        channels, height, width = row.shape
        sheet.words(f"{shortened(row.title, MARGIN - 3 * GAP)}\n{channels} × {height}×{width}", GAP, top)
    else:
        sheet.words(shortened(row.title, MARGIN - 3 * GAP, suffix=f"  {row.shape[0]}"), GAP, top)


def _name_classes(
    sheet: Sheet, strip: NDArray[np.float32], low: float, high: float, class_names: Sequence[str], top: int
) -> None:
    width = STRIP_WIDTH / len(strip)
    for i, (value, name) in enumerate(zip(strip, class_names, strict=True)):
        color = "black" if value > (low + high) / 2 else "white"
        sheet.words(shortened(name, int(width)), MARGIN + (i + 0.5) * width, top, align="center", color=color)
