"""The filters of the first layer as pictures, sorted by decreasing norm.

Note: each filter has its own contrast, and gray is a weight of zero. A filter without structure may have learned
nothing; its norm, and so its place in the order, shows that.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import is_network
from ferhpo.reports.network.sheet import WIDTH, Sheet, photograph
from ferhpo.reports.panel import Panel
from ferhpo.text import plural

GAP = 8
WEAK = 0.1  # of the largest norm
BACKGROUND = "#bcd2ea"  # neither white nor black nor gray, so that the edges of filters are visible


def panel(subject: Subject, folder: Path, num_filters: int = 128) -> Panel | None:
    """Show the filters of the first convolution, or the weights of a first dense layer as images.

    None for a scikit-learn estimator, and for filters of a single pixel.
    """
    if not is_network(subject.network):
        return None
    first = first_filters(subject)
    if first is None:
        return None
    name, filters = first
    norms = np.sqrt((filters**2).sum((1, 2, 3)))
    order = np.argsort(-norms, kind="stable")[:num_filters]
    columns = 8 if len(order) <= 32 else 16
    side = (WIDTH - (columns + 1) * GAP) // columns
    sheet = Sheet(GAP + -(-len(order) // columns) * (side + GAP), BACKGROUND)
    for place, i in enumerate(order):
        left, top = (GAP + position * (side + GAP) for position in (place % columns, place // columns))
        largest = max(float(np.abs(filters[i]).max()), 1e-12)
        sheet.picture(photograph(127.5 + 127.5 * filters[i] / largest), left, top, side)
    path = folder / "filters.png"
    sheet.write(path)
    height, width = filters.shape[2:]
    color = "gray" if filters.shape[1] == 1 else "color"
    num_weak = int((norms < WEAK * norms.max()).sum())
    shown = "all" if len(order) == len(filters) else f"the {len(order)} strongest"
    return Panel(
        "First layer",
        f"{plural(len(filters), f'{color} filter')} of {height}x{width} pixels ({name}); shown are {shown}, by "
        "decreasing norm, each at its own contrast: light weights are positive, dark ones negative, gray ones zero. "
        f"{num_weak} have less than a tenth of the largest norm.",
        (path,),
    )


def first_filters(subject: Subject) -> tuple[str, NDArray[np.float32]] | None:
    """Return the name of the first layer and its weights [filters, C, h, w].

    None if they are single pixels, or if the first layer is neither a convolution nor a dense layer on all pixels.
    """
    network, preprocess = subject.network, subject.preprocess
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            weights = layer.weight.detach().float().cpu().numpy()
            return None if weights.shape[2] * weights.shape[3] == 1 else (name, weights)
        if isinstance(layer, nn.Linear):
            num_pixels = preprocess.channels * preprocess.input_size**2
            if layer.in_features < num_pixels:
                return None
            weights = (
                layer.weight.detach()[:, :num_pixels].float().cpu().numpy()
            )  # weights of features, if any, come after those of pixels
            shape = (preprocess.channels, preprocess.input_size, preprocess.input_size)
            return name, weights.reshape(len(weights), *shape)
    return None
