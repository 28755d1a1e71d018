"""A small residual network (He et al. 2016, arXiv 1512.03385) for images of about 48 pixels.

Its stem is one 3x3 convolution without pooling; the stem for ImageNet, 7x7 with stride 2 and pooling, would leave 12x12
pixels to the first block. The output is averaged over the image, so the weights work at any image size.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from ferhpo.models.attention import make_attention
from ferhpo.models.layers import (
    MAX_LAYERS,
    check_dropout,
    check_int,
    check_multiplier,
    initialize,
    make_activation,
    one_each,
    scaled,
)

MAX_STAGES = 20  # each has half the pixels of the stage before, and twice the channels


class ResNet(nn.Module):
    """Classify images with stages of residual blocks. Forward: float [N, C, H, W] to logits [N, num_classes].

    conf/model/resnet.yaml explains the settings; in_channels, num_classes and image_size (side in pixels) come from the
    data. The first stage has `width` channels; each later stage doubles them and halves the image. Raises ValueError
    for a setting out of range.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        stem_channels: int | None = None,
        stem_kernel_size: int = 3,
        stem_stride: int = 1,
        stem_pool: bool = False,
        num_stages: int = 4,
        blocks_per_stage: int | Sequence[int] = 2,
        width: int = 64,
        width_multiplier: float = 1.0,
        activation: str = "relu",
        attention: str = "none",
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        check_int("in_channels", in_channels)
        check_int("num_classes", num_classes)
        check_int("image_size", image_size)
        check_int("stem_kernel_size", stem_kernel_size)
        if stem_kernel_size % 2 == 0:
            raise ValueError(f"stem_kernel_size is {stem_kernel_size}; it must be odd")
        check_int("stem_stride", stem_stride)
        check_int("num_stages", num_stages, 1, MAX_STAGES)
        check_int("width", width)
        check_multiplier(width_multiplier)
        check_dropout("dropout", dropout)
        depths = one_each("blocks_per_stage", blocks_per_stage, num_stages, "num_stages")
        for depth in depths:
            check_int("blocks_per_stage", depth, 1, MAX_LAYERS)
        if sum(depths) > MAX_LAYERS:
            raise ValueError(f"blocks_per_stage adds up to {sum(depths):,}; it must be at most {MAX_LAYERS:,}")
        if stem_channels is None:
            stem_channels = width
        check_int("stem_channels", stem_channels)

        channels = scaled(stem_channels, width_multiplier)
        self.stem = nn.Sequential(
            _conv_norm(in_channels, channels, stem_kernel_size, stem_stride), make_activation(activation)
        )
        if stem_pool:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for i, depth in enumerate(depths):
            stage_channels = scaled(width * 2**i, width_multiplier)
            blocks = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(ResidualBlock(channels, stage_channels, stride, activation, attention))
                channels = stage_channels
            stages[f"stage{i + 1}"] = nn.Sequential(*blocks)
        self.stages = nn.Sequential(stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels, num_classes)
        initialize(self)
        for block in self.modules():
            if zero_init and isinstance(block, ResidualBlock):
                nn.init.zeros_(block.last_norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        features = self.flatten(self.pool(self.stages(self.stem(images))))
        logits: Tensor = self.output(self.dropout(features))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, which is a 1x1 convolution if the shape changes.

    Attention, if any, weights the output of the convolutions before the shortcut is added. If the weights of last_norm
    start at zero (zero_init), the block starts as its shortcut (Goyal et al. 2017, 5.1).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, activation: str, attention: str) -> None:
        super().__init__()
        self.first = _conv_norm(in_channels, channels, 3, stride)
        self.act = make_activation(activation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.last_norm = nn.BatchNorm2d(channels)
        self.attention = make_attention(attention, channels) or nn.Identity()
        same_shape = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same_shape else _conv_norm(in_channels, channels, 1, stride)
        self.last_act = make_activation(activation)

    def forward(self, images: Tensor) -> Tensor:
        residual = self.attention(self.last_norm(self.second(self.act(self.first(images)))))
        out: Tensor = self.last_act(residual + self.shortcut(images))
        return out


def _conv_norm(in_channels: int, channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(channels)))
