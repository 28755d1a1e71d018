"""Several networks as one: the mean of their class probabilities. Also part of the served model, without ferhpo."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

TINY = 1e-30  # the logarithm of a probability of 0 is not finite


class Ensemble(nn.Module):
    """Average the class probabilities of networks, each with its own preprocessing and share.

    preprocesses: ferhpo.scoring.preprocess.Preprocess of each
    shares: of the networks; they sum to 1
    takes_features: for each network, whether it takes the features of the image beside its pixels

    The input is what Preprocess returns without normalization and crop: pixels in 0..1. The output is the logarithm of
    the mean probabilities, so that a softmax returns these.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        preprocesses: Sequence[Any],
        shares: Sequence[float],
        takes_features: Sequence[bool],
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.preprocesses, self.shares, self.takes_features = list(preprocesses), list(shares), list(takes_features)
        self.num_image_features = int(any(takes_features))

    def forward(self, pixels: Tensor, *features: Tensor) -> Tensor:
        """Return logits float32 [N, classes] from pixels float32 [N, C, S, S] in 0..1."""
        mean = torch.zeros(())
        members = zip(self.networks, self.preprocesses, self.shares, self.takes_features, strict=True)
        for network, preprocess, share, takes in members:
            edge = (preprocess.image_size - preprocess.input_size) // 2
            end = edge + preprocess.input_size
            window = pixels[:, :, edge:end, edge:end].clone()  # normalized in place
            logits = network(preprocess.normalized(window), *(features if takes else ()))
            mean = mean + share * logits.float().softmax(1)
        return mean.clamp_min(TINY).log()
