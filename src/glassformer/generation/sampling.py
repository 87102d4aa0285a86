"""Filter and choose: what happens between the model's logits and the token that is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassformer.errors import UsageError

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The filters work in this order, each on what the one before left over.

    repetition_penalty: logits of tokens already in the context are divided (if positive) or multiplied (if negative)
        by it (Keskar et al. 2019, https://arxiv.org/abs/1909.05858); 1 = off.
    temperature: divides the logits; 0 takes the most likely token, larger values flatten.
    top_k: keep the k most likely; 0 = all.
    top_p: keep the fewest whose probability reaches p (Holtzman et al. 2019, https://arxiv.org/abs/1904.09751).
    min_p: keep those at least min_p times as likely as the best (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082).
    seed: sample i of a prompt draws from its own generator, seeded `seed + i`: the same alone or in a crowd.

    Raises:
        UsageError: a value is outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, ok, rule in (
            ("temperature", 0 <= self.temperature < math.inf, "0 (most likely token) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or a number of tokens"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 (off) and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0; 1 is off, 1.1 is mild"),
            ("seed", -(2**63) <= self.seed < 2**63, "a 64-bit integer"),
        ):
            if not ok:
                raise UsageError(f"{name}={getattr(self, name)} is out of range; use {rule}")


def filtered_probabilities(logits_BV: Tensor, sampling: Sampling, context_BT: Tensor | None = None) -> Tensor:
    """The distribution that is drawn from: (B, V) logits -> (B, V) probabilities, zeros where a filter cut.

    At temperature 0 it is one-hot. `context_BT` are the ids so far, needed for the repetition penalty alone.
    """
    logits_BV = logits_BV.float()
    if sampling.repetition_penalty != 1.0 and context_BT is not None:
        seen = logits_BV.gather(1, context_BT)
        changed = torch.where(seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty)
        changed = changed.clamp(-LARGEST, LARGEST).where(seen > -math.inf, seen)  # a number, whatever the penalty
        logits_BV = logits_BV.scatter(1, context_BT, changed)
    if sampling.temperature == 0:
        return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(dim=-1, keepdim=True), 1.0)
    # the best logit is brought to 0 first: a temperature next to nothing then gives -inf and 0, never inf - inf
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).div_(max(sampling.temperature, 1e-30))
    V = logits_BV.shape[-1]
    if 0 < sampling.top_k < V:
        worst_kept = logits_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_BV.masked_fill_(logits_BV < worst_kept, -math.inf)
    p_BV = logits_BV.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = p_BV.sort(dim=-1, descending=True, stable=True)
        enough_before = ordered.cumsum(dim=-1) - ordered >= sampling.top_p  # the better ones reach p without it
        enough_before[..., 0] = False  # the best one stays, also where p is rounded to 0
        p_BV = p_BV.masked_fill(torch.zeros_like(enough_before).scatter(1, order, enough_before), 0.0)
    if sampling.min_p > 0:
        p_BV = p_BV.masked_fill(p_BV < sampling.min_p * p_BV.amax(dim=-1, keepdim=True), 0.0)
    return p_BV.div_(p_BV.sum(dim=-1, keepdim=True))


def token_logits(logits_BV: Tensor, n_tokens: int | None, missing: Sequence[int] = ()) -> Tensor:
    """The logits of those ids that are tokens, in fp32: (B, rows of the head) -> (B, n_tokens).

    A head may have rows that no token belongs to: those beyond the tokenizer's last id (padding to a round number) are
    cut off, and those between, `missing`, get -inf, so that neither can be drawn.
    """
    logits_BV = logits_BV[..., :n_tokens].float()
    known = [i for i in missing if i < logits_BV.shape[-1]]
    return logits_BV.index_fill(-1, torch.tensor(known, device=logits_BV.device), -math.inf) if known else logits_BV


def choose(p_BV: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Draw one token a row, each with its own generator: (B, V) probabilities -> (B,) ids."""
    return choose_at(p_BV, uniform(generators))


def uniform(generators: list[torch.Generator]) -> Tensor:
    """The next number in [0, 1) of each generator: (B, 1) in fp64."""
    return torch.cat([torch.rand(1, 1, generator=g, dtype=torch.float64) for g in generators])


def choose_at(p_BV: Tensor, u_B1: Tensor) -> Tensor:
    """Lay the probabilities of each row end to end on [0, 1) and take the token that u falls on: (B, V) -> (B,) ids."""
    line_BV = p_BV.cumsum(dim=-1, dtype=torch.float64)
    ids_B1 = torch.searchsorted(line_BV, u_B1 * line_BV[:, -1:], right=True)
    return ids_B1.squeeze(1).clamp_(max=p_BV.shape[-1] - 1)
