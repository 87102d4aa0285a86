"""Beam search to be read: one sentence, no cache, no early stop, plain Python. `beam.py` gives the same answers."""

from __future__ import annotations

import torch

from glassformer.generation.beam import Hypothesis, SequenceToSequence, length_penalty_of


@torch.inference_mode()
def beam_search_twin(
    model: SequenceToSequence,
    source_ids: list[int],
    *,
    limit: int,
    beam: int = 4,
    length_penalty: float = 0.6,
    n_best: int = 1,
    patience: float = 1.0,
) -> list[Hypothesis]:
    """The `n_best` answers to one source sentence of ids, of at most `limit` tokens, best first; see `beam_search`.

    The model has to be in eval mode.
    """
    start, end = model.config.start_token, model.config.end_token
    memory = model.encode(torch.tensor([source_ids]), torch.tensor([len(source_ids)]))
    still_open: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # (log-probability, what was said)
    ended: list[Hypothesis] = []
    for length in range(1, limit + 1):
        candidates = []
        for logp, text in still_open:
            logits_V = model.decode(torch.tensor([[start, *text]]), memory)[0, -1]
            for token, token_logp in enumerate(logits_V.log_softmax(dim=-1).tolist()):
                if length < limit or token == end:  # who has not ended by the limit must end there
                    candidates.append((logp + token_logp, (*text, token)))
        candidates.sort(reverse=True)
        for logp, text in candidates[:beam]:
            if text[-1] == end:
                ended.append(Hypothesis(text, logp, logp / length_penalty_of(length, length_penalty)))
        still_open = [(logp, text) for logp, text in candidates if text[-1] != end][:beam]
        if not still_open or len(ended) >= patience * beam:
            break
    return sorted(ended, key=lambda h: -h.score)[:n_best]
