"""The cost of a network: parameters, multiply-accumulates (MACs) and memory for training.

Note: networks are measured as copies on torch's meta device, which computes shapes only, so that even the largest
network of a space takes no memory. A small network is measured itself, which takes less time. Only convolutions,
linear layers and attention count as MACs; the rest is small in comparison.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ferhpo.models.attention import DotProductAttention
from ferhpo.models.layers import num_image_features

FLOAT_BYTES = 4
_SMALL_MACS = 200_000_000


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name in the state dict, its class, the shape of its output for one image, and its cost."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    num_parameters: int
    macs: int


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_keras_parameters(network: nn.Module) -> int:
    """Return the number of parameters as counted by Keras: including the running means and variances of batch norm."""
    statistics = sum(
        module.running_mean.numel() + module.running_var.numel()
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module.running_var is not None
    )
    return sum(p.numel() for p in network.parameters()) + statistics


def layer_table(network: nn.Module, input_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Return one row per layer, in the order of the forward pass, for an image [C, H, W].

    A layer is a module without submodules. The network itself does not change.
    """
    rows: list[LayerRow] = []
    # Without enlargement inside, each weight is used at most once per pixel.
    is_small = count_parameters(network) * input_shape[1] * input_shape[2] < _SMALL_MACS
    measured = network if is_small else copy.deepcopy(network).to("meta")
    names = {module: name for name, module in measured.named_modules()}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append(
            LayerRow(names[module], type(module).__name__, tuple(output.shape[1:]), parameters, _macs(module, output))
        )

    layers = [module for module in names if not list(module.children())]
    handles = [module.register_forward_hook(record) for module in layers]
    modes = {module: module.training for module in names}
    device = next((p.device for p in measured.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            measured.eval()(*_inputs(network, 1, input_shape, device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return rows


def count_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the MACs of a forward pass of one image [C, H, W]; a training step takes about three times as many."""
    return sum(row.macs for row in layer_table(network, input_shape))


def training_memory_bytes(
    network: nn.Module, input_shape: tuple[int, int, int], batch_size: int, optimizer_states: int = 2
) -> int:
    """Estimate the memory in bytes for training in float32: parameters, gradients, optimizer states and activations.

    optimizer_states: the number of values that the optimizer stores per parameter: 2 for Adam, 1 for SGD with momentum,
        0 for plain SGD
    Activations are the tensors that autograd keeps for the backward pass, and the gradients of the largest of them. The
    workspace of the convolution library and the gaps of the allocator are not included.
    """
    measured = copy.deepcopy(network).to("meta").train()
    own = {id(storage): storage for p in measured.parameters() for storage in [p.untyped_storage()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = measured(
            *_inputs(network, 2, input_shape, torch.device("meta"))
        )  # batch norm needs at least two images
    assert output.requires_grad
    sizes = [storage.nbytes() // 2 for key, storage in kept.items() if key not in own]
    weights = count_parameters(network) * FLOAT_BYTES * (2 + optimizer_states)
    return weights + (sum(sizes) + 2 * max(sizes)) * batch_size


def _inputs(
    network: nn.Module, num_images: int, input_shape: tuple[int, int, int], device: torch.device
) -> list[Tensor]:
    """Return inputs for a network: images of zeros and, if it takes them, features."""
    num_features = num_image_features(network)
    shapes = [(num_images, *input_shape), *([(num_images, num_features)] if num_features else [])]
    return [torch.zeros(shape, device=device) for shape in shapes]


def _macs(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    if isinstance(module, DotProductAttention):  # q k' and the product with v, over all tokens
        return 2 * output[0].numel() * output.shape[-2]
    return 0
