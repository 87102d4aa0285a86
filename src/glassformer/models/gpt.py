"""A GPT to be read in one sitting: the lecture's model in plain PyTorch, with nothing else around it.

    ids ──► token + position embedding ──► block ──► ... ──► block ──► norm ──► head ──► logits

It is the readable twin of `Decoder` in its "classic" form (GPT-2: Radford et al. 2019; the lecture is
https://www.youtube.com/watch?v=kCc8FmEb1nY). Parameters have the same names, so that one state_dict serves both, and a
test holds their logits equal. `Decoder` adds what this leaves out: a cache, taps, and the choices of `ModelConfig`.

Shapes: B batch, T time, C channels (n_embd), H heads, D = C / H, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import UsageError


@dataclass
class GPTConfig:
    """The sizes of a GPT; the defaults are GPT-2's smallest, 124 million parameters."""

    vocab_size: int = 50_257
    block_size: int = 1024  # the longest text, in tokens
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    bias: bool = True
    tied_head: bool = True  # the head reads with the embedding's table
    activation: str = "gelu_new"  # or "gelu", "relu"


class LayerNorm(nn.Module):
    """Subtract the mean over channels, divide by the standard deviation, scale, shift: (..., C) -> (..., C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if config.bias else None

    def forward(self, x_BTC: Tensor) -> Tensor:
        return F.layer_norm(x_BTC, self.weight.shape, self.weight, self.bias, eps=1e-5)


class SelfAttention(nn.Module):
    """Each token takes a weighted mean of the values of the tokens up to itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # query, key and value in one product
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        B, T, C = x_BTC.shape
        qkv = self.qkv(x_BTC).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        scores_BHTT = q @ k.transpose(-2, -1) / math.sqrt(C // self.n_head)
        future_TT = torch.ones(T, T, dtype=torch.bool, device=x_BTC.device).triu(diagonal=1)
        weights_BHTT = scores_BHTT.masked_fill(future_TT, -math.inf).softmax(dim=-1)  # each row sums to 1
        y_BTC = (weights_BHTT @ v).transpose(1, 2).reshape(B, T, C)  # the heads side by side
        return self.out(y_BTC)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """What each token computes by itself: (B, T, C) -> (B, T, 4 C) -> (B, T, C)."""

    ACTIVATIONS = {"gelu_new": lambda x: F.gelu(x, approximate="tanh"), "gelu": F.gelu, "relu": F.relu}  # noqa: RUF012

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.activation = self.ACTIVATIONS[config.activation]

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x_BTC)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Communicate, then compute; both add to the stream what they make of a normed copy: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.attention_norm, self.attention = LayerNorm(config), SelfAttention(config)
        self.feedforward_norm, self.feedforward = LayerNorm(config), FeedForward(config)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC))
        return x_BTC + self.feedforward(self.feedforward_norm(x_BTC))


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V), where logits[:, t] are about the token at t + 1."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.embedding: Any = nn.ModuleDict({"token": nn.Embedding(config.vocab_size, config.n_embd)})
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = LayerNorm(config)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied_head:
            self.head.weight = self.embedding["token"].weight  # type: ignore[assignment]
        for name, parameter in self.named_parameters():  # GPT-2's initialisation; norms start as they are
            writes = name.endswith(("out.weight", "down.weight"))  # into the stream: less, so that it keeps its scale
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer) if writes else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def of(cls, decoder: Any) -> GPT:
        """The twin of a `Decoder`: the same weights, copied, so the same logits.

        Raises:
            UsageError: the decoder is of a form that this file does not write out.
        """
        c = decoder.config
        config = GPTConfig(c.vocab_size, c.block_size, c.n_layer, c.n_head, c.n_embd, c.bias, c.tied_head, c.activation)
        sizes = {name: getattr(config, name) for name in GPTConfig.__dataclass_fields__}
        same = c.model_copy(update={"family": "classic"}) == type(c).make(family="classic", **sizes)
        if not same or c.activation not in FeedForward.ACTIVATIONS:
            raise UsageError(
                "models/gpt.py is the classic form alone, and this decoder has another form; use the decoder itself"
            )
        twin = cls(config).to(decoder.head.weight)
        twin.load_state_dict(decoder.state_dict())
        return twin.train(decoder.training)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, V); at most `block_size` tokens."""
        pos_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTC = self.embedding["token"](ids_BT) + self.positions(pos_T)
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return self.head(self.final_norm(x_BTC))  # type: ignore[no-any-return]

    def loss(self, ids_BT: Tensor) -> Tensor:
        """The mean cross-entropy of each next token, in nats, of texts (B, T + 1)."""
        return F.cross_entropy(self(ids_BT[:, :-1]).flatten(0, 1), ids_BT[:, 1:].flatten())

    @torch.no_grad()
    def generate(self, ids_BT: Tensor, max_new_tokens: int, temperature: float = 1.0) -> Tensor:
        """Sample a token, append it, again: (B, T) -> (B, T + max_new_tokens). What is read slides with the text."""
        for _ in range(max_new_tokens):
            logits_BV = self(ids_BT[:, -self.config.block_size :])[:, -1] / temperature
            ids_BT = torch.cat([ids_BT, torch.multinomial(logits_BV.softmax(dim=-1), num_samples=1)], dim=1)
        return ids_BT
