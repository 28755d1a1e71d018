"""What the first layer looks for: its filters as pictures, the strongest first.

Each filter is shown at its own contrast, grey is a weight of zero. A filter without any structure may be one that
learned nothing: its norm, by which they are sorted, tells.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import is_network
from ferhpo.reports.network.sheet import WIDTH, Sheet, photograph
from ferhpo.reports.panel import Panel

GAP = 8
WEAK = 0.1  # of the largest norm
GROUND = "#bcd2ea"  # neither white nor black, so that the edge of a filter shows


def panel(subject: Subject, folder: Path, num_filters: int = 128) -> Panel | None:
    """Show the filters of the first convolution, or the weights of a first dense layer as images.

    None for an estimator, and for filters of a single pixel, which have no picture.
    """
    if not is_network(subject.network):
        return None
    found = first_filters(subject)
    if found is None:
        return None
    name, filters = found
    norms = np.sqrt((filters**2).sum((1, 2, 3)))
    order = np.argsort(-norms, kind="stable")[:num_filters]
    columns = 8 if len(order) <= 32 else 16
    side = (WIDTH - (columns + 1) * GAP) // columns
    sheet = Sheet(GAP + -(-len(order) // columns) * (side + GAP), GROUND)
    for place, i in enumerate(order):
        left, top = (GAP + position * (side + GAP) for position in (place % columns, place // columns))
        largest = max(float(np.abs(filters[i]).max()), 1e-12)
        sheet.picture(photograph(127.5 + 127.5 * filters[i] / largest), left, top, side)
    path = folder / "filters.png"
    sheet.write(path)
    height, width = filters.shape[2:]
    colours = "grey" if filters.shape[1] == 1 else "colour"
    num_weak = int((norms < WEAK * norms.max()).sum())
    shown = "all" if len(order) == len(filters) else f"the {len(order)} strongest"
    return Panel(
        "First layer",
        f"{len(filters)} {colours} filters of {height}x{width} pixels ({name}); shown are {shown}, by falling norm, "
        "each at its own contrast: light weighs for, dark against, mid-grey not at all. "
        f"{num_weak} have less than a tenth of the largest norm.",
        (path,),
    )


def first_filters(subject: Subject) -> tuple[str, NDArray[np.float32]] | None:
    """Return the name of the first layer and its weights [filters, C, h, w].

    None where they are single pixels, or the first layer is neither a convolution nor a dense one on all pixels.
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
            weights = layer.weight.detach()[:, :num_pixels].float().cpu().numpy()  # features, if any, come behind
            shape = (preprocess.channels, preprocess.input_size, preprocess.input_size)
            return name, weights.reshape(len(weights), *shape)
    return None
