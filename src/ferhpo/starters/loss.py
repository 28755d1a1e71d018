"""A loss of your own: a torch.nn.Module without parameters.

If its constructor has arguments `weight` or `label_smoothing`, ferhpo passes the class weights, float [classes], and
trainer.label_smoothing. val_loss stays the cross-entropy, so that trials with different losses can be compared.
"""

import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn


class Starter(nn.Module):
    """Focal loss: cross-entropy with less weight for images that are already right (Lin et al. 2017, eq. 4).

    gamma: 0 is the cross-entropy
    """

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma is {gamma}; it must be 0 or more")
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits [N, classes]; targets are int64 [N], or soft targets float [N, classes]."""
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        log_probabilities = F.log_softmax(logits, 1)
        losses = -targets * (1 - log_probabilities.exp()) ** self.gamma * log_probabilities
        if isinstance(self.weight, Tensor):
            losses = losses * self.weight
        return losses.sum(1).mean()
