"""The stages of one head, each computed from the one before and compared with what the model had there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.inspection.head_weights import Matrices, cpu, device_of, has_bias, key_value_head, matrices_of
from glassformer.inspection.heads import Looking
from glassformer.layers import CrossAttention, Positions

Stages = dict[str, Any]  # tensors of fp32 on the CPU, and numbers


@dataclass
class Place:
    """One head of one layer, asked at one position."""

    at: Looking
    layer: int
    head: int
    position: int

    def __post_init__(self) -> None:
        self.name = self.at.names[self.layer]  # decoder.blocks.0.attention
        self.block = self.at.stack.blocks[self.layer]
        self.crosses = self.at.kind == "cross"
        self.part = self.block.cross_attention if self.crosses else self.block.attention
        self.norms = self.block.norms("cross_attention" if self.crosses else "attention")
        inside = self.name.rpartition(".")[0]
        self.middle_tap = f"{inside}.residual.middle"
        self.before_tap = self.middle_tap if self.crosses else f"{inside}.residual.before"
        self.taps = [f"{self.name}.*", self.before_tap, self.middle_tap]
        if self.crosses:
            self.taps.append("encoder.final.norm")

    @property
    def key_value_head(self) -> int:
        """The head whose keys and values this one shares with its group."""
        return key_value_head(self.part, self.head)

    @property
    def positions(self) -> Positions | None:
        """What its queries and keys know of positions; across, nothing."""
        return None if self.crosses else self.at.stack.layer_positions(self.layer)


def computed(place: Place, seen: Mapping[str, Tensor]) -> tuple[Stages, Matrices]:
    """All stages by the names of `StepView`, and `differences`."""
    matrices, vectors = _vectors(place, seen)
    scores = _scores(place, vectors)
    shares = _shares(place, scores, vectors["value"])
    written = _written(place, seen, matrices, vectors["before"], shares["found"])
    stages = {**vectors, **scores, **shares, **written}
    own = {
        "scores": _of(place, seen, "scores"),
        "weights": _of(place, seen, "pattern"),
        "found": _of(place, seen, "heads"),
        "output": cpu(seen[f"{place.name}.output"])[0, place.position],
    }
    if not place.crosses:  # no tap stands behind the sum of cross-attention
        own["after"] = cpu(seen[place.middle_tap])[0, place.position]
    stages["differences"] |= {name: distance(stages[name], theirs) for name, theirs in own.items()}
    return stages, matrices


def _vectors(place: Place, seen: Mapping[str, Tensor]) -> tuple[Matrices, Stages]:
    """The stream, what is read of it, query, keys and values; the last three go on as the model had them."""
    part, h, kv, t = place.part, place.head, place.key_value_head, place.position
    stream_TC = seen[place.before_tap][0]
    x_TC = stream_TC if place.norms.before is None else place.norms.before(stream_TC)
    inputs_SC = cpu(seen["encoder.final.norm"][0] if place.crosses else x_TC)
    m = matrices_of(place.part, place.head, inputs_SC, place.positions)
    plain_D = _linear(cpu(x_TC)[t], m.query, m.query_bias)
    key_plain_SD = _linear(inputs_SC, m.key, m.key_bias)
    normed_D, key_normed_SD = plain_D, key_plain_SD
    if part.query_norm is not None and part.norms_each_head:
        normed_D = cpu(part.query_norm(plain_D.to(stream_TC)))
        key_normed_SD = cpu(part.key_norm(key_plain_SD.to(stream_TC)))
    elif part.query_norm is not None:  # over all heads together: the others count too
        queries_TX, keys_SX = _of_all_heads(part, x_TC, inputs_SC.to(stream_TC))
        normed_D = cpu(part.query_norm(queries_TX[t])).unflatten(0, (part.n_head, -1))[h]
        key_normed_SD = cpu(part.key_norm(keys_SX)).unflatten(1, (part.n_kv_head, -1))[:, kv]
    query_D = cpu(seen[f"{place.name}.query"])[0, h, t]
    key_SD, value_SD = cpu(seen[f"{place.name}.key"])[0, kv], cpu(seen[f"{place.name}.value"])[0, kv]
    differences = {
        "query": distance(m.turn(normed_D[None], [t])[0], query_D),
        "key": distance(m.turn(key_normed_SD, list(range(len(key_normed_SD)))), key_SD),
        "value": distance(_linear(inputs_SC, m.value, m.value_bias), value_SD),
    }
    return m, {
        "before": cpu(stream_TC)[t],
        "normed": cpu(x_TC)[t],
        "query_plain": plain_D,
        "query_normed": normed_D,
        "query": query_D,
        "key_plain": key_plain_SD,
        "key_normed": key_normed_SD,
        "key": key_SD,
        "value": value_SD,
        "differences": differences,
    }


def _of_all_heads(part: Any, x_TC: Tensor, inputs_SC: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (T, H D) and keys (S, K D) before their norm."""
    if isinstance(part, CrossAttention):
        return part.query(x_TC), part.key_value(inputs_SC).chunk(2, dim=-1)[0]
    queries_TX, keys_TX, _ = part.qkv(x_TC).split(part.qkv_rows, dim=-1)
    return queries_TX, keys_TX


def _scores(place: Place, vectors: Stages) -> Stages:
    """How well each key fits: product, scale, what positions add, cap."""
    part, positions = place.part, place.positions
    dots_S = vectors["key"] @ vectors["query"]
    bias_S = None
    if positions is not None:
        pos = torch.arange(len(dots_S), device=device_of(positions))
        bias_HTS = positions.bias(pos, pos)
        bias_S = None if bias_HTS is None else cpu(bias_HTS)[place.head, place.position]
    scaled_S = dots_S * part.scale if bias_S is None else dots_S * part.scale + bias_S
    capped_S = scaled_S if part.softcap is None else part.softcap * torch.tanh(scaled_S / part.softcap)
    return {
        "dots": dots_S,
        "scale": part.scale,
        "bias": bias_S,
        "scaled": scaled_S,
        "softcap": part.softcap,
        "scores": capped_S,
    }


def _shares(place: Place, scores: Stages, value_SD: Tensor) -> Stages:
    """Mask and softmax, then the sum of values."""
    sinks = place.part.sinks
    visible_S = torch.from_numpy(place.at.visible[place.layer, place.position].copy())
    masked_S = scores["scores"].masked_fill(~visible_S, -torch.inf)
    sink = None if sinks is None else cpu(sinks)[place.head]
    largest = masked_S.max() if sink is None else torch.maximum(masked_S.max(), sink)
    exponentials_S = torch.where(visible_S, (masked_S - largest).exp(), 0.0)  # nobody to see: nothing
    on_sink = 0.0 if sink is None else float((sink - largest).exp())
    total = float(exponentials_S.sum()) + on_sink
    weights_S = exponentials_S / (total or 1.0)
    return {
        "visible": visible_S,
        "exponentials": exponentials_S,
        "total": total,
        "sink": None if sink is None else float(sink),
        "sink_share": on_sink / (total or 1.0),
        "weights": weights_S,
        "found": weights_S @ value_SD,
    }


def _written(place: Place, seen: Mapping[str, Tensor], m: Matrices, before_C: Tensor, found_D: Tensor) -> Stages:
    """What this head and the others write, and the stream behind it."""
    heads_HD = cpu(seen[f"{place.name}.heads"])[0, :, place.position].clone()
    heads_HD[place.head] = found_D
    said_HC = torch.einsum("hcd,hd->hc", m.out, heads_HD)
    bias_C = cpu(place.part.out.bias) if has_bias(place.part.out) else None
    output_C = said_HC.sum(dim=0) if bias_C is None else said_HC.sum(dim=0) + bias_C
    like = seen[place.before_tap]
    added_C = output_C if place.norms.behind is None else cpu(place.norms.behind(output_C.to(like)))
    sum_C = before_C + added_C
    return {
        "said": said_HC[place.head],
        "said_by_head": said_HC,
        "output_bias": bias_C,
        "output": output_C,
        "added": added_C,
        "sum": sum_C,
        "after": sum_C if place.norms.of_sum is None else cpu(place.norms.of_sum(sum_C.to(like))),
    }


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of two numbers."""
    return float((a - b).abs().max())


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.T if bias is None else x @ weight.T + bias


def _of(place: Place, seen: Mapping[str, Tensor], tap: str) -> Tensor:
    """What passed a tap (B, H, T, ...), of this head and query."""
    return cpu(seen[f"{place.name}.{tap}"])[0, place.head, place.position]
