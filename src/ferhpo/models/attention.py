"""Attention: over channels (squeeze-and-excitation), over channels and pixels (CBAM), and between tokens."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from ferhpo.models.layers import check_choice

ATTENTIONS = ("none", "se", "cbam")
REDUCTION = 16  # channels to hidden units, as in both papers; with eight units at least


def make_attention(name: str, channels: int) -> nn.Module | None:
    """Return attention for [N, channels, H, W]; None where name is "none". Raises ValueError for an unknown name."""
    check_choice("attention", name, ATTENTIONS)
    if name == "none":
        return None
    return SqueezeExcitation(channels) if name == "se" else CBAM(channels)


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what all of them are on average (Hu et al. 2018, arXiv 1709.01507, eq. 2 to 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = _channel_gates(channels)

    def forward(self, features: Tensor) -> Tensor:
        weighed: Tensor = features * self.gates(features.mean((2, 3))).sigmoid()[:, :, None, None]
        return weighed


class CBAM(nn.Module):
    """Weigh channels by their mean and maximum, then pixels by theirs (Woo et al. 2018, arXiv 1807.06521, eq. 2, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = _channel_gates(channels)
        self.pixel_gates = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        gates = self.gates(features.mean((2, 3))) + self.gates(features.amax((2, 3)))
        features = features * gates.sigmoid()[:, :, None, None]
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        weighed: Tensor = features * self.pixel_gates(pooled).sigmoid()
        return weighed


class DotProductAttention(nn.Module):
    """softmax(q k' / sqrt(d)) v for [N, heads, tokens, d] (Vaswani et al. 2017, eq. 1): a layer of its own, so that its
    work is counted."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values)


def _channel_gates(channels: int) -> nn.Sequential:
    hidden = max(channels // REDUCTION, 8)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
