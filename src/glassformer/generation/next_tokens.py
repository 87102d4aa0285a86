"""The next token of every row of a step: biases, rules, filters and draws, each row by its own request.

Rows that draw alike are filtered together. A row whose own work fails (its biases, its filters, logits that are no
numbers) gets the error in place of a token, and the others get what they would have got without it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import DivergenceError
from glassformer.generation.requests import Row
from glassformer.generation.sampling import choose_at, filtered_probabilities, uniform
from glassformer.generation.text import Alternative
from glassformer.native import draw
from glassformer.processors.tokenizers import Tokenizer


class Drawn(NamedTuple):
    """chance: how likely the token was to be drawn. probability: the model's own for it (temperature 1, no filters)."""

    token: int
    chance: float
    probability: float


def draw_tokens(plain_BV: Tensor, rows: list[Row], *, compiled: bool) -> list[Drawn | Exception]:
    """A token for each row, or what went wrong in it. plain: the model's logits, fp32 on the CPU."""
    found: list[Drawn | Exception | None] = [None] * len(rows)
    logits_BV, u = plain_BV, [0.0] * len(rows)
    if any(row.adjusts for row in rows):
        logits_BV = plain_BV.clone()
    alike: dict[Any, list[int]] = {}
    for b, row in enumerate(rows):
        try:
            if row.adjusts:
                row.adjust(logits_BV[b])
            if row.draws.temperature:  # thrown once, so that a second try draws the same token
                u[b] = float(uniform([row.generator]))
            alike.setdefault(row.draws if row.draws.repetition_penalty == 1 else b, []).append(b)
        except Exception as error:
            found[b] = error

    def draw_rows(members: list[int]) -> None:
        whole = len(members) == len(rows)
        plain_MV, logits_MV = (part if whole else part[members] for part in (plain_BV, logits_BV))
        try:
            drawn = _draw_alike(plain_MV, logits_MV, [rows[b] for b in members], [u[b] for b in members], compiled)
        except Exception as error:
            if len(members) == 1:
                found[members[0]] = error
            else:  # one of them fails, and the others need not
                for b in members:
                    draw_rows([b])
            return
        for b, one in zip(members, drawn, strict=True):
            found[b] = one if math.isfinite(one.chance + one.probability) else _no_numbers()

    for members in alike.values():
        draw_rows(members)
    return found  # type: ignore[return-value]


def _draw_alike(plain_MV: Tensor, logits_MV: Tensor, rows: list[Row], u: list[float], compiled: bool) -> list[Drawn]:
    """Tokens of rows with the same filters."""
    sampling = rows[0].request.sampling
    penalised = sampling.repetition_penalty != 1
    if compiled and sampling.top_p == 1 and sampling.min_p == 0 and not penalised:
        return list(map(Drawn, *draw(plain_MV, logits_MV, sampling.temperature, sampling.top_k, u)))
    if sampling.temperature == 0 and not penalised:
        ids_M, p_M = logits_MV.argmax(dim=-1), torch.ones(len(rows))
    else:
        context = torch.tensor([rows[0].ids]) if penalised else None
        p_MV = filtered_probabilities(logits_MV, sampling, context)
        ids_M = choose_at(p_MV, torch.tensor(u, dtype=torch.float64)[:, None])
        p_M = p_MV.gather(1, ids_M[:, None]).squeeze(1)
    own_M = plain_MV.softmax(dim=-1).gather(1, ids_M[:, None]).squeeze(1)
    return list(map(Drawn, ids_M.tolist(), p_M.tolist(), own_M.tolist()))


def check_numbers(p_N: Tensor) -> None:
    """Raise `DivergenceError` unless all of these probabilities are numbers."""
    if not p_N.isfinite().all():
        raise _no_numbers()


def _no_numbers() -> DivergenceError:
    return DivergenceError("the model's logits are no numbers (NaN or infinite); take an earlier checkpoint")


def most_likely(p_NV: Tensor, n: int, tokenizer: Tokenizer) -> list[list[Alternative]]:
    """The n most likely tokens of each row, best first; all that there are if n is more."""
    if not n:
        return [[] for _ in p_NV]
    best = p_NV.topk(min(n, p_NV.shape[1] - sum(i < p_NV.shape[1] for i in tokenizer.missing_ids)))
    return [
        [Alternative(i, tokenizer.token_text(i), p) for i, p in zip(ids, chances, strict=True)]
        for ids, chances in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
