"""Attention: over channels (squeeze-and-excitation), over channels and pixels (CBAM), and between tokens."""

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from ferhpo.models.layers import check_choice

ATTENTIONS = ("none", "se", "cbam")
REDUCTION = 16  # channels per hidden unit, as in both papers; there are at least eight hidden units


def make_attention(name: str, channels: int) -> nn.Module | None:
    """Return attention for [N, channels, H, W], or None if name is "none". Raises ValueError for an unknown name."""
    check_choice("attention", name, ATTENTIONS)
    if name == "none":
        return None
    return SqueezeExcitation(channels) if name == "se" else CBAM(channels)


class SqueezeExcitation(nn.Module):
    """Weight each channel by the means of all channels (Hu et al. 2018, arXiv 1709.01507, eq. 2 to 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = _channel_gates(channels)

    def forward(self, features: Tensor) -> Tensor:
        weighted: Tensor = features * self.gates(features.mean((2, 3))).sigmoid()[:, :, None, None]
        return weighted


class CBAM(nn.Module):
    """Weight channels by mean and maximum over pixels, then pixels by mean and maximum over channels.

    Source: Woo et al. 2018 (arXiv 1807.06521), eq. 2 and 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = _channel_gates(channels)
        self.pixel_gates = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        gates = self.gates(features.mean((2, 3))) + self.gates(features.amax((2, 3)))
        features = features * gates.sigmoid()[:, :, None, None]
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        weighted: Tensor = features * self.pixel_gates(pooled).sigmoid()
        return weighted


class DotProductAttention(nn.Module):
    """Compute softmax(q k' / sqrt(d)) v for [N, heads, tokens, d] (Vaswani et al. 2017, eq. 1).

    It is a module so that count.py can count its MACs.
    """

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values)


def _channel_gates(channels: int) -> nn.Sequential:
    hidden = max(channels // REDUCTION, 8)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
