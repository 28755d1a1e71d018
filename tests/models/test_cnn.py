"""The plain CNN: the number of parameters of the documented network, every setting, every message."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from ferhpo.errors import Infeasible
from ferhpo.models.cnn import CNN
from ferhpo.models.count import count_keras_parameters, count_macs, count_parameters
from ferhpo.models.layers import scaled

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 48}
VULPE_WINNER: dict[str, Any] = {
    "stem_channels": 256,
    "num_blocks": 4,
    "block_channels": [512, 384, 192, 384],
    "conv_dropout": 0.4,
    "dense_units": 256,
    "dense_dropout": 0.3,
}


def on_meta(**settings: Any) -> CNN:
    with torch.device("meta"):
        return CNN(**{**DATA, **settings})


def kinds(block: nn.Module) -> list[str]:
    return [type(module).__name__ for module in block.children()]


def test_winner_of_vulpe2021_has_the_documented_parameters() -> None:
    network = on_meta(**VULPE_WINNER)
    assert count_parameters(network) == 5_170_503
    assert count_keras_parameters(network) == 5_173_959
    assert round(count_macs(network, (1, 48, 48)) / 1e9, 2) == 3.86


def test_winner_of_vulpe2021_has_the_documented_layers() -> None:
    network = on_meta(**VULPE_WINNER)
    assert kinds(network.features.stem) == ["Conv2d", "ReLU"]
    assert kinds(network.features.block4) == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d", "Dropout"]
    assert kinds(network.classifier.dense1) == ["Linear", "ReLU", "BatchNorm1d", "Dropout"]
    assert network.classifier.dense1.linear.in_features == 3456


def test_hog_features_join_the_convolutions_before_the_dense_part() -> None:
    without, network = on_meta(**VULPE_WINNER), on_meta(**VULPE_WINNER, hog={}, num_features=900)
    assert network.classifier.dense1.linear.in_features == 3456 + 900
    assert count_parameters(network) == count_parameters(without) + 900 * 256
    assert count_macs(network, (1, 48, 48)) == count_macs(without, (1, 48, 48)) + 900 * 256


def test_features_reach_the_dense_part_unchanged() -> None:
    torch.manual_seed(0)
    network = CNN(**DATA, stem_channels=2, num_blocks=1, block_channels=2, dense_units=4, hog={}, num_features=3).eval()
    images, features = torch.rand(5, 1, 48, 48), torch.rand(5, 3)
    seen: list[torch.Tensor] = []
    network.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images, features)
    assert torch.equal(seen[0][:, -3:], features)
    assert torch.equal(seen[0][:, :-3], network.features(images).flatten(1))


def test_shallow_member_of_the_space_is_the_largest() -> None:
    network = on_meta(stem_channels=256, num_blocks=1, block_channels=[512], dense_units=256)
    assert round(count_parameters(network) / 1e6, 1) == 76.7


def test_deep_network_of_alizadeh2016() -> None:
    network = on_meta(
        stem_channels=0,
        num_blocks=4,
        block_channels=[64, 128, 512, 512],
        kernel_size=[3, 5, 3, 3],
        dense_units=[256, 512],
        order="conv-norm-act-pool-dropout",
    )
    assert count_keras_parameters(network) == 4_478_727
    assert kinds(network.features.block1) == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout"]


def test_list_longer_than_num_blocks_is_cut() -> None:
    cut = on_meta(num_blocks=2, block_channels=[64, 128, 256, 512], conv_dropout=[0.1, 0.2, 0.3])
    exact = on_meta(num_blocks=2, block_channels=[64, 128], conv_dropout=[0.1, 0.2])
    assert str(cut) == str(exact)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "gelu", "norm": "none"},
        {"activation": "elu", "norm": "layer"},
        {"activation": "leaky_relu", "order": "conv-norm-act"},
        {"activation": "silu", "pool": "avg", "kernel_size": 5},
        {"pool": "none", "stride": 2},
        {"padding": "valid", "kernel_size": 2, "stem_kernel_size": 4},
        {"stem_channels": 0, "order": "conv-norm-act-dropout-pool"},
        {"stem_norm": True, "stem_pool": True},
        {"num_dense": 0},
        {"num_dense": 2, "dense_units": [32, 64, 128], "dense_dropout": [0.0, 0.5]},
        {"in_channels": 3, "image_size": 40, "num_classes": 5},
    ],
    ids=str,
)
def test_every_setting_gives_a_network_that_learns_in_all_its_parts(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    arguments = {**DATA, "stem_channels": 8, "num_blocks": 2, "block_channels": 8, "dense_units": 16, **settings}
    network = CNN(**arguments)
    images = torch.rand(4, arguments["in_channels"], arguments["image_size"], arguments["image_size"])
    logits = network(images)
    assert logits.shape == (4, arguments["num_classes"])
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_order_is_the_order_of_the_layers() -> None:
    network = on_meta(order="conv-norm-act-dropout-pool")
    assert kinds(network.features.block1) == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "MaxPool2d"]
    assert kinds(network.classifier.dense1) == ["Linear", "BatchNorm1d", "ReLU", "Dropout"]


def test_width_multiplier_scales_stem_blocks_and_dense_layers() -> None:
    network = on_meta(**VULPE_WINNER, width_multiplier=0.125)
    convolutions = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [32, 64, 48, 24, 48]
    assert network.classifier.dense1.linear.out_features == 32


@pytest.mark.parametrize(("width", "multiplier", "expected"), [(64, 1.0, 64), (5, 0.5, 3), (3, 0.01, 1), (10, 2.0, 20)])
def test_widths_are_rounded_half_up_to_one_at_least(width: int, multiplier: float, expected: int) -> None:
    assert scaled(width, multiplier) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv_dropout": 1.5}, "conv_dropout is 1.5; it must be in [0, 1)"),
        ({"conv_dropout": [0.1, 0.2, 1]}, "conv_dropout is 1; it must be in [0, 1)"),
        ({"dense_dropout": -0.1}, "dense_dropout is -0.1; it must be in [0, 1)"),
        ({"stem_channels": -1}, "stem_channels is -1; it must be an integer of at least 0"),
        ({"block_channels": 0}, "block_channels is 0; it must be an integer of at least 1"),
        ({"block_channels": 12.5}, "block_channels is 12.5; it must be an integer of at least 1"),
        (
            {"block_channels": [64], "num_blocks": 2},
            "block_channels has 1 values; it must have at least 2, the value of num_blocks, or be one number",
        ),
        (
            {"dense_units": "many"},
            "dense_units is 'many'; it must be a number or a list with one number per layer",
        ),
        ({"activation": "tanh"}, "activation is 'tanh'; it must be one of relu, gelu, elu, leaky_relu, silu"),
        ({"norm": "group"}, "norm is 'group'; it must be one of batch, layer, none"),
        ({"pool": 2}, "pool is 2; it must be one of max, avg, none"),
        ({"padding": "full"}, "padding is 'full'; it must be one of same, valid"),
        ({"kernel_size": 4}, "kernel_size is 4; with padding same it must be odd"),
        ({"stem_kernel_size": 0}, "stem_kernel_size is 0; it must be an integer of at least 1"),
        ({"stride": 0}, "stride is 0; it must be an integer of at least 1"),
        ({"width_multiplier": 0}, "width_multiplier is 0; it must be above 0"),
        (
            {"order": "norm-conv-act"},
            "order is 'norm-conv-act'; it must start with conv and contain act and norm once each, e.g. conv-act-norm "
            "(and may contain pool and dropout, which otherwise come last)",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        on_meta(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_blocks": 6}, "block 6 of 6: 1x1 pixels are too small for 2x2 pooling"),
        ({"num_blocks": 5, "padding": "valid"}, "block 5 of 5: 1x1 pixels are too small for a 3x3 convolution"),
    ],
    ids=str,
)
def test_network_that_pools_the_image_away_is_infeasible(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Infeasible, match=f"^{re.escape(message)}$"):
        on_meta(**settings)
