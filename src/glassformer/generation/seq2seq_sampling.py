"""Sampled answers of an encoder-decoder, where `beam.py` searches for the most likely ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.beam import Hypothesis, SequenceToSequence, answer_limits, memory_rows
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.filters import AnswerRules
from glassformer.generation.lockstep import lockstep
from glassformer.generation.requests import Request
from glassformer.generation.rows import Row
from glassformer.generation.settings import Sampling


class SourceReader:
    """Reads answers to a batch of sources, `samples` rows for each. See `lockstep.Reader`."""

    def __init__(
        self, model: SequenceToSequence, source: Tensor, lengths_B: Tensor | None, samples: int, capacity: int
    ):
        self.model, self.device = model, source.device
        rows = torch.arange(source.shape[0], device=self.device).repeat_interleave(samples)
        self.memory = memory_rows(model.encode(source, lengths_B), rows)
        self.cache = model.new_cache(len(rows), capacity)

    def next_logits(self, rows: Sequence[Row]) -> Tensor:
        last_R1 = torch.tensor([[row.ids[-1]] for row in rows], device=self.device)
        return self.model.decode(last_R1, self.memory, cache=self.cache)[:, -1]

    def keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.device)
        self.cache.reorder(index)
        self.memory = memory_rows(self.memory, index)


def sample_answers(
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
    """`samples` answers to each source, in the order of their seeds; `score` is the log-probability.

    Sample i of every source has its own generator, seeded `seed + i`: the same alone or in a batch. An answer that
    reaches its limit is cut there. Other arguments are those of `beam_search`; a repetition penalty sees the answer so
    far, not the source.

    Raises:
        UsageError: a setting is out of range.
        DivergenceError: the logits are no numbers.
    """
    sampling = sampling or Sampling()
    for name, value in (("samples", samples), ("max_new_tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} is out of range; use 1 or more")
    if not source.shape[0]:
        return []
    answer_rules = AnswerRules(model, n_tokens, penalty=False)
    limits = answer_limits(model, source, lengths_B, max_new_tokens).tolist()
    rows: list[Row] = []
    logp: dict[Row, float] = {}
    for limit in limits:
        request = Request((answer_rules.start,), limit, samples=samples, sampling=sampling)
        rows += [Row(request, i, answer_rules.rules, block_size=model.config.block_size) for i in range(samples)]
    with evaluating(model):
        reader = SourceReader(model, source, lengths_B, samples, max(limits))
        for row, sampled, logits_V in lockstep(reader, rows, n_tokens, missing):
            row.append(sampled.token)
            logp[row] = logp.get(row, 0.0) + float(logits_V.log_softmax(dim=-1)[sampled.token])
    found = [Hypothesis(tuple(row.ids[1:]), logp[row], logp[row], row.finish_reason == "end_of_text") for row in rows]
    return [found[start : start + samples] for start in range(0, len(found), samples)]
