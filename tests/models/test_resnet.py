"""The ResNet: shapes, costs, messages."""

import re
from typing import Any

import pytest
import torch

from ferhpo.models.count import count_macs, count_parameters
from ferhpo.models.resnet import ResidualBlock, ResNet

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 48}


def on_meta(**settings: Any) -> ResNet:
    with torch.device("meta"):
        return ResNet(**{**DATA, **settings})


def test_default_is_resnet18_with_a_small_stem() -> None:
    torchvision_models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        oracle = torchvision_models.resnet18(num_classes=7)
        oracle.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
    assert count_parameters(on_meta()) == count_parameters(oracle) == 11_171_271


def test_affordable_configuration_of_the_header() -> None:
    network = on_meta(stem_stride=2, width=24, num_stages=3)
    assert round(count_macs(network, (1, 48, 48)) / 1e6) == 33


@pytest.mark.parametrize(
    "settings",
    [
        {"num_stages": 1, "blocks_per_stage": 1},
        {"num_stages": 2, "blocks_per_stage": [1, 2, 3]},
        {"stem_pool": True, "stem_kernel_size": 7, "stem_stride": 2, "image_size": 100},
        {"in_channels": 3, "activation": "silu", "dropout": 0.1, "zero_init": False},
        {"stem_channels": 4, "width_multiplier": 0.5},
    ],
    ids=str,
)
def test_every_setting_gives_a_network_of_the_right_shape(settings: dict[str, Any]) -> None:
    arguments = {**DATA, "width": 8, "num_stages": 2, **settings}
    images = torch.rand(3, arguments["in_channels"], arguments["image_size"], arguments["image_size"])
    assert ResNet(**arguments)(images).shape == (3, 7)


@pytest.mark.parametrize("zero_init", [True, False])
def test_zero_init_makes_a_block_its_shortcut(zero_init: bool) -> None:
    network = ResNet(**DATA, width=8, num_stages=1, blocks_per_stage=1, zero_init=zero_init)
    block = next(m for m in network.modules() if isinstance(m, ResidualBlock))
    images = torch.rand(2, 8, 6, 6)
    assert torch.equal(block(images), images) == zero_init


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0; it must be in [0, 1)"),
        ({"stem_kernel_size": 4}, "stem_kernel_size is 4; it must be odd"),
        ({"blocks_per_stage": [2, 0, 1, 1]}, "blocks_per_stage is 0; it must be an integer of at least 1"),
        ({"num_stages": 0}, "num_stages is 0; it must be an integer of at least 1"),
        ({"width": 0.5}, "width is 0.5; it must be an integer of at least 1"),
        ({"activation": None}, "activation is None; it must be one of relu, gelu, elu, leaky_relu, silu"),
    ],
    ids=str,
)
def test_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        on_meta(**settings)
