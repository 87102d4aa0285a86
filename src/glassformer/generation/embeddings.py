"""One vector for a text: what an encoder makes of it, pooled, and divided by its length so that a dot product is a
cosine. Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation.questions import around, read_rows, text_ids
from glassformer.tokenizers import Tokenizer


def embed(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], *, normalise: bool = True, batch_size: int = 32
) -> Tensor:
    """A vector for each text, in their order: (N, C) in fp32. What is longer than the model reads loses its end.

    Args:
        normalise: to length 1.

    Raises:
        UsageError: the model is no encoder of text, or a text is empty.
        DivergenceError: a vector is no number.
    """
    if getattr(model.config, "stem", None) != "text":
        raise UsageError(
            f"this {type(model).__name__} gives no vectors for texts: an encoder is needed; for example minilm-l6"
        )
    rows = [around(tokenizer, text_ids(tokenizer, text, number), model) for number, text in enumerate(texts, 1)]
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
