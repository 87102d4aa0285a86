"""The image stem: cut into patches, each patch a word.

    image 8 x 8, patches of 4        class token, then the patches row by row
    +---+---+
    | 1 | 2 |                        [class] 1 2 3 4    ──► (B, 5, C)
    +---+---+
    | 3 | 4 |
    +---+---+

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import Positions
from glassformer.taps import Tap


class PatchStem(nn.Module):
    """Images (B, channels, size, size) -> vectors (B, 1 + patches, C), the class token first."""

    def __init__(self, *, image_size: int, patch_size: int, n_channels: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.shape = n_channels, image_size, image_size
        # a convolution whose kernel and step are one patch is the same linear layer on each
        self.patch = nn.Conv2d(n_channels, n_embd, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, n_embd))
        self.n_patches = (image_size // patch_size) ** 2
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def n_tokens(self, images: Tensor) -> int:
        """How many vectors come out.

        Raises:
            UsageError: the images have another shape than the stem is made for.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise UsageError(f"images of shape {tuple(images.shape[1:])} where {self.shape} is needed; resize them")
        return self.n_patches + 1

    def forward(self, images: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        patches_BPC = self.patch(images).flatten(2).transpose(1, 2)  # (B, patches, C)
        x_BTC = torch.cat((self.class_token.expand(len(images), -1, -1), patches_BPC), dim=1)
        x_BTC = self.tap_position(positions.add(self.tap_token(x_BTC), pos))
        return F.dropout(x_BTC, self.dropout, self.training)
