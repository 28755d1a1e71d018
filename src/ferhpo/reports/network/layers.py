"""The layers of a trial's network: output shape, parameters and multiply-accumulates of each, and the totals.

Note: parameters outside these layers, e.g. the position embedding of a transformer, are listed at the end under the
name of their module, so that the column adds up to the network's count.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ferhpo.models.count import layer_table
from ferhpo.reports.panel import Panel, write_table
from ferhpo.text import plural, short

if TYPE_CHECKING:
    from ferhpo.evaluation.load import Subject


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Make the layer table of the subject's network; None for a scikit-learn estimator."""
    size = subject.preprocess.input_size
    return of_network(subject.network, (subject.preprocess.channels, size, size), folder)


def of_network(network: nn.Module, input_shape: tuple[int, int, int], folder: Path) -> Panel | None:
    """Do the same for a network that takes images [C, H, W]."""
    if not any(True for _ in network.parameters()):
        return None
    rows = layer_rows(network, input_shape)
    parameters, macs = sum(row["parameters"] for row in rows), sum(row["macs"] for row in rows)
    total = {"layer": "total", "type": "", "output": "", "parameters": parameters, "macs": macs}
    heaviest = max(rows, key=lambda row: row["parameters"])
    busiest = max(rows, key=lambda row: row["macs"])
    shape = "x".join(map(str, input_shape))
    text = (
        f"{plural(parameters, 'trainable parameter')} and {short(macs)} multiply-accumulates per image of {shape}, in "
        f"{plural(len(rows), 'layer')}."
    )
    if parameters and macs:
        text += (
            f" {heaviest['layer']} ({heaviest['type']}) has {heaviest['parameters'] / parameters:.0%} of the "
            f"parameters, {busiest['layer']} ({busiest['type']}) {busiest['macs'] / macs:.0%} of the "
            "multiply-accumulates."
        )
    return Panel("Layers", text, tables=(write_table(folder / "layers.csv", [*rows, total]),))


def layer_rows(network: nn.Module, input_shape: tuple[int, int, int]) -> Sequence[dict[str, Any]]:
    """Return one row per layer in the order of the forward pass; parameters of a layer used twice are counted once."""
    own: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            module = name.rpartition(".")[0]
            own[module] = own.get(module, 0) + parameter.numel()
    rows: list[dict[str, Any]] = [
        {
            "layer": row.name,
            "type": row.type,
            "output": "x".join(map(str, row.output_shape)),
            "parameters": own.pop(row.name, 0),
            "macs": row.macs,
        }
        for row in layer_table(network, input_shape)
    ]
    types = {name: type(module).__name__ for name, module in network.named_modules()}
    for name, count in own.items():
        rows.append({"layer": name or "(network)", "type": types[name], "output": "", "parameters": count, "macs": 0})
    return rows
