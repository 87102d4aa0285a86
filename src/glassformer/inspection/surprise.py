"""How surprised a model is by a text, token by token: -log2 of the probability that it gave to what came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import FULL_SURPRISE_BITS, Column, Figure, Note, Table, Tokens
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.generate import prompt_ids
from glassformer.inspection.options import view
from glassformer.inspection.reading import LN2, check_writes, labels_of, read
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Target, Text

LISTED = 8  # of the most surprising tokens


@dataclass
class SurpriseView(View):
    """A text and how well it was predicted."""

    tokens: list[str]  # (T,)
    ids: list[int]  # (T,)
    bits: np.ndarray  # (T,) surprise; NaN for the first token, which nothing predicts
    rank: list[int]  # (T,) of the token that came, 1 is the most likely; 0 for the first token
    best: list[str]  # (T,) what the model would have predicted
    best_probability: np.ndarray  # (T,)
    loss: float  # mean surprise in nats: the loss of `evaluate`
    bits_per_byte: float  # all bits by all predicted bytes
    window: int  # tokens that were read together

    def figures(self) -> list[Figure]:
        bits = [None if b != b else float(b) for b in self.bits]
        worst = [int(i) for i in np.argsort(-np.nan_to_num(self.bits, nan=-1.0), kind="stable")[:LISTED]]
        rows = [
            [i, self.tokens[i], float(self.bits[i]), self.rank[i], self.best[i], float(self.best_probability[i])]
            for i in worst
            if bits[i] is not None
        ]
        columns = (
            Column("place", "count"),
            Column("token", "token"),
            Column("bits", "number", digits=1),
            Column("rank", "count"),
            Column("expected", "token"),
            Column("with", "share"),
        )
        mean = self.loss / LN2
        return [
            Tokens("Surprise", self.tokens, bits, "bits", highest=FULL_SURPRISE_BITS),
            Table("What was expected least", columns, rows),
            Note(
                f"mean {mean:.3f} bits a token: loss {self.loss:.4f} nats, perplexity {np.exp(self.loss):,.2f}, "
                f"{self.bits_per_byte:.3f} bits a byte, over {len(self.ids) - 1:,} tokens"
                + (f", read {self.window} at a time." if self.window < len(self.ids) - 1 else ".")
            ),
        ]


@view(
    'glassformer look surprise runs/demo-1 "To be, or not to be"',
    "glassformer look surprise smollm2-135m-instruct - < letter.txt",
)
def surprise(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    *,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
    window: Annotated[int | None, Option("Tokens read together; default: as many as the model reads.", ge=1)] = None,
) -> SurpriseView:
    """Bits of surprise at each token of a text.

    Raises:
        UsageError: the model writes nothing, or there are fewer than two tokens.
    """
    check_writes(model)
    if "target" in model.answers:
        seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
        ids, n = seen.ids, len(seen.ids)
        pieces: Iterator[Tensor] = iter([seen.logits()[:-1]])
        tokens = seen.labels
    else:
        ids = prompt_ids(tokenizer, text)
        n = window or getattr(model.config, "block_size", None) or len(ids)
        pieces, tokens = _windows(model, tokenizer, ids, n), labels_of(tokenizer, ids)
    if len(ids) < 2:
        raise UsageError("surprise needs two tokens: nothing predicts the first; give a longer text")
    bits, rank, best, probability = [float("nan")], [0], [""], [float("nan")]
    at = 1
    for logits_TV in pieces:
        logp_TV = logits_TV.double().log_softmax(dim=-1)
        came_T1 = torch.tensor(ids[at : at + len(logits_TV)])[:, None]
        own_T1 = logp_TV.gather(1, came_T1)
        top = logp_TV.max(dim=-1)
        bits += (-own_T1[:, 0] / LN2).tolist()
        rank += (1 + (logp_TV > own_T1).sum(dim=-1)).tolist()
        best += labels_of(tokenizer, top.indices.tolist())
        probability += top.values.exp().tolist()
        at += len(logits_TV)
    predicted = sum(len(tokenizer.token_bytes(i)) for i in ids[1:])
    total = float(np.nansum(bits))
    return SurpriseView(
        tokens=tokens,
        ids=list(ids),
        bits=np.array(bits),
        rank=rank,
        best=best,
        best_probability=np.array(probability, dtype=np.float32),
        loss=total * LN2 / (len(ids) - 1),
        bits_per_byte=total / max(predicted, 1),
        window=min(n, len(ids) - 1),
    )


def _windows(model: Any, tokenizer: Tokenizer, ids: list[int], window: int) -> Iterator[Tensor]:
    """Logits (T, V) about every token but the first, a window at a time."""
    device = next(model.parameters()).device
    for start in range(0, len(ids) - 1, window):
        part = torch.tensor([ids[start : min(start + window, len(ids) - 1)]], device=device)
        with evaluating(model):
            logits_TV = model(part)[0, :, : tokenizer.vocab_size]
        yield logits_TV.float().cpu()
