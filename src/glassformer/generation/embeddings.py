"""One vector for a text: what an encoder makes of it, pooled, and divided by its length so that a dot product is a
cosine. Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation.questions import around, read_rows, text_ids
from glassformer.generation.requests import check_ids
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer


def embed(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str | Sequence[int]],
    *,
    normalise: bool = True,
    batch_size: int = 32,
    cut: bool = True,
) -> Tensor:
    """A vector for each text, in their order: (N, C) in fp32.

    Args:
        texts: or their ids, with or without the tokens that this tokenizer puts around a text.
        normalise: to length 1.
        cut: of what is longer than the model reads, read the beginning; otherwise it is refused.

    Raises:
        UsageError: the model is no encoder of text, or a text is empty.
        DivergenceError: a vector is no number.
    """
    if not isinstance(model, Encoder) or model.reads != "text":
        raise UsageError(
            f"this {type(model).__name__} gives no vectors for texts: an encoder is needed; for example minilm-l6"
        )
    rows = [_row(model, tokenizer, text, number, cut) for number, text in enumerate(texts, 1)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # like with like, so that little is padding
    vectors_NC = torch.zeros(len(rows), model.config.n_embd)
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        vectors_BTC, lengths_B = read_rows(model, [rows[i] for i in chosen])
        with torch.inference_mode():
            vectors_NC[chosen] = model.pool(vectors_BTC, lengths_B).float().cpu()
    if not vectors_NC.isfinite().all():
        raise DivergenceError("the model's vectors are no numbers (NaN or infinite); take an earlier checkpoint")
    return torch.nn.functional.normalize(vectors_NC, dim=-1) if normalise else vectors_NC


def _row(model: Any, tokenizer: Tokenizer, text: str | Sequence[int], number: int, cut: bool) -> list[int]:
    """The ids that the model reads for a text."""
    if isinstance(text, str):
        return around(tokenizer, text_ids(tokenizer, text, number), model, cut)
    check_ids(text, tokenizer, model.config.vocab_size)
    whole = around(tokenizer, [], model)
    if whole and len(text) > len(whole) and [text[0], text[-1]] == whole:  # they stand there already
        text = text[1:-1]
    return around(tokenizer, list(text), model, cut)
