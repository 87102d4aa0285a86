"""The sampler: from logits to the next token of each row, whichever model they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer import native
from glassformer.errors import DivergenceError
from glassformer.generation.filters import filtered_probabilities
from glassformer.generation.rows import Row, Sampled


def sample(p_BV: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Sample one token a row, each with its own generator: (B, V) probabilities -> (B,) ids."""
    return sample_at(p_BV, uniform(generators))


def uniform(generators: list[torch.Generator]) -> Tensor:
    """The next number in [0, 1) of each generator: (B, 1) in fp64."""
    return torch.cat([torch.rand(1, 1, generator=g, dtype=torch.float64) for g in generators])


def sample_at(p_BV: Tensor, u_B1: Tensor) -> Tensor:
    """Inverse transform sampling: the token at which the cumulated probabilities pass u. (B, V) -> (B,) ids."""
    cumulated_BV = p_BV.cumsum(dim=-1, dtype=torch.float64)
    ids_B1 = torch.searchsorted(cumulated_BV, u_B1 * cumulated_BV[:, -1:], right=True)
    return ids_B1.squeeze(1).clamp_(max=p_BV.shape[-1] - 1)


def sample_tokens(plain_BV: Tensor, rows: Sequence[Row], *, compiled: bool = False) -> list[Sampled | Exception]:
    """The next token of each row by its own request, or the error of that row, which leaves the others as they are.

    Rows with equal settings are filtered together. plain: the model's logits, fp32 on the CPU. compiled: use the
    native sampler where it has the filters.
    """
    found: list[Sampled | Exception | None] = [None] * len(rows)
    logits_BV, u = plain_BV, [0.0] * len(rows)
    if any(row.adjusts for row in rows):
        logits_BV = plain_BV.clone()
    groups: dict[Any, list[int]] = {}
    for b, row in enumerate(rows):
        try:
            if row.adjusts:
                row.adjust(logits_BV[b])
            if row.sampling.temperature:  # taken once, so that a second try samples the same token
                u[b] = float(uniform([row.generator]))
            groups.setdefault(row.sampling if row.sampling.repetition_penalty == 1 else b, []).append(b)
        except Exception as error:
            found[b] = error

    def sample_group(members: list[int]) -> None:
        plain_MV, logits_MV = (part if len(members) == len(rows) else part[members] for part in (plain_BV, logits_BV))
        try:
            sampled = _sample_alike(plain_MV, logits_MV, [rows[b] for b in members], [u[b] for b in members], compiled)
        except Exception as error:
            if len(members) == 1:
                found[members[0]] = error
            else:  # one of them fails, and the others need not
                for b in members:
                    sample_group([b])
            return
        for b, one in zip(members, sampled, strict=True):
            one = one._replace(u=u[b]) if rows[b].sampling.temperature else one
            found[b] = one if math.isfinite(one.sampling_probability + one.probability) else not_finite()

    for members in groups.values():
        sample_group(members)
    return found  # type: ignore[return-value]


def _sample_alike(
    plain_MV: Tensor, logits_MV: Tensor, rows: list[Row], u: list[float], compiled: bool
) -> list[Sampled]:
    """Tokens of rows with equal settings."""
    sampling = rows[0].sampling
    penalised = sampling.repetition_penalty != 1
    if compiled and sampling.top_p == 1 and sampling.min_p == 0 and not penalised:
        return list(map(Sampled, *native.sample(plain_MV, logits_MV, sampling.temperature, sampling.top_k, u)))
    if sampling.temperature == 0 and not penalised:
        ids_M, p_M = logits_MV.argmax(dim=-1), torch.ones(len(rows))
    else:
        context_1T = torch.tensor([rows[0].ids]) if penalised else None
        p_MV = filtered_probabilities(logits_MV, sampling, context_1T)
        ids_M = sample_at(p_MV, torch.tensor(u, dtype=torch.float64)[:, None])
        p_M = p_MV.gather(1, ids_M[:, None]).squeeze(1)
    own_M = plain_MV.softmax(dim=-1).gather(1, ids_M[:, None]).squeeze(1)
    return list(map(Sampled, ids_M.tolist(), p_M.tolist(), own_M.tolist()))


def not_finite() -> DivergenceError:
    """The error for logits that are NaN or infinite."""
    return DivergenceError("the model's logits are no numbers (NaN or infinite); take an earlier checkpoint")
