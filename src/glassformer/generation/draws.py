"""Draws: answers to a source that are thrown, token by token, where `beam.py` searches for the likeliest one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.beam import Hypothesis, SequenceToSequence, answer_limits, memory_rows
from glassformer.generation.rules import AnswerRules
from glassformer.generation.sampling import Sampling, choose, filtered_probabilities, token_logits


def draw_answers(
    model: SequenceToSequence,
    source: Tensor,
    lengths_B: Tensor | None = None,
    *,
    samples: int = 1,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    n_tokens: int | None = None,
    missing: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """`samples` answers to each source, in the order in which they were drawn; `score` is the log-probability.

    Sample i of every source draws from a generator of its own, seeded `seed + i`: the same alone or in a crowd. An
    answer that reaches its limit is cut there. Other arguments are those of `beam_search`; a repetition penalty sees
    the answer so far, not the source.

    Raises:
        UsageError: a setting is out of range.
    """
    sampling = sampling or Sampling()
    if samples < 1:
        raise UsageError(f"samples={samples} is out of range; use 1 or more")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UsageError(f"max_new_tokens={max_new_tokens} is out of range; use 1 or more")
    if not source.shape[0]:
        return []
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            return _draw(model, source, lengths_B, samples, sampling, max_new_tokens, n_tokens, missing)
    finally:
        model.train(was_training)


def _draw(
    model: SequenceToSequence,
    source: Tensor,
    lengths_B: Tensor | None,
    samples: int,
    sampling: Sampling,
    max_new_tokens: int | None,
    n_tokens: int | None,
    missing: Sequence[int],
) -> list[list[Hypothesis]]:
    B, device, rules = source.shape[0], source.device, AnswerRules(model, n_tokens, penalty=False)
    limits = answer_limits(model, source, lengths_B, max_new_tokens).tolist()
    rows = [(b, i) for b in range(B) for i in range(samples)]  # those still going on
    generators = {row: torch.Generator().manual_seed(sampling.seed + row[1]) for row in rows}
    memory = memory_rows(model.encode(source, lengths_B), torch.tensor([b for b, _ in rows], device=device))
    cache = model.new_cache(len(rows), max(limits))
    ids_RT = torch.full((len(rows), 1), rules.start)
    logp_R = torch.zeros(len(rows), dtype=torch.float64)
    done: dict[tuple[int, int], Hypothesis] = {}
    while rows:
        logits_RV = model.decode(ids_RT[:, -1:].to(device), memory, cache=cache)[:, -1]
        logits_RV = token_logits(logits_RV, n_tokens, missing).cpu()
        full_R = torch.tensor([limits[b] == ids_RT.shape[1] for b, _ in rows])
        ruled_RV = rules.ruled(logits_RV, ids_RT[:, 1:], full_R, searching=True)
        token_R = choose(filtered_probabilities(ruled_RV, sampling, ids_RT), [generators[row] for row in rows])
        logp_R = logp_R + logits_RV.log_softmax(dim=-1).gather(1, token_R[:, None]).squeeze(1)
        ids_RT = torch.cat((ids_RT, token_R[:, None]), dim=1)
        going_on = []
        for r, row in enumerate(rows):
            said = tuple(ids_RT[r, 1:].tolist())
            ended = said[-1] in rules.ends
            if ended or len(said) == limits[row[0]]:
                done[row] = Hypothesis(said, float(logp_R[r]), float(logp_R[r]), ended)
            else:
                going_on.append(r)
        if len(going_on) < len(rows):
            kept = torch.tensor(going_on, dtype=torch.int64)
            rows, ids_RT, logp_R = [rows[r] for r in going_on], ids_RT[kept], logp_R[kept]
            if rows:
                cache.reorder(kept.to(device))
                memory = memory_rows(memory, kept.to(device))
    return [[done[b, i] for i in range(samples)] for b in range(B)]
