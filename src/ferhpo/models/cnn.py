"""The plain CNN family: an optional stem, convolution blocks, dense layers.

The stem is separate from the blocks because it has no normalization, pooling or dropout by default.

Note: shallow networks have the most parameters, since little pooling leaves a large input to the first dense layer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ferhpo.errors import Infeasible
from ferhpo.models.layers import (
    MAX_LAYERS,
    check_choice,
    check_dropout,
    check_int,
    check_multiplier,
    initialize,
    make_activation,
    make_norm,
    one_each,
    scaled,
)

POOLS: dict[str, type[nn.Module] | None] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d, "none": None}
PADDINGS = ("same", "valid")
STEPS = ("conv", "act", "norm", "pool", "dropout")


class CNN(nn.Module):
    """Classify images with convolution blocks and dense layers. Forward: float [N, C, H, W] to logits [N, num_classes].

    conf/model/cnn.yaml explains the settings; in_channels, num_classes and image_size (side in pixels) come from the
    data. If `hog` is set, num_features comes from the data too, and forward also takes features float
    [N, num_features], which are concatenated to the output of the convolutions (Alizadeh and Fazel 2016). Raises
    ValueError for a setting out of range, Infeasible if the image is too small for the blocks.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        stem_channels: int = 64,
        stem_kernel_size: int = 3,
        stem_norm: bool = False,
        stem_pool: bool = False,
        num_blocks: int = 3,
        block_channels: int | Sequence[int] = 128,
        kernel_size: int | Sequence[int] = 3,
        stride: int = 1,
        padding: str = "same",
        pool: str = "max",
        conv_dropout: float | Sequence[float] = 0.25,
        num_dense: int | None = None,
        dense_units: int | Sequence[int] = 256,
        dense_dropout: float | Sequence[float] = 0.3,
        activation: str = "relu",
        norm: str = "batch",
        order: str = "conv-act-norm",
        width_multiplier: float = 1.0,
        hog: Mapping[str, int] | None = None,
        num_features: int = 0,
    ) -> None:
        super().__init__()
        check_int("in_channels", in_channels)
        check_int("num_classes", num_classes)
        check_int("image_size", image_size)
        check_int("stem_channels", stem_channels, at_least=0)
        check_int("num_blocks", num_blocks, 0, MAX_LAYERS)
        check_int("stride", stride)
        check_choice("padding", padding, PADDINGS)
        check_choice("pool", pool, tuple(POOLS))
        check_multiplier(width_multiplier)
        check_int("num_features", num_features, at_least=0 if hog is None else 1)
        if num_dense is None:
            num_dense = 1 if isinstance(dense_units, int) else len(dense_units)
        check_int("num_dense", num_dense, 0, MAX_LAYERS)
        widths = one_each("block_channels", block_channels, num_blocks, "num_blocks")
        kernels = one_each("kernel_size", kernel_size, num_blocks, "num_blocks")
        dropouts = one_each("conv_dropout", conv_dropout, num_blocks, "num_blocks")
        dense_widths = one_each("dense_units", dense_units, num_dense, "num_dense")
        dense_dropouts = one_each("dense_dropout", dense_dropout, num_dense, "num_dense")
        for width in widths:
            check_int("block_channels", width)
        for units in dense_widths:
            check_int("dense_units", units)

        self._activation, self._norm, self._order = activation, norm, _read_order(order)
        features: OrderedDict[str, nn.Module] = OrderedDict()
        channels, size = in_channels, image_size
        if stem_channels:
            width = scaled(stem_channels, width_multiplier)
            conv, size = _convolution(
                "stem_kernel_size", channels, width, stem_kernel_size, 1, padding, size, "the stem"
            )
            stem_norm_name = norm if stem_norm else "none"
            pool_module, size = _pooling(pool if stem_pool else "none", size, "the stem")
            features["stem"] = self._block(conv, width, stem_norm_name, pool_module, 0.0, "conv_dropout")
            channels = width
        for i in range(num_blocks):
            where, width = f"block {i + 1} of {num_blocks}", scaled(widths[i], width_multiplier)
            conv, size = _convolution("kernel_size", channels, width, kernels[i], stride, padding, size, where)
            pool_module, size = _pooling(pool, size, where)
            features[f"block{i + 1}"] = self._block(conv, width, norm, pool_module, dropouts[i], "conv_dropout")
            channels = width
        self.features = nn.Sequential(features)
        self.flatten = nn.Flatten()

        dense: OrderedDict[str, nn.Module] = OrderedDict()
        self.num_image_features = 0 if hog is None else num_features
        inputs = channels * size * size + self.num_image_features
        for i in range(num_dense):
            width = scaled(dense_widths[i], width_multiplier)
            dense[f"dense{i + 1}"] = self._block(
                nn.Linear(inputs, width), width, norm, None, dense_dropouts[i], "dense_dropout"
            )
            inputs = width
        output = dense["output"] = nn.Linear(inputs, num_classes)
        self.classifier = nn.Sequential(dense)
        initialize(self)
        # Start with nearly equal logits: those of He's rule are confident guesses that take an epoch to unlearn.
        nn.init.normal_(output.weight, std=0.01)

    def _block(
        self, layer: nn.Module, width: int, norm: str, pool: nn.Module | None, dropout: float, dropout_key: str
    ) -> nn.Sequential:
        """Return a convolution or linear layer and the layers after it, in the order of the setting `order`."""
        check_dropout(dropout_key, dropout)
        parts: dict[str, nn.Module | None] = {
            "conv": layer,
            "act": make_activation(self._activation),
            "norm": make_norm(norm, width, spatial=isinstance(layer, nn.Conv2d)),
            "pool": pool,
            "dropout": nn.Dropout(dropout) if dropout else None,
        }
        named = OrderedDict((step, part) for step in self._order if (part := parts[step]) is not None)
        if isinstance(layer, nn.Linear):
            named = OrderedDict(("linear" if step == "conv" else step, part) for step, part in named.items())
        return nn.Sequential(named)

    def forward(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        inputs = self.flatten(self.features(images))
        if self.num_image_features:
            assert features is not None, "a network with hog is called with images and features"
            inputs = torch.cat([inputs, features], 1)
        logits: Tensor = self.classifier(inputs)
        return logits


def _read_order(order: str) -> list[str]:
    """Return all five steps: those in `order`, then pool and dropout unless they are in it."""
    steps = order.split("-")
    if (
        steps[0] != "conv"
        or set(steps) - set(STEPS)
        or len(set(steps)) < len(steps)
        or not {"act", "norm"} <= set(steps)
    ):
        raise ValueError(
            f"order is {order!r}; it must start with conv and contain act and norm once each, e.g. conv-act-norm "
            "(and may contain pool and dropout, which otherwise come last)"
        )
    return steps + [step for step in ("pool", "dropout") if step not in steps]


def _convolution(
    key: str, channels: int, width: int, kernel_size: int, stride: int, padding: str, size: int, where: str
) -> tuple[nn.Conv2d, int]:
    """Return the convolution and the side in pixels of its output for images of side `size`."""
    check_int(key, kernel_size)
    if padding == "same" and kernel_size % 2 == 0:
        raise ValueError(f"{key} is {kernel_size}; with padding same it must be odd")
    pad = kernel_size // 2 if padding == "same" else 0
    left = (size + 2 * pad - kernel_size) // stride + 1
    if left < 1:
        raise Infeasible(f"{where}: {size}x{size} pixels are too small for a {kernel_size}x{kernel_size} convolution")
    return nn.Conv2d(channels, width, kernel_size, stride, pad), left


def _pooling(pool: str, size: int, where: str) -> tuple[nn.Module | None, int]:
    """Return the 2x2 pooling, if any, and the side in pixels of its output for images of side `size`."""
    pool_class = POOLS[pool]
    if pool_class is None:
        return None, size
    if size < 2:
        raise Infeasible(f"{where}: {size}x{size} pixels are too small for 2x2 pooling")
    return pool_class(2), size // 2
