"""The matrices of one head, cut out of those that all heads of a layer have together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.inspection.weights import is_compressed, matrix_of
from glassformer.layers import CrossAttention, Positions


@dataclass
class Matrices:
    """The weights of one head, fp32 on the CPU: query, key, value (D, C) and their biases (D,) or None; out (H, C, D),
    of all heads; inputs (S, C), which keys and values are made of; turns, the positions' rotation of a vector."""

    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor | None
    key_bias: Tensor | None
    value_bias: Tensor | None
    out: Tensor
    inputs: Tensor
    positions: Positions | None

    def turn(self, vectors_SD: Tensor, places: list[int]) -> Tensor:
        """Vectors (S, D) as positions turn them at these places."""
        if self.positions is None:
            return vectors_SD
        device = device_of(self.positions)
        x_11SD = vectors_SD[None, None].to(device)
        return cpu(self.positions.rotate(x_11SD, x_11SD, torch.tensor(places, device=device))[0])[0, 0]


def matrices_of(part: Any, head: int, inputs_SC: Tensor, positions: Positions | None) -> Matrices:
    """The rows of one head of an `Attention` or a `CrossAttention`, and all columns of what writes back."""
    D, kv = part.head_width, key_value_head(part, head)
    if isinstance(part, CrossAttention):
        layers, starts = (part.query, part.key_value, part.key_value), (0, 0, part.n_kv_head * D)
    else:
        n_query, n_key, _ = part.qkv_rows
        layers, starts = (part.qkv,) * 3, (0, n_query, n_query + n_key)
    rows = [slice(n + place * D, n + (place + 1) * D) for n, place in zip(starts, (head, kv, kv), strict=True)]
    query, key, value = (weight_of(layer)[place] for layer, place in zip(layers, rows, strict=True))
    bias_of = [cpu(layer.bias)[place] if has_bias(layer) else None for layer, place in zip(layers, rows, strict=True)]
    out_HCD = weight_of(part.out).unflatten(1, (part.n_head, D)).transpose(0, 1)
    turns = None if positions is None or type(positions).rotate is Positions.rotate else positions
    return Matrices(query, key, value, bias_of[0], bias_of[1], bias_of[2], out_HCD, inputs_SC, turns)


def key_value_head(part: Any, head: int) -> int:
    """The head whose keys and values a head shares with its group."""
    return head // (part.n_head // part.n_kv_head)


def weight_of(layer: nn.Module) -> Tensor:
    """The matrix (out, in) of a linear layer in fp32, also of one whose weights are kept in 4 or 8 bits.

    Raises:
        UsageError: it has none that can be written down.
    """
    if not (isinstance(layer, nn.Linear) or is_compressed(layer)):
        raise UsageError(f"the weights of a {type(layer).__name__} cannot be read; load the model in fp32")
    return cpu(matrix_of(layer))


def device_of(positions: nn.Module) -> torch.device:
    """Where it keeps what it has, if it has anything."""
    held = [*positions.buffers(), *positions.parameters()]
    return held[0].device if held else torch.device("cpu")


def cpu(tensor: Tensor) -> Tensor:
    """fp32 on the CPU, without gradients."""
    return tensor.detach().float().cpu()


def has_bias(layer: Any) -> bool:
    """Whether a linear layer adds something."""
    return getattr(layer, "bias", None) is not None
