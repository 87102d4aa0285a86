"""Attention over an image: head by head, rolled out over all layers, and how alike positions are.

class token's row of a pattern        patches of the image
[class] 1   2   3   4                 1 2
 0.2   0.4 0.1 0.3 0.0       ──►      3 4
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, HeatMap, Note, Table, Tokens, visible
from glassformer.inspection.attention import attention
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, stack_of
from glassformer.inspection.views import View
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Target, TextOrImage

MAX_TILES = 8  # along a side of the grid of positions
MAX_ROWS = 12  # of a table of tokens
MAX_PLACES = 64  # of a text whose positions are compared
MAX_PIXELS = 64  # along a side of the image that is drawn


@dataclass
class ImageAttentionView(View):
    """Where each head of a layer looks on an image, or where each word of a caption does."""

    layer: int
    query: str  # its label; of a caption without a query: each word
    image: np.ndarray  # (rows, columns), grey, 0 to 1
    heads: np.ndarray  # (H, n, n): the share of each patch; the rest falls on the tokens before the patches
    words: list[str] | None = None  # of a caption: (H,) in the place of heads, whose mean is drawn

    def figures(self) -> list[Figure]:
        highest = float(self.heads.max()) or 1.0
        names = [f"head {number}" for number in range(len(self.heads))] if self.words is None else self.words
        maps = [_map(visible(name), patches, highest) for name, patches in zip(names, self.heads, strict=True)]
        whose = "a head's attention" if self.words is None else "the mean attention of its heads"
        text = f"Layer {self.layer}: what {self.query} attends to. Full colour: {highest:.1%} of {whose}."
        return [_image_map(self.image), *maps, Note(text)]


@view(
    "glassformer look image-attention runs/mnist-1 seven.png",
    "glassformer look image-attention runs/mnist-1 seven.png --layer 0 --query 17",
    "glassformer look image-attention runs/captions-1 picture.png",
)
def image_attention(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    layer: Annotated[int, Option("The layer, from 0; -1 is the last.")] = -1,
    query: Annotated[
        int | None, Option("The position that attends, from 0; default: the first; of a caption each word.")
    ] = None,
    target: Target = None,
) -> ImageAttentionView:
    """Where each head of a layer looks on an image, patch by patch.

    Of a model that writes captions: where each word that it writes looks (the mean over the heads), or with --query
    where each head looks when that word is read.

    Raises:
        UsageError: the model reads no images, or there is no such layer or position.
    """
    if not isinstance(text, Tensor) or model.reads != "patches":
        raise UsageError(f"this {type(model).__name__} reads {model.reads} and no images; look attention draws texts")
    writes = "target" in model.answers
    seen = attention(model, tokenizer, text, kind="cross" if writes else "self", target=target)
    number = check_place("layer", layer, len(seen.patterns))
    stack, _ = stack_of(model, "encoder")
    if writes and query is None:  # the row of a token is about the next one
        means = seen.patterns[number].mean(axis=0)
        words = [*seen.queries[1:], "<end>"]
        return ImageAttentionView(
            number, "each word", _grey(text), np.stack([_patches(stack, row) for row in means]), words
        )
    place = check_place("query", query or 0, len(seen.queries))
    heads = np.stack([_patches(stack, row) for row in seen.patterns[number, :, place]])
    return ImageAttentionView(number, seen.queries[place], _grey(text), heads)


@dataclass
class RolloutView(View):
    """How much of each input token arrives at each place after all layers, by attention alone."""

    tokens: list[str]
    rollout: np.ndarray  # (T, T): a row adds up to 1
    place: int  # what is drawn
    image: np.ndarray | None = None  # (rows, columns) of a model of images
    patches: np.ndarray | None = None  # (n, n), of the place that is drawn

    def figures(self) -> list[Figure]:
        about = (
            f"Attention roll-out at {self.tokens[self.place]}: each layer counts half as attention, half as residual."
        )
        row = self.rollout[self.place]
        if self.patches is None or self.image is None:
            most = np.argsort(-row, kind="stable")[:MAX_ROWS].tolist()
            table = Table(
                "What it is made of",
                [Column("at", "count"), Column("token", "token"), Column("share", "share", role="share")],
                [[place, visible(self.tokens[place]), float(row[place])] for place in most],
            )
            return [Tokens("Attention roll-out", self.tokens, row.tolist(), "share", digits=3), table, Note(about)]
        highest = float(self.patches.max())
        return [_image_map(self.image), _map("roll-out", self.patches, highest), Note(about)]


@view("glassformer look rollout runs/mnist-1 seven.png", 'glassformer look rollout minilm-l6 "A fine film."')
def rollout(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    query: Annotated[int | None, Option("The position, from 0; default: the first, of a decoder the last.")] = None,
) -> RolloutView:
    """Attention of all layers multiplied together, with the residual stream as a half of each.

    Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928, sect. 3: A = (W + I) / 2 with W the mean over heads, and
    the roll-out of layer l is A_l times that of layer l - 1.

    Raises:
        UsageError: the model has two stacks, or there is no such position.
    """
    if "target" in model.answers:
        raise UsageError(f"a {type(model).__name__} attends to two texts; roll-out is of a model with one stack")
    seen = attention(model, tokenizer, text)
    rolled_TT = rolled_out(seen.patterns)
    default = 0 if isinstance(model, Encoder) else -1
    place = check_place("query", default if query is None else query, len(seen.queries))
    if model.reads != "patches" or not isinstance(text, Tensor):
        return RolloutView(seen.queries, rolled_TT, place)
    return RolloutView(seen.queries, rolled_TT, place, _grey(text), _patches(model, rolled_TT[place]))


def rolled_out(patterns_LHTT: np.ndarray) -> np.ndarray:
    """(L, H, T, T) -> (T, T)."""
    identity_TT = np.eye(patterns_LHTT.shape[-1])
    rolled_TT = identity_TT
    for pattern_HTT in patterns_LHTT.astype(np.float64):
        mixed_TT = (pattern_HTT.mean(axis=0) + identity_TT) / 2
        rolled_TT = (mixed_TT / mixed_TT.sum(axis=-1, keepdims=True)) @ rolled_TT
    return rolled_TT


@dataclass
class PositionsView(View):
    """How alike the vectors of positions are."""

    kind: str
    cosines: np.ndarray  # (T, T)
    grid: int = 0  # patches along a side; 0: a text
    n_before: int = 0  # tokens before the patches

    def figures(self) -> list[Figure]:
        if not self.grid:
            part = self.cosines[:MAX_PLACES, :MAX_PLACES]
            labels = [str(place) for place in range(len(part))]
            return [HeatMap(f"Cosine of {self.kind} positions", part, labels, labels, signed=True, highest=1.0)]
        n, step = self.grid, -(-self.grid // MAX_TILES)
        cosines = self.cosines[self.n_before :, self.n_before :].reshape(n, n, n, n)
        lines = []
        for r in range(0, n, step):
            tiles = [np.pad(cosines[r, c], ((0, 1), (0, 1)), constant_values=np.nan) for c in range(0, n, step)]
            lines.append(np.concatenate(tiles, axis=1))
        values = np.concatenate(lines)[:-1, :-1]
        rows, columns = ([str(place) for place in range(size)] for size in values.shape)
        title = f"Cosine of {self.kind} positions: a tile for each patch, laid out as the image"
        return [HeatMap(title, values, rows, columns, signed=True, highest=1.0, compact=True)]


@view("glassformer look positions runs/mnist-1", "glassformer look positions gpt2")
def positions(model: Any) -> PositionsView:
    """The cosine between the vectors of every two positions (figure 7 of Dosovitskiy et al. 2020).

    Raises:
        UsageError: the model adds no vectors of positions to its input.
    """
    stack, _ = stack_of(model, "decoder" if model.reads == "text" else "encoder")
    T = min(stack.config.block_size, 1024)
    if stack.config.positions not in ("learned", "sinusoidal"):
        raise UsageError(f"positions={stack.config.positions} add no vectors; look positions needs learned, sinusoidal")
    with torch.inference_mode():
        device = next(model.parameters()).device
        zeros_1TC = torch.zeros(1, T, stack.config.n_embd, device=device)
        vectors_TC = stack.positions.add(zeros_1TC, torch.arange(T, device=device))[0].float()
        unit_TC = torch.nn.functional.normalize(vectors_TC, dim=-1)
        cosines_TT = (unit_TC @ unit_TC.T).cpu().numpy()
    of_image = stack.reads == "patches"
    grid = math.isqrt(stack.config.n_patches) if of_image else 0
    return PositionsView(stack.config.positions, cosines_TT, grid, stack.config.n_before if of_image else 0)


def _patches(model: Any, row_T: np.ndarray) -> np.ndarray:
    """What a row of a pattern says of the patches: (T,) -> (n, n)."""
    n = math.isqrt(model.config.n_patches)
    return row_T[model.config.n_before :].reshape(n, n)


def _grey(image_CHW: Tensor) -> np.ndarray:
    """The image to look at: (rows, columns), darkest 0 and brightest 1."""
    grey_HW = image_CHW.float().mean(dim=0).cpu().numpy()
    step = -(-max(grey_HW.shape) // MAX_PIXELS)
    low, high = float(grey_HW.min()), float(grey_HW.max())
    return (grey_HW[::step, ::step] - low) / ((high - low) or 1.0)


def _map(title: str, values: np.ndarray, highest: float) -> HeatMap:
    rows, columns = ([str(place) for place in range(size)] for size in values.shape)
    return HeatMap(title, values, rows, columns, role="share", highest=highest, compact=True)


def _image_map(image: np.ndarray) -> HeatMap:
    return _map("image", image, 1.0)
