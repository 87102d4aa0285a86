"""Induction heads: "A B ... A" and the head looks at B, so that the model predicts B again.

    random tokens   f q z a  f q z a         which no text holds, so that nothing but copying helps
                        ▲    │
                        └────┘  what came after the last f?

Olsson et al. 2022, "In-context Learning and Induction Heads", https://arxiv.org/abs/2209.11895.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from glassformer.errors import UsageError
from glassformer.evaluation.induction import prefix_matching
from glassformer.figures import Column, Curves, Figure, Note, Table
from glassformer.inspection.heads import attention_layers
from glassformer.inspection.options import view
from glassformer.inspection.reading import LN2, Reading, labels_of
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Seed

LENGTH = 25  # random tokens, by default, if they fit
TOP = 8  # heads that are drawn


@dataclass
class InductionView(View):
    """How much each head attends to what came after the token's last occurrence."""

    tokens: list[str]  # a start token if the model is used to one, then `length` random tokens, all different, twice
    scores: np.ndarray  # (L, H), the mean over the second time
    even: float  # the same of a head that attends evenly to all it may see
    bits: list[float | None]  # the surprise at each token, None for the first
    bits_first: float  # their mean over the first time
    bits_second: float  # lower where the model copies
    length: int
    seed: int  # of the random tokens

    def figures(self) -> list[Figure]:
        order = np.argsort(-self.scores, axis=None, kind="stable")[:TOP]
        places = [tuple(map(int, np.unravel_index(i, self.scores.shape))) for i in order]
        rows: list[list[Any]] = [[f"layer {i}, head {h}", float(self.scores[i, h])] for i, h in places]
        rows += [[f"mean of all {self.scores.size}", float(self.scores.mean())], ["attending evenly", self.even]]
        gained = self.bits_first - self.bits_second
        copies = (
            f"{self.bits_first:.1f} bits a token the first time and {self.bits_second:.1f} the second: "
            f"it {'copies' if gained > 1 else 'hardly copies'} what it read before."
        )
        bits = [float("nan") if b is None else b for b in self.bits]
        return [
            Note(f"{self.length} random tokens, twice (seed {self.seed}). {copies}"),
            Table(
                "Induction: the share on the token that came after the current one last time",
                [Column("strongest"), Column("induction", "share", role="share")],
                rows,
            ),
            Curves.over(
                "Surprise at each token",
                list(range(len(bits))),
                {"bits": bits},
                x_axis="tokens, the second time from the middle on",
                y_axis="bits",
            ),
        ]


@view("glassformer look induction smollm2-135m-instruct")
def induction_scores(
    model: Any,
    tokenizer: Tokenizer,
    *,
    length: Annotated[
        int | None, Option("How many different random tokens to repeat; default 25, if they fit.")
    ] = None,
    seed: Seed = 0,
) -> InductionView:
    """The induction score of every head, on random tokens that come twice.

    Raises:
        UsageError: the model does not continue a text, or `length` is out of range.
    """
    config = model.config
    if not isinstance(model, Decoder):
        raise UsageError(
            f"induction is measured on models that continue a text; {type(model).__name__} reads {model.reads}; "
            "`attention` shows where its heads look"
        )
    start = [] if tokenizer.starts_with is None else [tokenizer.starts_with]
    special = set(tokenizer.special_tokens.values())
    ordinary = [i for i in range(min(tokenizer.vocab_size, config.vocab_size)) if i not in special]
    most = min(len(ordinary), (config.block_size - len(start)) // 2)
    if length is None:
        length = min(LENGTH, most)
    if not 2 <= length <= most:
        raise UsageError(f"length={length} is out of range; this model and vocabulary take 2 to {most}")
    generator = torch.Generator().manual_seed(seed)
    drawn = [ordinary[i] for i in torch.randperm(len(ordinary), generator=generator)[:length].tolist()]
    ids = [*start, *drawn, *drawn]
    at = attention_layers(Reading(model, tokenizer, ids, labels_of(tokenizer, ids)))
    watched = [f"{name}.pattern" for name in at.names]
    with trace(model, *watched) as seen:
        logits_TV = at.reading.logits()
        patterns_LHTS = torch.stack([seen[name][0].float().cpu() for name in watched])
    queries = torch.arange(len(start) + length, len(ids))
    keys = queries - length + 1
    scores_LH = prefix_matching(patterns_LHTS, len(start), length)
    visible = torch.from_numpy(at.visible).float()
    even = (visible / visible.sum(dim=-1, keepdim=True))[:, queries, keys].mean()
    nats = -logits_TV.log_softmax(dim=-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    bits = (nats / LN2).tolist()  # of tokens 1, 2, ...
    middle = len(start) + length - 1
    return InductionView(
        at.queries,
        scores_LH.numpy(),
        float(even),
        [None, *bits],
        float(np.mean(bits[:middle])),
        float(np.mean(bits[middle:])),
        length,
        seed,
    )
