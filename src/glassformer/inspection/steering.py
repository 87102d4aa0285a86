"""Steering: a direction from pairs of texts, added to the residual stream while the model writes.

    direction = mean over the pairs of (stream at the end of the second text - stream at the end of the first)
    stream   += strength * direction                     behind one block, at every place

Turner et al. 2023, https://arxiv.org/abs/2308.10248 (activation addition, from one pair); Rimsky et al. 2023,
https://arxiv.org/abs/2312.06681 (the mean over many pairs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, number, percent
from glassformer.generation import generate
from glassformer.inspection.ablation import kl_bits
from glassformer.inspection.geometry import held_out_steps
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, check_writes, read, stack_of
from glassformer.inspection.trace import add, trace
from glassformer.inspection.views import View
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Seed, Temperature, Text, Top

ARROW = "=>"
TENTHS = 10  # of the direction in its whole length


@dataclass
class SteeringView(View):
    """What a model writes with a direction added to its stream, and without."""

    layer: int  # the block behind which it is added
    strength: float  # 1: the mean difference of the pairs
    vector: np.ndarray  # (C,) the mean difference
    length: float  # of the vector
    stream_length: float  # of the stream at the end of the text, for comparison
    score: float | None  # share of the pairs that point the way of all others; None for one pair
    n_pairs: int
    before: str  # what is written without it
    after: str  # what is written with it
    top_tokens: list[str]  # the most likely next ones, with or without
    p_before: np.ndarray
    p_after: np.ndarray
    divergence: float  # bits: KL(without || with) of the next token

    def figures(self) -> list[Figure]:
        columns = [Column("token", "token"), Column("without", "share"), Column("with", "share", role="weights")]
        columns.append(Column("change", "signed", role="weights"))
        pairs = zip(self.top_tokens, self.p_before.tolist(), self.p_after.tolist(), strict=True)
        text = (
            f"The mean difference of {plural(self.n_pairs, 'pair')} at the end of the texts behind block {self.layer}: "
            f"length {number(self.length, 1)}, beside a stream of length {number(self.stream_length, 1)}."
        )
        if self.score is not None:
            text += f" {percent(self.score)} of the pairs point the way that the others do."
        return [
            Note(text),
            Note(self.after, f"With {self.strength:+.1f} times the direction", verbatim=True),
            Note(self.before, "Without it", verbatim=True),
            Table("The next token", columns, [[token, p, q, q - p] for token, p, q in pairs]),
            Note(f"KL divergence from the model without it: {number(self.divergence)} bits."),
        ]


@view(
    'glassformer look steering smollm2-135m-instruct "The film was" "I love this=>I hate this" '
    '"What a wonderful day=>What a terrible day" "She is happy=>She is sad" --layer 12 --strength 20',
)
def steering(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    pairs: Annotated[Sequence[str], Option("Two texts, such as 'I love it=>I hate it'.", max_length=64)],
    *,
    layer: Annotated[int | None, Option("The block behind which it is added, from 0; default: the middle.")] = None,
    strength: Annotated[
        int, Option("In tenths of the direction; negative: away from the second texts.", ge=-100, le=100, slider=1)
    ] = 10,
    tokens: Annotated[int, Option("How many tokens to write.", ge=1, le=64)] = 24,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    top: Top = 10,
) -> SteeringView:
    """Write with a direction of the residual stream added, and without.

    Raises:
        UsageError: a pair is not two texts, all pairs cancel out, or the model continues no text.
    """
    check_writes(model)
    if not isinstance(model, Decoder):
        raise UsageError(f"a {type(model).__name__} is not steered here; take a model that continues a text")
    if not pairs:
        raise UsageError(f"a direction needs pairs of texts; give some such as 'I love it{ARROW}I hate it'")
    stack, _ = stack_of(model)
    layer = len(stack.blocks) // 2 if layer is None else check_place("layer", layer, len(stack.blocks))
    name = f"blocks.{layer}.residual.after"

    def at_end(of: str) -> Tensor:
        with trace(model, name) as seen:
            read(model, tokenizer, of).run()
            return seen[name][0, -1].float().cpu()

    texts = [two_texts(pair) for pair in pairs]
    differences_PC = torch.stack([at_end(second) - at_end(first) for first, second in texts])
    vector_C = differences_PC.mean(dim=0)
    if float(vector_C.norm()) < 1e-9:
        raise UsageError("these pairs cancel each other out and make no direction; give others")
    added_C = vector_C * (strength / TENTHS)

    def write() -> tuple[str, Tensor]:
        settings: dict[str, Any] = {"max_new_tokens": tokens, "temperature": temperature, "seed": seed}
        (done,) = generate(model, tokenizer, text, **settings)
        return done.text, read(model, tokenizer, text).logits()[-1]

    before, plain_V = write()
    with add(model, name, added_C):
        after, steered_V = write()
    p_V, q_V = plain_V.softmax(dim=-1), steered_V.softmax(dim=-1)
    best = torch.maximum(p_V, q_V).topk(min(top, len(p_V))).indices
    best = best[q_V[best].argsort(descending=True, stable=True)]
    return SteeringView(
        layer=layer,
        strength=strength / TENTHS,
        vector=vector_C.numpy(),
        length=float(vector_C.norm()),
        stream_length=float(at_end(text).norm()),
        score=float((held_out_steps(differences_PC) > 0).double().mean()) if len(pairs) > 1 else None,
        n_pairs=len(pairs),
        before=before,
        after=after,
        top_tokens=[tokenizer.token_text(i) for i in best.tolist()],
        p_before=p_V[best].numpy(),
        p_after=q_V[best].numpy(),
        divergence=kl_bits(plain_V, steered_V),
    )


def two_texts(pair: str) -> tuple[str, str]:
    """
    Raises:
        UsageError: there is no arrow, or nothing on a side of it.
    """
    first, arrow, second = (part.strip() if part != ARROW else part for part in pair.partition(ARROW))
    if not (first and arrow and second):
        raise UsageError(
            f"{pair!r} is no pair of texts; write two with {ARROW} between them: I love it{ARROW}I hate it"
        )
    return first, second
