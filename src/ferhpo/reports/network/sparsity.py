"""The share of a network's activations that are zero, by layer, and over training if epochs were kept.

Alizadeh and Fazel 2016 (arXiv 1704.06756) report it for their networks. Note: only activation layers count. A ReLU
outputs zeros but a GELU hardly ever does, so "zero" means at most a hundredth of the layer's root mean square.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from torch import Tensor

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import ACTIVATION_LAYERS, by_epoch, is_network, short_name, watch
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import SEQUENTIAL, figure

NEAR_ZERO = 0.01  # relative to the root mean square
FEW_NAMES, MOST_NAMES = 6, 30  # layer names on the axis: horizontal, and at all


def panel(subject: Subject, folder: Path, num_images: int = 256) -> Panel | None:
    """Draw the share of zeros of each activation layer on the first num_images of validation, one line per epoch.

    None for a scikit-learn estimator and for a network without activation layers.
    """
    if not is_network(subject.network):
        return None
    indices = subject.predictions.indices[:num_images].tolist()
    epochs = {epoch: sparsity(at_epoch, indices) for epoch, at_epoch in by_epoch(subject)}
    layers = list(next(iter(epochs.values())))
    if not layers:
        return None
    rows = [
        {"layer": layer, **{f"epoch {epoch}": f"{shares[layer]:.4f}" for epoch, shares in epochs.items()}}
        for layer in layers
    ]
    table = write_table(folder / "sparsity.csv", rows)
    path = folder / "sparsity.svg"
    _draw(path, layers, epochs)
    last = epochs[max(epochs)]
    most, least = max(layers, key=last.__getitem__), min(layers, key=last.__getitem__)
    text = (
        f"The share of activations that are zero or nearly zero, on {len(indices)} validation images. At epoch "
        f"{max(epochs)} it is lowest in {least} ({last[least]:.0%}) and highest in {most} ({last[most]:.0%})."
    )
    if len(epochs) > 1:
        first = epochs[min(epochs)]
        mean = [float(np.mean(list(shares.values()))) for shares in (first, last)]
        text += f" The mean over layers changed from {mean[0]:.0%} at epoch {min(epochs)} to {mean[1]:.0%}."
    return Panel("Sparsity of activations", text, (path,), (table,))


def sparsity(subject: Subject, indices: list[int]) -> dict[str, float]:
    """Return the share of zeros, 0..1, among the values of each activation layer, in the order of the forward pass."""
    counts: dict[str, list[int]] = {}
    modules = subject.network.named_modules()
    layers = {short_name(name, layer): layer for name, layer in modules if isinstance(layer, ACTIVATION_LAYERS)}

    def count(name: str, output: Tensor) -> None:
        limit = NEAR_ZERO * output.square().mean().sqrt()
        zeros, values = counts.setdefault(name, [0, 0])
        counts[name] = [zeros + int((output.abs() <= limit).sum()), values + output.numel()]

    watch(subject, layers, indices, count)
    return {name: zeros / values for name, (zeros, values) in counts.items()}


def _draw(path: Path, layers: list[str], epochs: dict[int, dict[str, float]]) -> None:
    with figure(path, 7, 4.5 if FEW_NAMES < len(layers) <= MOST_NAMES else 3.5) as drawn:
        axes = drawn.subplots()
        shades = mpl.colormaps[SEQUENTIAL](np.linspace(0.85, 0, len(epochs))) if len(epochs) > 1 else ["#0072B2"]
        places = range(1, len(layers) + 1)
        for (epoch, shares), shade in zip(epochs.items(), shades, strict=True):
            values = [shares[layer] for layer in layers]
            axes.plot(places, values, "o-", color=shade, markersize=4, label=f"epoch {epoch}")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes.set_ylabel("zeros")
        if len(layers) <= MOST_NAMES:
            axes.set_xticks(places, layers, rotation=0 if len(layers) <= FEW_NAMES else 90)
        else:
            axes.set_xlabel("activation layer, from the first to the last")
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
