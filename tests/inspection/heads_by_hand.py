"""Attention worked out from the weights alone, head by head: no tap, no layer of the house. And models to try it on.

What a block reads is taken by PyTorch's own hooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from stacks import FAMILIES, encoder, pair
from torch import Tensor
from toy_letters import letters
from toys import GEMMA3, toy_model

from glassformer.generation import source_ids

MODELS: dict[str, Any] = {
    "classic": toy_model,
    "modern": lambda: toy_model("modern"),
    "gemma 3": lambda: toy_model("modern", **GEMMA3),
    "capped, sinks": lambda: toy_model("modern", attention_softcap=1.7, attention_sinks=True, attention_scale=0.3),
    "window": lambda: toy_model(patterns=("window(3)", "causal")),
    "alibi": lambda: toy_model(positions="alibi"),
    "post-norm": lambda: toy_model(norm_place="post"),
    "side by side": lambda: toy_model(positions="rotary", head_width=6, parallel=True, qkv_bias=False),
    "norms on what is written": lambda: toy_model("modern", norm_place="output", qk_norm_over="all"),
    "first layer without positions": lambda: toy_model("modern", positioned_layers=(False, True)),
    "encoder": encoder,
    "post-norm encoder": lambda: encoder(family="original"),
    "pair": lambda: pair(family="original"),
    "grouped pair": FAMILIES["modern pair"],
    "sandwich pair": FAMILIES["sandwich pair"],
    "output-norm pair": lambda: pair(norm_place="output", qk_norm=True, qk_norm_over="all"),
    "T5": FAMILIES["T5"],
}


def made(name: str) -> Any:
    model = MODELS[name]()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("sinks"):
                parameter.add_(torch.arange(len(parameter)) / 3)  # no two alike
    return model


@dataclass
class Heads:
    """What one layer of attention reads, and all of it worked out; (H, ...) everywhere."""

    before: Tensor  # the stream (T, C)
    x: Tensor  # what queries are made of (T, C)
    parts: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None  # of all heads (T, C), as the layer itself has it


@torch.no_grad()
def by_hand(stack: Any, layer: int, run: Any, *, cross: bool = False, memory: Any = None) -> Heads:
    """`run()` runs the model once; `memory` is the module whose output the keys of cross-attention are made of."""
    block, config = stack.blocks[layer], stack.config
    part = block.cross_attention if cross else block.attention
    held: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, args, out: held.update(before=args[0][0])),
        part.register_forward_hook(lambda _, args, out: held.update(output=out[0])),
        part.register_forward_pre_hook(lambda _, args: held.update(x=args[0][0])),
    ]
    if memory is not None:
        hooks.append(memory.register_forward_hook(lambda _, args, out: held.update(memory=out[0])))
    run()
    for hook in hooks:
        hook.remove()
    x = held["x"].double()
    inputs = held["memory"].double() if cross else x
    if not cross:
        normed = (
            x if config.norm_place in ("post", "output") else norm_by_hand(config, block.attention_norm, held["before"])
        )
        torch.testing.assert_close(x, normed.double(), atol=1e-5, rtol=1e-5)
    T, S, D, H, K = len(x), len(inputs), config.head_width, config.n_head, config.n_kv_head
    queries, keys, values = [], [], []
    for h in range(H):
        k = h * K // H  # heads 0, 1, 2 ask key-value head 0, and so on
        if cross:
            q_layer, q_at = part.query, h * D
            kv_layer, k_at, v_at = part.key_value, k * D, (K + k) * D
        else:
            q_layer = kv_layer = part.qkv
            q_at, k_at, v_at = h * D, (H + k) * D, (H + K + k) * D
        queries.append(linear(x, q_layer, q_at, D))
        keys.append(linear(inputs, kv_layer, k_at, D))
        values.append(linear(inputs, kv_layer, v_at, D))
    q, k, v = torch.stack(queries), torch.stack(keys), torch.stack(values)
    plain = q, k
    if config.qk_norm:
        if config.qk_norm_over == "all":  # the heads of a token side by side, as one vector
            q, k = q.transpose(0, 1).flatten(1), k[:: H // K].transpose(0, 1).flatten(1)
        q, k = rms(q, part.query_norm, config), rms(k, part.key_norm, config)
        if config.qk_norm_over == "all":
            q, k = q.view(T, H, D).transpose(0, 1), k.view(S, K, D).transpose(0, 1).repeat_interleave(H // K, dim=0)
    if config.positions == "rotary" and not cross and config.is_positioned(layer):
        is_local = stack.masks[layer].is_local and config.rotary_base_local is not None
        base = config.rotary_base_local if is_local else config.rotary_base
        q, k = rotated(q, base), rotated(k, base)
    dots = torch.stack([torch.stack([(q[h, t] * k[h]).sum(-1) for t in range(T)]) for h in range(H)])
    scaled = dots * (config.attention_scale or 1 / math.sqrt(D))
    if not cross and config.positions == "alibi":
        assert H == 3
        distance = (torch.arange(T)[:, None] - torch.arange(S)).abs().double()
        scaled = scaled - torch.tensor([2**-4, 2**-8, 2**-2])[:, None, None] * distance
    if not cross and config.positions == "relative":
        # the table of the stack at the bucket of the distance, which tests/layers holds to T5's own
        scaled = scaled + stack.positions.bias(torch.arange(T), torch.arange(S))
    cap = config.attention_softcap
    scores = scaled if cap is None else cap * (scaled / cap).tanh()
    may = torch.ones(T, S, dtype=torch.bool)
    for t in range(T):
        for s in range(S):
            name = "full" if cross else str(stack.masks[layer])
            may[t, s] = name == "full" or (s <= t and (name == "causal" or t - s < 3))
    e = scores.exp() * may
    total = e.sum(-1, keepdim=True)
    if part.sinks is not None:
        total = total + part.sinks.double().exp()[:, None, None]
    weights = e / total
    found = weights @ v
    text = torch.stack([found[h] @ part.out.weight[:, h * D : (h + 1) * D].double().T for h in range(H)])
    parts = {
        "query_plain": plain[0],
        "key_plain": plain[1],
        "query": q,
        "key": k,
        "value": v,
        "dots": dots,
        "scaled": scaled,
    }
    parts |= {"scores": scores, "weights": weights, "weighted_values": found, "head_output": text, "may": may}
    return Heads(held["before"], x, parts, held["output"])


def linear(x: Tensor, layer: Any, start: int, n: int) -> Tensor:
    y = x @ layer.weight[start : start + n].double().T
    return y if layer.bias is None else y + layer.bias[start : start + n].double()


def norm_by_hand(config: Any, norm: Any, x: Tensor) -> Tensor:
    x = x.double()
    if config.norm == "layernorm":
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + config.norm_eps).sqrt()
        return y * norm.weight + (0 if norm.bias is None else norm.bias)
    return rms(x, norm, config)


def rms(x: Tensor, norm: Any, config: Any) -> Tensor:
    scale = norm.weight.double() + (1 if config.norm == "zero_centered_rmsnorm" else 0)
    return x / ((x * x).mean(-1, keepdim=True) + config.norm_eps).sqrt() * scale


def rotated(x_HTD: Tensor, base: float) -> Tensor:
    """Channels i and i + D/2 are a complex number, turned by position times base^(-2i/D)."""
    H, T, D = x_HTD.shape
    angle = torch.arange(T).double()[:, None] * base ** (-2 * torch.arange(D // 2).double() / D)
    z = torch.complex(x_HTD[..., : D // 2], x_HTD[..., D // 2 :]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((z.real, z.imag), dim=-1)


TEXT, ANSWERS = "AZ ab AZ b", "cd cd Z"
TOKENIZER = letters()


@dataclass
class Case:
    """A model with a text, and its layers of one kind."""

    model: Any
    kind: str

    @property
    def stack(self) -> Any:
        if not hasattr(self.model, "decoder"):
            return self.model
        return self.model.encoder if self.kind == "encoder" else self.model.decoder

    @property
    def asked(self) -> dict[str, Any]:
        """What `attention` and `step` are given."""
        return {"kind": self.kind, **({"target": ANSWERS} if hasattr(self.model, "decoder") else {})}

    def run(self) -> None:
        ids = TOKENIZER.encode_batch([TEXT])
        if not hasattr(self.model, "decoder"):
            self.model(ids)
            return
        start = torch.tensor([[self.model.config.start_token]])
        self.model(
            torch.tensor([source_ids(TOKENIZER, TEXT)]), torch.cat((start, TOKENIZER.encode_batch([ANSWERS])), 1)
        )

    def by_hand(self, layer: int) -> Heads:
        cross = self.kind == "cross"
        return by_hand(self.stack, layer, self.run, cross=cross, memory=self.model.encoder if cross else None)


def case(name: str) -> Case:
    """By the name of a model and, of an encoder-decoder, what looks: "T5: cross"."""
    model, _, kind = name.partition(": ")
    return Case(made(model), kind or "self")


CASES = [name for name in MODELS if "pair" not in name and name != "T5"]
CASES += [f"{name}: {kind}" for name in MODELS if name not in CASES for kind in ("self", "cross", "encoder")]
