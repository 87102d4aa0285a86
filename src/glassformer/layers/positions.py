"""Positions: how a token knows where it stands. Attention by itself sees a set, not a sequence.

One interface, each method an identity by default, so that attention never names a kind:

    add(x, pos)           on the way in, to the embedding            learned, sinusoidal
    rotate(q, k, pos)     inside attention, to queries and keys      rotary
    bias(pos_q, pos_k)    inside attention, to the scores            alibi, relative

`pos` holds the position of every token: (T,) when all rows of a batch agree, or (B, T). One object serves all layers of
a stack. Every kind takes the same keyword arguments, names those it needs and lets the others pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers.by_hand import pays_by_hand
from glassformer.layers.relative import alibi_slopes, bucket_of_distances, distances
from glassformer.layers.rotary_scaling import rotary_frequencies, rotated_channels

# Sines and cosines are kept for all positions up to this many numbers (16 MiB in fp32): a million positions of heads of
# 128 would be half a gigabyte, and the angles of the few positions of one call are computed in no time.
LARGEST_TABLE = 2**22

SINUSOID_LAYOUTS = ("interleaved", "halves", "whisper")


class Positions(nn.Module):
    """The interface, and the choice of having none (`NoPositions`): a causal model can still count a little."""

    def __init__(self, **rest: object):
        super().__init__()

    def add(self, x_BTC: Tensor, pos: Tensor) -> Tensor:
        """Positions written into the embedding: (B, T, C) -> (B, T, C)."""
        return x_BTC

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Positions written into queries and keys, in the shapes they came in."""
        return q_BHTD, k_BKTD

    def bias(self, pos_q: Tensor, pos_k: Tensor) -> Tensor | None:
        """What is added to the scores before the softmax: (H, T, S), or (B, H, T, S) where rows differ; None: nothing.

        pos_q (T,) or (B, T), pos_k (S,) or (B, S). Which position may attend to which is the mask's part.
        """
        return None


class NoPositions(Positions):
    """No positions at all."""


class LearnedPositions(Positions):
    """One learned vector a position, added to the embedding (GPT-2, BERT). There is none beyond `block_size`."""

    def __init__(self, *, n_embd: int, block_size: int, **rest: object):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(block_size, n_embd))
        nn.init.zeros_(self.weight)

    def add(self, x_BTC: Tensor, pos: Tensor) -> Tensor:
        return x_BTC + self.weight[pos]


class _Waves(Positions):
    """Cosines and sines of position times frequency, for the kinds made of them.

    They are looked up in tables of `block_size` rows, or, where those would be larger than `LARGEST_TABLE`, computed
    for the positions that are asked for; in double precision, for an angle of 10^5 radians has no digits to spare.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, frequency: Tensor, block_size: int, amplitude: float = 1.0):
        super().__init__()
        self._frequency, self._amplitude = frequency, amplitude  # no buffer: it must stay float64
        rows = block_size if block_size * len(frequency) <= LARGEST_TABLE else 0
        cos, sin = self._compute(torch.arange(rows))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def waves(self, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (...) -> cosines and sines, (..., n) each."""
        if len(self.cos):
            return self.cos[pos], self.sin[pos]
        return self._compute(pos)

    def _compute(self, pos: Tensor) -> tuple[Tensor, Tensor]:
        angle = pos.to(torch.float64).unsqueeze(-1) * self._frequency.to(pos.device)
        return (angle.cos() * self._amplitude).float(), (angle.sin() * self._amplitude).float()


class SinusoidalPositions(_Waves):
    """A fixed vector of sines and cosines a position, added to the embedding.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, sect. 3.5. Wavelengths grow from 2 pi by equal factors:

        interleaved    sin, cos, sin, cos, ...; frequencies 10000^(-2i / C)                the paper
        halves         all sines, then all cosines; the same frequencies                   Marian
        whisper        all sines, then all cosines; 10000^(-i / (C/2 - 1)), to the end     Whisper, tensor2tensor

    The models of the paper multiply the token embedding by sqrt(C) before they add this.
    """

    def __init__(self, *, n_embd: int, block_size: int, sinusoid_layout: str = "interleaved", **rest: object):
        if sinusoid_layout not in SINUSOID_LAYOUTS:
            hint = did_you_mean(sinusoid_layout, SINUSOID_LAYOUTS)
            raise UsageError(f"sinusoid_layout={sinusoid_layout!r} is unknown; {hint}")
        if n_embd % 2:
            raise UsageError(f"n_embd={n_embd} is odd; sines and cosines come in pairs: try n_embd={n_embd + 1}")
        n = n_embd // 2
        if sinusoid_layout == "whisper" and n < 2:
            raise UsageError(f"n_embd={n_embd} is too small for sinusoid_layout='whisper'; use 4 or more")
        steps = n - 1 if sinusoid_layout == "whisper" else n
        super().__init__(10_000.0 ** (-torch.arange(n, dtype=torch.float64) / steps), block_size)
        self.layout = sinusoid_layout

    def add(self, x_BTC: Tensor, pos: Tensor) -> Tensor:
        cos, sin = self.waves(pos)  # (T, C/2) or (B, T, C/2)
        interleaved = self.layout == "interleaved"
        table = torch.stack((sin, cos), dim=-1).flatten(-2) if interleaved else torch.cat((sin, cos), dim=-1)
        return x_BTC + table.to(x_BTC.dtype)


class RotaryPositions(_Waves):
    """Rotate each pair of channels of q and k by an angle that grows with the position.

    The dot product of a query at m and a key at n then depends on m - n alone. Su et al. 2021,
    https://arxiv.org/abs/2104.09864, eq. 34, with the pairs laid out as Llama and Qwen do: channel i with i + D/2.

    Args:
        rotary_base: pair i turns by rotary_base^(-2i / D) radians a position.
        rotary_fraction: the share of a head's channels that turn, the first ones; the others know no position
            (GPT-NeoX: Black et al. 2022, https://arxiv.org/abs/2204.06745, sect. 2.1).
        rotary_scaling: for texts longer than those of training, see `rotary_frequencies`.

    Raises:
        UsageError: an odd number of channels is to turn, or the scaling does not fit.
    """

    def __init__(
        self,
        *,
        head_width: int,
        block_size: int,
        rotary_base: float = 10_000.0,
        rotary_fraction: float = 1.0,
        rotary_scaling: Mapping[str, Any] | None = None,
        **rest: object,
    ):
        width = rotated_channels(head_width, rotary_fraction)
        frequency, amplitude = rotary_frequencies(width, rotary_base, rotary_scaling)
        super().__init__(frequency, block_size, amplitude)
        self.width = width

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.waves(pos)
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)  # (1, T, width/2) or (B, 1, T, width/2)
        return self._turn(q_BHTD, cos, sin), self._turn(k_BKTD, cos, sin)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The 2 x 2 rotation (a, b) -> (a cos - b sin, b cos + a sin), for all pairs at once."""
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        if pays_by_hand(x):
            return HandWrittenRotation.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]
        a, b = x[..., : self.width].chunk(2, dim=-1)
        turned = (a * cos - b * sin, b * cos + a * sin)
        return torch.cat(turned if self.width == x.shape[-1] else (*turned, x[..., self.width :]), dim=-1)


class HandWrittenRotation(torch.autograd.Function):
    """The rotation of `RotaryPositions` with its gradient, which is turned back by the same angles. The channels behind
    those of cos and sin, twice as many, stay. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _rotated(g, cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """(a, b) -> (a cos - sign b sin, b cos + sign a sin), each written once."""
    n, y = cos.shape[-1], torch.empty_like(x)
    (a, b, rest), (y_a, y_b, y_rest) = (z.split((n, n, z.shape[-1] - 2 * n), dim=-1) for z in (x, y))
    torch.mul(a, cos, out=y_a).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=y_b).addcmul_(a, sin, value=sign)
    y_rest.copy_(rest)
    return y


class AlibiPositions(Positions):
    """Attention with linear biases: each head takes from a score its slope times the distance, and learns nothing.

    Press et al. 2021, https://arxiv.org/abs/2108.12409. The same in both directions, which for a causal pattern is the
    paper, and for an encoder its symmetric variant.
    """

    slopes: Tensor

    def __init__(self, *, n_head: int, **rest: object):
        super().__init__()
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_head)), persistent=False)  # (H,)

    def bias(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        distance = distances(pos_q, pos_k).abs().unsqueeze(-3)  # (1, T, S) or (B, 1, T, S)
        return (-self.slopes.float()[:, None, None] * distance).to(self.slopes.dtype)


class RelativePositions(Positions):
    """A learned number for each bucket of distances and each head, added to the scores (T5).

    Raffel et al. 2020, https://arxiv.org/abs/1910.10683, sect. 2.1. `weight` (n_buckets, H) is one table for all layers
    of the stack. T5 itself does not divide scores by sqrt(D).

    Args:
        relative_buckets: how many, for both directions together unless `causal`.
        relative_max_distance: what is further away shares one bucket.
        causal: keys in the future are never seen, so that all buckets are for the past.

    Raises:
        UsageError: buckets and distance do not fit, see `bucket_of_distances`.
    """

    buckets: Tensor

    def __init__(
        self,
        *,
        n_head: int,
        relative_buckets: int = 32,
        relative_max_distance: int = 128,
        causal: bool = True,
        **rest: object,
    ):
        super().__init__()
        buckets = bucket_of_distances(relative_buckets, relative_max_distance, causal=causal)
        self.weight = nn.Parameter(torch.empty(relative_buckets, n_head))
        nn.init.zeros_(self.weight)
        self.max_distance = relative_max_distance
        self.register_buffer("buckets", buckets, persistent=False)  # (2 max_distance + 1,)

    def bias(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        M = self.max_distance
        distance = distances(pos_q, pos_k).clamp(-M, M) + M  # (T, S) or (B, T, S), row of the table
        by_distance = self.weight[self.buckets].t()  # (H, 2M + 1)
        bias = by_distance.index_select(1, distance.flatten()).unflatten(1, distance.shape)
        return bias if distance.dim() == 2 else bias.transpose(0, 1)  # (H, T, S) or (B, H, T, S)


POSITIONS: dict[str, type[Positions]] = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
    "alibi": AlibiPositions,
    "relative": RelativePositions,
}
