"""A network of your own: a torch.nn.Module. ferhpo passes in_channels, num_classes and image_size.

Every other argument is a setting of the YAML file, and may be searched. To be exported to the registry, this file
imports from ferhpo, or from other files of yours, only as `from module import name`, at the top level.
"""

from torch import Tensor, nn


class Starter(nn.Module):
    """Classify images with a small convolutional network. Forward: float [N, C, H, W] to logits [N, num_classes].

    width: channels of the first block; each further block has twice as many
    Raises ValueError for an argument out of range: `ferhpo check` reports it, and a trial becomes infeasible.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: int,
        width: int = 16,
        num_blocks: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if image_size < 2**num_blocks:
            raise ValueError(f"num_blocks is {num_blocks}; it halves {image_size} pixels to less than one")
        layers: list[nn.Module] = []
        for block in range(num_blocks):
            channels = width * 2**block
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            in_channels = channels
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.output = nn.Linear(in_channels, num_classes)  # trainer.frozen_epochs and body_lr_factor need this name

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.features(images))
        return logits
