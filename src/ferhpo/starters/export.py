"""An export of your own: a function that writes files beside an exported model.

It is called for every model that goes to the registry; the files are artifacts of the MLflow model, in
artifacts/model/exports/<name>. An error in it is a warning of the sweep, and the model is registered without the files.
"""

from pathlib import Path

import torch
from torch import Tensor, nn


def starter(network: nn.Module, images: Tensor, folder: Path) -> None:
    """Write the network as a torch.export program.

    network: on the CPU, in evaluation mode; images: an example of its input, float32 [1, C, H, W]
    """
    torch.export.save(torch.export.export(network, (images,)), folder / "network.pt2")
