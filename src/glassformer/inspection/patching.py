"""Activation patching: where, in a model, lies what makes two prompts end differently?

    text    The capital of France is  ->  Paris        a vector of the residual stream of this pass ...
    other   The capital of Italy is   ->  Rome         ... put into that one: does Paris come back?

For every block and place the stream behind it is taken from one pass and put into the other (Meng et al. 2022,
https://arxiv.org/abs/2202.05262, sect. 2.1; "causal tracing"). 1: the difference of the two logits is all of what it is
for the first text; 0: it stays that of the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, HeatMap, Note, Table, number, visible
from glassformer.generation.eval_mode import evaluating
from glassformer.inspection.ablation import kl_bits
from glassformer.inspection.options import view
from glassformer.inspection.reading import Reading, check_place, read, stack_of
from glassformer.inspection.stream import check_token_head, place_of, token_of
from glassformer.inspection.trace import edit, trace
from glassformer.inspection.views import View
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Text, Token, Top

BATCH = 32  # places that are patched in one pass
MAX_PLACES = 512


@dataclass
class PatchingView(View):
    """What comes back of one prompt's answer when a vector of its pass is put into another prompt's."""

    tokens: list[str]  # (T,) of the text
    others: list[str]  # (T,) of the other one
    token: str  # what the text answers
    against: str  # what the other one answers
    differences: tuple[float, float]  # logit of token - logit of against, for the text and for the other
    restored: np.ndarray  # (L, T) the share of the difference that comes back
    layer: int | None  # one patch in full; None: all of them
    position: int | None
    top_tokens: list[str]  # of one patch: the most likely of any of the three
    probabilities: np.ndarray  # (3, N): of the other text, patched, and of the text
    divergence: float  # bits: KL(other || patched)

    def figures(self) -> list[Figure]:
        token, against = visible(self.token), visible(self.against)
        if self.layer is not None:
            place = visible(self.tokens[self.position or 0])
            title = f"The other text with the stream at {place} behind block {self.layer} taken from the text"
            columns = [Column("token", "token"), Column("other", "share"), Column("patched", "share", role="weights")]
            columns.append(Column("text", "share"))
            rows = [[t, *map(float, p)] for t, p in zip(self.top_tokens, self.probabilities.T.tolist(), strict=True)]
            share = number(float(self.restored[self.layer, self.position or 0]))
            text = f"{share} of the difference {token} - {against} comes back. KL divergence from the unpatched text: "
            return [Table(title, columns, rows), Note(f"{text}{number(self.divergence)} bits.")]
        L, T = self.restored.shape
        pairs = zip(self.tokens, self.others, strict=True)
        changed = [f"{visible(a)}/{visible(b)}" if a != b else visible(a) for a, b in pairs]
        return [
            Note(
                f"Logit of {token} minus logit of {against}: {self.differences[0]:.2f} for the text, "
                f"{self.differences[1]:.2f} for the other one. Each cell puts one vector of the first pass into the "
                "second, the stream behind one block at one place. 1: the difference is all back; 0: nothing changes."
            ),
            HeatMap(
                "How much of it comes back",
                self.restored.T,
                changed,
                [str(i) for i in range(L)],
                "places",
                "behind block",
                "weights",
                signed=True,
                highest=1.0,
                links=[[f"?layer={i}&position={t}" for i in range(L)] for t in range(T)],
            ),
        ]


@view(
    'glassformer look patching smollm2-135m-instruct "The capital of France is" "The capital of Italy is"',
    'glassformer look patching runs/demo-1 "To be, or not" "To we, or not" --layer 1 --position 3',
)
def patching(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    other: Annotated[str, Option("A text of as many tokens, with another answer.")],
    *,
    token: Annotated[Token, Option("The answer to bring back; default: the most likely of the text.")] = None,
    against: Annotated[Token, Option("The other answer; default: the most likely of the other text.")] = None,
    layer: Annotated[int | None, Option("Show one patch in full: the layer, from 0.")] = None,
    position: Annotated[int | None, Option("... and the position of the patch.")] = None,
    top: Top = 10,
) -> PatchingView:
    """Put the residual stream of one prompt into another prompt's pass, block by block and place by place.

    Raises:
        UsageError: the texts differ in length or in nothing, or both have the same answer.
    """
    check_token_head(model)
    source, goal = (read(model, tokenizer, each) for each in (text, other))
    if source.source_ids or source.inputs:
        raise UsageError(
            f"a {type(model).__name__} is not patched here; take a decoder or an encoder that fills in masks"
        )
    T = len(source.ids)
    if len(goal.ids) != T or T > MAX_PLACES:
        raise UsageError(
            f"the text has {plural(T, 'token')} and the other one {len(goal.ids)}; patching needs two of equal length, "
            f"{MAX_PLACES} at most"
        )
    if source.ids == goal.ids:
        raise UsageError("both texts are the same; change a word in one of them")
    place = place_of(source, None)
    of_text_V, of_other_V = source.logits()[place], goal.logits()[place]
    a = int(of_text_V.argmax()) if token is None else token_of(tokenizer, token, "token")
    b = int(of_other_V.argmax()) if against is None else token_of(tokenizer, against, "against")
    if a == b:
        raise UsageError(f"both texts answer {tokenizer.token_text(a)!r}; name two answers with token and against")
    if (layer is None) != (position is None):
        raise UsageError("one patch has a layer and a position; give both, or none")
    stack, prefix = stack_of(model)
    names = [f"{prefix}blocks.{i}.residual.after" for i in range(len(stack.blocks))]
    with trace(model, *names) as kept:
        source.run()
        streams = [kept[name][0] for name in names]
    whole, start = (float(x[a] - x[b]) for x in (of_text_V, of_other_V))
    restored, patched_V = np.zeros((len(names), T)), of_other_V
    n = tokenizer.vocab_size
    if layer is not None and position is not None:
        layer, position = check_place("layer", layer, len(names)), check_place("position", position, T)
        patched_V = _patched(goal, names[layer], streams[layer], [position], place)[0, :n]
    for i, (name, stream_TC) in enumerate(zip(names, streams, strict=True)):
        for first in range(0, T, BATCH):
            places = list(range(first, min(first + BATCH, T)))
            logits_BV = _patched(goal, name, stream_TC, places, place)
            restored[i, places] = ((logits_BV[:, a] - logits_BV[:, b] - start) / (whole - start)).numpy()
    three_3V = torch.stack([x.softmax(dim=-1) for x in (of_other_V, patched_V, of_text_V)])
    best = three_3V.amax(dim=0).topk(min(top, n)).indices
    best = best[three_3V[1, best].argsort(descending=True, stable=True)]
    return PatchingView(
        tokens=source.labels,
        others=goal.labels,
        token=tokenizer.token_text(a),
        against=tokenizer.token_text(b),
        differences=(whole, start),
        restored=restored,
        layer=layer,
        position=position,
        top_tokens=[tokenizer.token_text(i) for i in best.tolist()],
        probabilities=three_3V[:, best].numpy(),
        divergence=kl_bits(of_other_V, patched_V),
    )


def _patched(goal: Reading, name: str, stream_TC: Tensor, places: list[int], place: int) -> Tensor:
    """The logits (B, V) at `place` of the other text, in row i with the vector at `places[i]` put in."""
    model, rows = goal.model, torch.arange(len(places))

    def put(_: str, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC.clone()
        x_BTC[rows, places] = stream_TC[places].to(x_BTC)
        return x_BTC

    ids_BT = torch.tensor([goal.ids] * len(places), device=stream_TC.device)
    with evaluating(model), edit(model, name, put):
        out = model(ids_BT)
        logits = model.token_logits(out) if isinstance(model, Encoder) else out
        return logits[:, place].float().cpu()  # type: ignore[no-any-return]
