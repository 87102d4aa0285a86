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

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import LayerNorm, Positions
from glassformer.taps import Tap


class PatchStem(nn.Module):
    """Images (B, channels, size, size) -> vectors (B, before + patches, C).

    convolutions: patches are read by `PatchConvolutions`, and not by one linear layer. class_token, distillation_token:
    learned vectors that stand before the patches (the second: Touvron et al. 2020, https://arxiv.org/abs/2012.12877,
    sect. 4). scale: what vectors are multiplied with before positions are added. bias: of the linear layer. norm: what
    everything goes through at the end (CLIP's `pre_layrnorm`).
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        n_channels: int,
        n_embd: int,
        convolutions: bool = False,
        class_token: bool = True,
        distillation_token: bool = False,
        scale: float = 1.0,
        bias: bool = True,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.shape = n_channels, image_size, image_size
        # a convolution whose kernel and step are one patch is the same linear layer on each
        self.patch: nn.Module = (
            PatchConvolutions(patch_size=patch_size, n_channels=n_channels, n_embd=n_embd)
            if convolutions
            else nn.Conv2d(n_channels, n_embd, kernel_size=patch_size, stride=patch_size, bias=bias)
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, n_embd)) if class_token else None
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, n_embd)) if distillation_token else None
        self.n_patches = (image_size // patch_size) ** 2
        self.scale, self.dropout, self.norm = scale, dropout, norm
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    @property
    def before(self) -> list[nn.Parameter]:
        """The tokens that stand before the patches, (1, 1, C) each."""
        return [token for token in (self.class_token, self.distillation_token) if token is not None]

    def n_tokens(self, images: Tensor) -> int:
        """How many vectors come out.

        Raises:
            UsageError: the images have another shape than the stem is made for.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise UsageError(f"images of shape {tuple(images.shape[1:])} where {self.shape} is needed; resize them")
        return self.n_patches + len(self.before)

    def distances(self, device: torch.device) -> Tensor:
        """Steps between patches on the image as a king moves on a chessboard, and 0 to and from the tokens before them:
        (1, T, T) integers, the graph that a mask `graph(n)` follows."""
        across = math.isqrt(self.n_patches)
        place_P = torch.arange(self.n_patches, device=device)
        place_2P = torch.stack((place_P // across, place_P % across))  # row and column
        steps_PP = (place_2P[:, :, None] - place_2P[:, None]).abs().amax(dim=0)
        return F.pad(steps_PP, (len(self.before), 0) * 2)[None]

    def forward(self, images: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        patches_BPC = self.patch(images).flatten(2).transpose(1, 2)  # (B, patches, C)
        before = [token.expand(len(images), -1, -1) for token in self.before]
        x_BTC = self.tap_token(torch.cat((*before, patches_BPC), dim=1))
        x_BTC = self.tap_position(positions.add(x_BTC if self.scale == 1 else x_BTC * self.scale, pos))
        return F.dropout(x_BTC if self.norm is None else self.norm(x_BTC), self.dropout, self.training)


class PatchConvolutions(nn.Module):
    """As many vectors as one linear layer on each patch gives, but read by small overlapping convolutions:
    (B, channels, size, size) -> (B, C, size / patch_size, size / patch_size).

        patch_size 4        3 x 3, step 2, C / 2 ──► norm, ReLU ──► 3 x 3, step 2, C ──► norm, ReLU ──► 1 x 1, C

    Xiao et al. 2021, https://arxiv.org/abs/2106.14881, sect. 4: such a stem trains faster and with less care. Their
    batch norm is a layer norm over the channels of each place here: it has no running statistics, so an image is read
    alike in training and afterwards, alone and in any batch.
    """

    def __init__(self, *, patch_size: int, n_channels: int, n_embd: int):
        super().__init__()
        n = patch_size.bit_length() - 1
        widths = [n_channels, *(max(1, n_embd >> (n - 1 - i)) for i in range(n))]
        self.halves = nn.ModuleList(
            nn.Conv2d(*pair, kernel_size=3, stride=2, padding=1, bias=False) for pair in pairwise(widths)
        )
        self.norms = nn.ModuleList(LayerNorm(width) for width in widths[1:])
        self.out = nn.Conv2d(n_embd, n_embd, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        x_BCHW = images
        for half, norm in zip(self.halves, self.norms, strict=True):
            x_BCHW = F.relu(norm(half(x_BCHW).movedim(1, -1)).movedim(-1, 1))
        out: Tensor = self.out(x_BCHW)
        return out
