"""One head for one query, stage by stage: each is computed from the one before and compared with the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.inspection.heads import AttentionLayers
from glassformer.inspection.weights import is_compressed, matrix_of
from glassformer.layers import CrossAttention, Positions

Stages = dict[str, Any]  # tensors of fp32 on the CPU, and numbers


class HeadComputation:
    """One head of one layer at one query position, and its weights: `stages` computes everything from what passed the
    taps `self.taps`.

    C channels, D width of the head, H heads, S keys, T queries.
    """

    def __init__(self, at: AttentionLayers, layer: int, head: int, position: int):
        self.at, self.layer, self.head, self.position = at, layer, head, position
        self.name = at.names[layer]  # decoder.blocks.0.attention
        block, self.crosses = at.stack.blocks[layer], at.kind == "cross"
        self.attention = block.cross_attention if self.crosses else block.attention
        self.norms = block.norms("cross_attention" if self.crosses else "attention")
        self.key_value_head = head // (self.attention.n_head // self.attention.n_kv_head)
        self.positions: Positions | None = None if self.crosses else at.stack.layer_positions(layer)
        self.rotates = self.positions is not None and type(self.positions).rotate is not Positions.rotate
        block_name = self.name.rpartition(".")[0]
        self.after_tap = f"{block_name}.residual.middle"
        self.before_tap = self.after_tap if self.crosses else f"{block_name}.residual.before"
        self.taps = [f"{self.name}.*", self.before_tap, self.after_tap]
        self.taps += ["encoder.final.norm"] if self.crosses else []
        self.inputs_SC = torch.empty(0)  # of `stages`: what keys and values are made of

    def stages(self, seen: Mapping[str, Tensor]) -> Stages:
        """All stages by the names of `AttentionWalkthrough`, and `differences` from the model's own numbers."""
        vectors = self._vectors(seen)
        scores = self._scores(vectors)
        weights = self._weights(scores, vectors["value"])
        stages = {**vectors, **scores, **weights, **self._output(seen, vectors["stream"], weights["weighted_values"])}
        own = {
            "scores": self._own(seen, "scores"),
            "weights": self._own(seen, "pattern"),
            "weighted_values": self._own(seen, "heads"),
            "output": cpu(seen[f"{self.name}.output"])[0, self.position],
        }
        if not self.crosses:  # no tap stands behind the sum of cross-attention
            own["after"] = cpu(seen[self.after_tap])[0, self.position]
        stages["differences"] |= {name: distance(stages[name], theirs) for name, theirs in own.items()}
        return stages

    def projections(self) -> list[tuple[Tensor, Tensor | None]]:
        """The rows of this head in the matrices of query, key and value, (D, C) each, and their biases (D,)."""
        part, D, kv = self.attention, self.attention.head_width, self.key_value_head
        if isinstance(part, CrossAttention):
            layers, starts = (part.query, part.key_value, part.key_value), (0, 0, part.n_kv_head * D)
        else:
            n_query, n_key, _ = part.qkv_rows
            layers, starts = (part.qkv,) * 3, (0, n_query, n_query + n_key)
        rows = [slice(n + h * D, n + (h + 1) * D) for n, h in zip(starts, (self.head, kv, kv), strict=True)]
        return [
            (weight_of(layer)[some], None if bias_of(layer) is None else cpu(layer.bias)[some])
            for layer, some in zip(layers, rows, strict=True)
        ]

    def rotated(self, vectors_SD: Tensor, places: list[int]) -> Tensor:
        """Vectors as rotary positions turn them at these places."""
        if not self.rotates:
            return vectors_SD
        assert self.positions is not None
        device = device_of(self.positions)
        x_11SD = vectors_SD[None, None].to(device)
        return cpu(self.positions.rotate(x_11SD, x_11SD, torch.tensor(places, device=device))[0])[0, 0]

    def _vectors(self, seen: Mapping[str, Tensor]) -> Stages:
        """The stream, what is read of it, query, keys and values; later stages use the last three as the model had
        them."""
        part, h, kv, t = self.attention, self.head, self.key_value_head, self.position
        stream_TC = seen[self.before_tap][0]
        x_TC = stream_TC if self.norms.before is None else self.norms.before(stream_TC)
        self.inputs_SC = inputs_SC = cpu(seen["encoder.final.norm"][0] if self.crosses else x_TC)
        query, key, value = self.projections()
        plain_D, key_plain_SD = _linear(cpu(x_TC)[t], *query), _linear(inputs_SC, *key)
        normed_D, key_normed_SD = plain_D, key_plain_SD
        if part.query_norm is not None and part.norms_each_head:
            normed_D = cpu(part.query_norm(plain_D.to(stream_TC)))
            key_normed_SD = cpu(part.key_norm(key_plain_SD.to(stream_TC)))
        elif part.query_norm is not None:  # over all heads together: the others count too
            queries_TX, keys_SX = _of_all_heads(part, x_TC, inputs_SC.to(stream_TC))
            normed_D = cpu(part.query_norm(queries_TX[t])).unflatten(0, (part.n_head, -1))[h]
            key_normed_SD = cpu(part.key_norm(keys_SX)).unflatten(1, (part.n_kv_head, -1))[:, kv]
        query_D = cpu(seen[f"{self.name}.query"])[0, h, t]
        key_SD, value_SD = cpu(seen[f"{self.name}.key"])[0, kv], cpu(seen[f"{self.name}.value"])[0, kv]
        return {
            "stream": cpu(stream_TC)[t],
            "normed": cpu(x_TC)[t],
            "query_plain": plain_D,
            "query_normed": normed_D,
            "query": query_D,
            "key_plain": key_plain_SD,
            "key_normed": key_normed_SD,
            "key": key_SD,
            "value": value_SD,
            "differences": {
                "query": distance(self.rotated(normed_D[None], [t])[0], query_D),
                "key": distance(self.rotated(key_normed_SD, list(range(len(key_normed_SD)))), key_SD),
                "value": distance(_linear(inputs_SC, *value), value_SD),
            },
        }

    def _scores(self, vectors: Stages) -> Stages:
        """How well each key fits: product, scale, what positions add, cap."""
        part, bias_S = self.attention, None
        dots_S = vectors["key"] @ vectors["query"]
        if self.positions is not None:
            pos = torch.arange(len(dots_S), device=device_of(self.positions))
            bias_HTS = self.positions.bias(pos, pos)
            bias_S = None if bias_HTS is None else cpu(bias_HTS)[self.head, self.position]
        scaled_S = dots_S * part.scale if bias_S is None else dots_S * part.scale + bias_S
        scores_S = scaled_S if part.softcap is None else part.softcap * torch.tanh(scaled_S / part.softcap)
        scores = {"dots": dots_S, "scaled": scaled_S, "scores": scores_S, "bias": bias_S}
        return {**scores, "scale": part.scale, "softcap": part.softcap}

    def _weights(self, scores: Stages, value_SD: Tensor) -> Stages:
        """Mask and softmax, then the weighted sum of values."""
        sinks = self.attention.sinks
        visible_S = torch.from_numpy(self.at.visible[self.layer, self.position].copy())
        masked_S = scores["scores"].masked_fill(~visible_S, -torch.inf)
        sink = None if sinks is None else cpu(sinks)[self.head]
        largest = masked_S.max() if sink is None else torch.maximum(masked_S.max(), sink)
        exponentials_S = torch.where(visible_S, (masked_S - largest).exp(), 0.0)  # no visible key: 0
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
            "weighted_values": weights_S @ value_SD,
        }

    def _output(self, seen: Mapping[str, Tensor], stream_C: Tensor, weighted_values_D: Tensor) -> Stages:
        """What this head and the others write, and the stream behind it."""
        out = self.attention.out
        out_HCD = weight_of(out).unflatten(1, (self.attention.n_head, -1)).transpose(0, 1)
        heads_HD = cpu(seen[f"{self.name}.heads"])[0, :, self.position].clone()
        heads_HD[self.head] = weighted_values_D
        written_HC = torch.einsum("hcd,hd->hc", out_HCD, heads_HD)
        bias_C = bias_of(out)
        output_C = written_HC.sum(dim=0) if bias_C is None else written_HC.sum(dim=0) + bias_C
        like = seen[self.before_tap]
        added_C = output_C if self.norms.behind is None else cpu(self.norms.behind(output_C.to(like)))
        sum_C = stream_C + added_C
        return {
            "head_output": written_HC[self.head],
            "output_by_head": written_HC,
            "output_bias": bias_C,
            "output": output_C,
            "added": added_C,
            "sum": sum_C,
            "after": sum_C if self.norms.of_sum is None else cpu(self.norms.of_sum(sum_C.to(like))),
        }

    def _own(self, seen: Mapping[str, Tensor], tap: str) -> Tensor:
        """What passed a tap (B, H, T, ...), of this head and query."""
        return cpu(seen[f"{self.name}.{tap}"])[0, self.head, self.position]


def _of_all_heads(part: Any, x_TC: Tensor, inputs_SC: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (T, H D) and keys (S, K D) before their norm."""
    if isinstance(part, CrossAttention):
        return part.query(x_TC), part.key_value(inputs_SC).chunk(2, dim=-1)[0]
    queries_TX, keys_TX, _ = part.qkv(x_TC).split(part.qkv_rows, dim=-1)
    return queries_TX, keys_TX


def weight_of(layer: nn.Module) -> Tensor:
    """The matrix (out, in) of a linear layer in fp32, also of one whose weights are kept in 4 or 8 bits.

    Raises:
        UsageError: it has none that can be written down.
    """
    if not (isinstance(layer, nn.Linear) or is_compressed(layer)):
        raise UsageError(f"the weights of a {type(layer).__name__} cannot be read; load the model in fp32")
    return cpu(matrix_of(layer))


def bias_of(layer: Any) -> Tensor | None:
    """The bias of a linear layer, if it has one."""
    bias = getattr(layer, "bias", None)
    return None if bias is None else cpu(bias)


def device_of(positions: nn.Module) -> torch.device:
    """The device of its tensors, if it has any."""
    return next((x.device for x in (*positions.buffers(), *positions.parameters())), torch.device("cpu"))


def cpu(tensor: Tensor) -> Tensor:
    """fp32 on the CPU, without gradients."""
    return tensor.detach().float().cpu()


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of two numbers."""
    return float((a - b).abs().max())


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.T if bias is None else x @ weight.T + bias
