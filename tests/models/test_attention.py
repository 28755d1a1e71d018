"""Attention: against the formulas, and its position in the ResNet."""

import pytest
import torch

from ferhpo.models.attention import CBAM, DotProductAttention, SqueezeExcitation, make_attention
from ferhpo.models.count import count_macs, count_parameters
from ferhpo.models.resnet import ResNet
from ferhpo.models.vit import ViT

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 24}


def test_squeeze_and_excitation_is_the_papers_formula():
    torch.manual_seed(0)
    layer = SqueezeExcitation(32).double()
    images = torch.rand(2, 32, 5, 5, dtype=torch.double)
    first, _, second = layer.gates
    z = images.mean((2, 3))
    s = torch.sigmoid(torch.relu(z @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(layer(images), torch.einsum("nchw,nc->nchw", images, s))


def test_cbam_weighs_channels_then_pixels():
    torch.manual_seed(0)
    layer = CBAM(16).double()
    images = torch.rand(2, 16, 5, 5, dtype=torch.double)
    mlp = layer.gates
    channels = torch.sigmoid(mlp(images.flatten(2).mean(2)) + mlp(images.flatten(2).max(2).values))
    weighed = torch.einsum("nchw,nc->nchw", images, channels)
    pooled = torch.stack([weighed.mean(1), weighed.max(1).values], 1)
    pixels = torch.sigmoid(torch.nn.functional.conv2d(pooled, layer.pixel_gates.weight, padding=3))
    torch.testing.assert_close(layer(images), weighed * pixels)


def test_dot_product_attention_is_the_papers_formula():
    q, k, v = (torch.rand(2, 3, 5, 4, dtype=torch.double) for _ in range(3))
    expected = torch.softmax(q @ k.transpose(2, 3) / 2, -1) @ v
    torch.testing.assert_close(DotProductAttention()(q, k, v), expected)


@pytest.mark.parametrize(("name", "layer"), [("se", SqueezeExcitation), ("cbam", CBAM)])
def test_every_block_of_a_resnet_has_it(name, layer):
    network = ResNet(**DATA, width=8, num_stages=2, blocks_per_stage=[1, 2], attention=name)
    assert sum(isinstance(module, layer) for module in network.modules()) == 3
    assert network(torch.rand(2, 1, 24, 24)).shape == (2, 7)
    plain = ResNet(**DATA, width=8, num_stages=2, blocks_per_stage=[1, 2])
    assert count_parameters(network) > count_parameters(plain)


def test_an_unknown_attention_is_named():
    with pytest.raises(ValueError, match="attention is 'senet'; it must be one of none, se, cbam"):
        make_attention("senet", 8)


def test_work_of_a_transformer_counts_attention():
    network = ViT(**DATA, patch_size=6, num_blocks=1, num_heads=2, head_width=8, mlp_ratio=2)
    tokens, width = 16, 16
    dense = tokens * width * (3 * width + width + 2 * 2 * width)
    attention = 2 * tokens * tokens * width
    expected = tokens * width * 36 + dense + attention + width * 7
    assert count_macs(network, (1, 24, 24)) == expected


def test_a_transformer_tells_where_its_patches_are():
    torch.manual_seed(0)
    network = ViT(**DATA, patch_size=12, num_blocks=2).eval()
    images = torch.rand(1, 1, 24, 24)
    assert not torch.allclose(network(images), network(images.roll(12, 3)), atol=1e-5)
