"""A logit as an exact sum over the parts of a model.

    logit = u . N(token + position + head 0.0 + head 0.1 + ... + feed-forward 0 + head 1.0 + ...)
          = u . F token + u . F position + u . F head 0.0 + ...

with u a row of the head's matrix, N the final norm, and F the same norm, frozen.

The stream is a sum, and the head is linear. What stands between is the final norm: it is *frozen*, its division by the
length of the true stream being taken for a constant, which makes it linear (F) and all of this exact. So it is with the
norms behind the layers of sandwich, output-norm and post-norm blocks, and with the activation in front of a masked
model's head.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", https://transformer-circuits.pub/2021/framework
(the residual stream as a sum of heads); TransformerLens calls it direct logit attribution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.inspection.reading import Reading, stack_of
from glassformer.inspection.trace import edit
from glassformer.layers import ACTIVATIONS, LayerNorm, Positions, ZeroCenteredRMSNorm

ATTENTIONS = ("attention", "cross_attention")

Key = tuple[str, "int | None", "int | None"]
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A summand of a logit.

    kind: "token", "n-grams", "segment" and "position" of the embedding; "attention" and "cross_attention", of which
    each head is one; "feedforward"; "attention bias" and "cross_attention bias", of the matrix behind the heads; "norm
    bias", of the norms that the stream goes through; "transform bias" and "head bias", of the head over the vocabulary.
    layer, head: from 0; None where there is none, or (norm bias) of the embedding's and the final norm.
    """

    kind: str
    layer: int | None
    head: int | None
    value: float


@dataclass
class Place:
    """What passed the taps at one place of a text: tensors by their names without the prefix, in fp64 on the CPU.

    head: (V,), what the head over the vocabulary put out, before a soft cap."""

    taps: dict[str, Tensor]
    head: Tensor


def watch_place(seen: Reading, place: int, *names: str) -> Place:
    """One pass; of what passes the taps only this place is kept."""
    stack, prefix = stack_of(seen.model)
    head_module = head_of(stack)
    taps: dict[str, Tensor] = {}
    head: list[Tensor] = []

    def keep(name: str, part: Tensor) -> None:
        taps[name.removeprefix(prefix)] = part[0].cpu().double()

    with contextlib.ExitStack() as watching:
        if names:
            watching.enter_context(edit(seen.model, [prefix + name for name in names], keep, T=place))
        hook = head_module.register_forward_hook(
            lambda _, __, out: head.append((out[0, place] if out.dim() == 3 else out[0]).cpu().double())
        )
        watching.callback(hook.remove)
        seen.logits() if head_module is stack.head else seen.class_logits()
    return Place(taps, head[-1])


def head_of(stack: Any) -> nn.Linear:
    """The head over the vocabulary, or over the classes of a sequence.

    Raises:
        UsageError: more than a linear layer lies between the vector of the first place and the classes.
    """
    if stack.head is not None:
        return stack.head  # type: ignore[no-any-return]
    c = stack.config
    if c.pooling != "first" or c.pooler or c.distillation == "heads":
        given = f"pooling={c.pooling}, pooler={str(c.pooler).lower()}, distillation={c.distillation}"
        raise UsageError(f"with {given} a logit is no sum over the parts at one place; look lens takes this classifier")
    return stack.classifier  # type: ignore[no-any-return]


def frozen(norm: Any, at_C: Tensor) -> tuple[Map, Tensor | None]:
    """A norm as a linear map, its scale being that of one vector (C,), and its bias. Of this vector the two are what
    the norm gives."""
    weight, bias = norm.weight.detach().cpu().double(), getattr(norm, "bias", None)
    if isinstance(norm, LayerNorm):
        scale = weight / (at_C.var(unbiased=False) + norm.eps).sqrt()
        shift = None if bias is None else bias.detach().cpu().double()
        return lambda v: (v - v.mean(dim=-1, keepdim=True)) * scale, shift
    weight = 1 + weight if isinstance(norm, ZeroCenteredRMSNorm) else weight
    scale = weight / (at_C.square().mean() + norm.eps).sqrt()
    return lambda v: v * scale, None


class Sum:
    """Vectors (C,) that add up to the stream, by what they come from."""

    def __init__(self) -> None:
        self.terms: dict[Key, Tensor] = {}

    def add(self, kind: str, layer: int | None, head: int | None, vector: Tensor | None) -> None:
        if vector is not None:
            key = kind, layer, head
            self.terms[key] = self.terms[key] + vector if key in self.terms else vector

    def through(self, norm: nn.Module, at_C: Tensor, layer: int | None = None) -> None:
        """All of it through a norm that is frozen at `at`."""
        linear, bias = frozen(norm, at_C)
        self.map(linear)
        self.add("norm bias", layer, None, bias)

    def map(self, linear: Map) -> None:
        self.terms = {key: linear(vector) for key, vector in self.terms.items()}

    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum(dim=0)


WATCHED = (
    "embedding.*",
    "blocks.*.residual.*",
    "blocks.*.*attention.pattern",
    "blocks.*.*attention.heads",
    "blocks.*.*attention.output",
    "blocks.*.feedforward.output",
)
"""The taps that `logit_parts` needs, and the pattern, which shows where a head looks."""


def logit_parts(stack: Any, place: Place, u_V: Tensor) -> list[Part]:
    """What each part adds to a weighted sum of logits; `u` (V,) are the weights (1 for one token, -1 for another).

    Raises:
        UsageError: the weights are kept in fewer bits, and their products are not linear.
    """
    head = head_of(stack)
    for module in (head, *(getattr(block, kind).out for block in stack.blocks for kind in kinds_of(block))):
        if type(module) is not nn.Linear:
            raise UsageError(
                f"this model's matrices are {type(module).__name__}s, which round what they are given, so that no sum "
                "is exact; load it with dtype=fp32"
            )
    parts = Sum()
    _embed(stack, place.taps, parts)
    for layer, block in enumerate(stack.blocks):
        _block(stack, block, layer, place.taps, parts)
    if stack.final_norm is not None:
        parts.through(stack.final_norm, place.taps[f"blocks.{len(stack.blocks) - 1}.residual.after"])
    if getattr(stack, "transform", None) is not None:
        _transform(stack, parts)
    some = u_V.nonzero().flatten()
    weight = head.weight[some.to(head.weight.device)].detach().cpu().double()
    direction_C = u_V[some].double() @ weight * stack.config.logit_scale
    found = [Part(*key, value=float(vector @ direction_C)) for key, vector in parts.terms.items()]
    if head.bias is not None:
        bias = float(u_V.double() @ head.bias[: len(u_V)].detach().cpu().double())
        found.append(Part("head bias", None, None, bias))
    return found


def kinds_of(block: Any) -> list[str]:
    """The kinds of attention that a block has."""
    return [kind for kind in ATTENTIONS if block.crosses or kind != "cross_attention"]


def _embed(stack: Any, taps: dict[str, Tensor], parts: Sum) -> None:
    stem = stack.embedding
    parts.add("token", None, None, taps["embedding.token"] * stem.scale)
    if getattr(stem, "n_grams", None) is not None:
        parts.add("n-grams", None, None, taps["embedding.n_grams.sum"])
    if getattr(stem, "segment", None) is not None:
        parts.add("segment", None, None, stem.segment.weight[0].detach().cpu().double())
    if type(stack.positions).add is not Positions.add:
        parts.add("position", None, None, taps["embedding.position"] - parts.total())
    if getattr(stem, "norm", None) is not None:
        parts.through(stem.norm, taps["embedding.position"])


def _block(stack: Any, block: Any, layer: int, taps: dict[str, Tensor], parts: Sum) -> None:
    """Add what the layers of one block write, in their order; x follows the true stream."""
    x_C = taps[f"blocks.{layer}.residual.before"]
    for kind in (*kinds_of(block), "feedforward"):
        out_C = taps[f"blocks.{layer}.{kind}.output"]
        written = Sum()
        if kind == "feedforward":
            written.add(kind, layer, None, out_C)
        else:
            _heads(getattr(block, kind).out, taps[f"blocks.{layer}.{kind}.heads"], kind, layer, written)
        norms = block.norms(kind)
        if norms.behind is not None:
            written.through(norms.behind, out_C, layer)
            out_C = written.total()
        for key, vector in written.terms.items():
            parts.add(*key, vector)
        x_C = x_C + out_C
        if norms.of_sum is not None:
            parts.through(norms.of_sum, x_C, layer)
            linear, bias = frozen(norms.of_sum, x_C)
            x_C = linear(x_C) if bias is None else linear(x_C) + bias


def _heads(out: nn.Linear, heads_HD: Tensor, kind: str, layer: int, written: Sum) -> None:
    """The matrix behind the heads has a part for each: (C, H D) is H times (C, D)."""
    H, D = heads_HD.shape
    weight_CHD = out.weight.detach().cpu().double().view(-1, H, D)
    for head, vector in enumerate(torch.einsum("chd,hd->hc", weight_CHD, heads_HD)):
        written.add(kind, layer, head, vector)
    written.add(f"{kind} bias", layer, None, None if out.bias is None else out.bias.detach().cpu().double())


def _transform(stack: Any, parts: Sum) -> None:
    """BERT's layer before the vocabulary. An activation is a gate, z times g(z); the gate is frozen like the norms."""
    weight = stack.transform.weight.detach().cpu().double()
    parts.map(lambda v: weight @ v)
    parts.add("transform bias", None, None, stack.transform.bias.detach().cpu().double())
    z_C = parts.total()
    active_C = ACTIVATIONS[stack.config.activation](z_C)
    gate_C = torch.where(z_C == 0, 0.0, active_C / z_C)
    parts.map(lambda v: gate_C * v)
    parts.through(stack.transform_norm, active_C)
