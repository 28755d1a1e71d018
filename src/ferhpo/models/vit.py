"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) for images of about 48 pixels.

It averages its tokens instead of adding a class token, which works better on small data sets (Beyer et al. 2022, arXiv
2205.01580), and normalizes before each part of a block.

Note: the position embeddings are learned, so a network works at one image size only.
"""

import torch
from torch import Tensor, nn

from ferhpo.errors import Infeasible
from ferhpo.models.attention import DotProductAttention
from ferhpo.models.layers import MAX_LAYERS, check_dropout, check_int, check_multiplier, scaled


class ViT(nn.Module):
    """Classify images by attention between their patches. Forward: float [N, C, H, W] to logits [N, num_classes].

    conf/model/vit.yaml explains the settings; in_channels, num_classes and image_size (side in pixels) come from the
    data. Pixels at the right and bottom that do not fill a patch are ignored. Raises ValueError for a setting out of
    range, Infeasible if a patch is larger than the image.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        patch_size: int = 6,
        num_blocks: int = 6,
        num_heads: int = 3,
        head_width: int = 64,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        counts |= {"patch_size": patch_size, "num_blocks": num_blocks, "num_heads": num_heads}
        for key, value in (counts | {"head_width": head_width, "mlp_ratio": mlp_ratio}).items():
            check_int(key, value, at_most=MAX_LAYERS if key == "num_blocks" else 10**9)
        check_dropout("dropout", dropout)
        check_multiplier(width_multiplier)
        if patch_size > image_size:
            raise Infeasible(f"a patch of {patch_size}x{patch_size} is larger than {image_size}x{image_size} pixels")
        width = num_heads * scaled(head_width, width_multiplier)
        self.patches = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.positions = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, width))
        self.dropout = nn.Dropout(dropout)
        blocks = [TransformerBlock(width, num_heads, mlp_ratio, dropout) for _ in range(num_blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens_NTD = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        features = self.norm(self.blocks(self.dropout(tokens_NTD))).mean(1)
        logits: Tensor = self.output(features)
        return logits


class TransformerBlock(nn.Module):
    """Attention between tokens, then two dense layers per token, both with a shortcut; takes [N, tokens, width]."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention = DotProductAttention()
        self.joined = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp_ratio * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_ratio * width, width),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        num, length, width = tokens.shape
        mixed = self.queries_keys_values(self.attention_norm(tokens))
        mixed = mixed.view(num, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        attended = self.attention(mixed[0], mixed[1], mixed[2]).transpose(1, 2).reshape(num, length, width)
        tokens = tokens + self.dropout(self.joined(attended))
        out: Tensor = tokens + self.mlp(tokens)
        return out
