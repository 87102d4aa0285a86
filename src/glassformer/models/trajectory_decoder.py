"""A decoder of trajectories: what was hoped for, seen and done so far -> what to do next (Decision Transformer).

returns, states, actions ──stem──► three tokens a step ──► blocks ──► final norm ──► the vector of each state ──► action

Chen et al. 2021, https://arxiv.org/abs/2106.01345.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import KVCache
from glassformer.models.config import ModelConfig
from glassformer.models.stems import TripleStem
from glassformer.models.transformer import Transformer, norm_of


class TrajectoryDecoderConfig(ModelConfig):
    """A decoder of steps of three tokens; `block_size` is three times the steps of its context. `vocab_size` is 1 and
    unused."""

    vocab_size: int = Field(default=1, ge=1, le=1)
    state_size: int = Field(ge=1, le=1_000_000)
    """numbers of an observation"""
    action_size: int = Field(ge=1, le=1_000_000)
    """actions to choose from, or numbers of a continuous action"""
    action_tanh: bool = False
    """what is predicted stays between -1 and 1 (continuous actions)"""
    max_timestep: int = Field(ge=1, le=10_000_000)
    """steps of the longest episode"""
    embedding_norm: bool = True

    @model_validator(mode="after")
    def _whole_steps(self) -> TrajectoryDecoderConfig:
        if self.block_size % 3:
            nearest = max(3, 3 * round(self.block_size / 3))
            raise UsageError(
                f"block_size={self.block_size} is no whole number of steps of three tokens; use block_size={nearest}"
            )
        return self

    @property
    def reads(self) -> str:
        return "trajectory"


class TrajectoryDecoder(Transformer):
    """A causal Transformer over returns, states and actions: (B, K) steps -> actions (B, K, A): logits of those to
    choose from, or the numbers of a continuous one."""

    answers = frozenset({"action"})
    tokens_a_step = 3
    embedding: TripleStem
    config: TrajectoryDecoderConfig

    def __init__(self, config: TrajectoryDecoderConfig):
        super().__init__()
        stem = TripleStem(
            state_size=config.state_size,
            action_size=config.action_size,
            max_timestep=config.max_timestep,
            n_embd=config.n_embd,
            norm=norm_of(config) if config.embedding_norm else None,
        )
        self._build(config, stem, causal=True)
        self.head = nn.Linear(config.n_embd, config.action_size)
        self.init_weights()

    def forward(
        self, returns_BK: Tensor, states_BKS: Tensor, actions_BKA: Tensor, timesteps_BK: Tensor,
        *, cache: KVCache | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, K, A), at each state. The last action may be missing from `actions`.

        cache: holds the tokens before; where it ends with a state, the first step is that state's, whose action is new.

        Raises:
            UsageError: there are more tokens than `block_size` positions.
        """
        x_BTC, pos = self.hidden(returns_BK, states_BKS, actions_BKA, timesteps_BK, cache=cache)
        actions_BKA = self.read_out(self.head, x_BTC[:, pos % 3 == 1])
        return torch.tanh(actions_BKA) if self.config.action_tanh else actions_BKA

    def hidden(
        self, returns_BK: Tensor, states_BKS: Tensor, actions_BKA: Tensor, timesteps_BK: Tensor,
        *, cache: KVCache | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Everything but the head: the vectors of the tokens (B, T, C), and their positions (T,)."""
        K = timesteps_BK.shape[1]
        begin = 0 if cache is None else cache.length
        end = begin - begin % 3 + 3 * K - (actions_BKA.shape[1] < K)
        if end > self.config.block_size:
            steps = self.config.block_size // 3
            raise UsageError(f"{end} tokens do not fit into block_size={self.config.block_size}; give {steps} steps")
        pos = torch.arange(begin, end, device=states_BKS.device)
        x_BTC = self.embedding(returns_BK, states_BKS, actions_BKA, timesteps_BK, pos, self.positions, first=begin % 3)
        x_BTC = self.run(x_BTC, pos, cache=cache)
        if cache is not None:
            cache.advance(end - begin)
        return x_BTC, pos

    def new_cache(self, batch_size: int = 1) -> KVCache:
        """An empty cache for a whole context."""
        weight, config = self.head.weight, self.config
        return KVCache(
            n_layer=config.n_layer,
            batch_size=batch_size,
            n_kv_head=config.n_kv_head,
            head_width=config.head_width,
            capacity=config.block_size,
            dtype=weight.dtype,
            device=weight.device,
        )
