"""What a model predicts without a part of itself: a head, a neuron, a sublayer, a whole block, or a token that no query
may look at.

    glassformer look ablation runs/demo-1 "To be, or not" --off head:1.2 --off mlp:0
    glassformer look ablation runs/demo-1 "To be, or not"          every head and feed-forward, one at a time

The part is switched off while the text is read, and the KL divergence from the whole model's prediction says how much
it mattered here. Read again with everything on, the logits are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, number, percent, visible
from glassformer.inspection.options import view
from glassformer.inspection.reading import LN2, Reading, check_place, read, stack_of
from glassformer.inspection.stream import answers_of, place_name
from glassformer.inspection.trace import ablate, edit
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, OptionalPosition, Target, TextOrImage, Top

FORMS = "head:LAYER.HEAD, neuron:LAYER.NUMBER, attention:LAYER, mlp:LAYER, layer:LAYER or token:POSITION"
MAX_SWEEP = 1024  # parts that are switched off one at a time
MAX_ROWS = 20  # of them that are drawn


@dataclass
class PartOff:
    """A part and what the prediction is without it."""

    part: str
    divergence: float  # bits: KL(whole || without)
    probability: float  # of the token that the whole model finds most likely
    token: str  # the most likely token without the part


@dataclass
class AblationView(View):
    """A prediction with and without some parts."""

    where: str
    off: list[str]  # the parts that are switched off together; empty: one after the other, in `parts`
    top_tokens: list[str]  # the most likely with and without, by the larger of both probabilities
    before: np.ndarray  # (N,) probabilities of the whole model
    after: np.ndarray  # (N,) without the parts
    divergence: float  # bits: KL(whole || without)
    entropy: tuple[float, float]  # bits, with and without
    restored: bool  # switched on again, every logit is what it was, to the last bit
    parts: list[PartOff]

    def figures(self) -> list[Figure]:
        again = "the same to the last bit" if self.restored else "NOT the same: the model changed"
        if not self.off:
            return [*self._ranked(), Note(f"Switched on again, all logits are {again}.")]
        rows = [
            [token, float(p), float(q), float(q - p)]
            for token, p, q in zip(self.top_tokens, self.before, self.after, strict=True)
        ]
        columns = [Column("token", "token"), Column("whole", "share"), Column("without", "share", role="weights")]
        columns.append(Column("change", "signed", role="weights"))
        entropy = " to ".join(f"{bits:.2f}" for bits in self.entropy)
        return [
            Table(f"What comes {self.where} without {', '.join(self.off)}", columns, rows),
            Note(
                f"KL divergence from the whole model: {number(self.divergence)} bits. Entropy: {entropy} bits. "
                f"Switched on again, all logits are {again}."
            ),
        ]

    def _ranked(self) -> list[Figure]:
        ranked = sorted(self.parts, key=lambda part: -part.divergence)
        columns = [Column("without"), Column("KL, bits", "signed", role="weights"), Column("of the first", "share")]
        columns.append(Column("then most likely", "token"))
        rows = [[p.part, p.divergence, p.probability, p.token] for p in ranked[:MAX_ROWS]]
        first = f"{visible(self.top_tokens[0])} ({percent(float(self.before[0]))})"
        return [
            Table(
                f"Which parts matter most {self.where}",
                columns,
                rows,
                links=[[f"?off[]={p.part}"] for p in ranked[:MAX_ROWS]],
            ),
            Note(
                f"{plural(len(ranked), 'part')} switched off one at a time. of the first: the probability that is left "
                f"of {first}, the whole model's most likely token. KL: how far the prediction moves from the whole "
                "model's."
            ),
        ]


@view(
    'glassformer look ablation runs/demo-1 "To be, or not"',
    'glassformer look ablation smollm2-135m-instruct "The capital of France is" --off head:20.3 --off mlp:29',
)
def ablation(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    off: Annotated[
        Sequence[str], Option("A part to switch off, such as head:1.2 or mlp:0; several: together.", max_length=64)
    ] = (),
    position: OptionalPosition = None,
    top: Top = 10,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
    labels: Sequence[str] = (),
) -> AblationView:
    """What comes next without some parts of the model; without `off`: every head and feed-forward, one at a time.

    Raises:
        UsageError: there is no such part, or the model has no head over tokens or classes.
    """
    answers = answers_of(model, tokenizer, labels)
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    place = answers.place_of(seen, position)
    switches = [switch(seen, part) for part in off]

    def logits() -> Tensor:
        return seen.class_logits().float().cpu()[None] if place is None else seen.logits()

    def without(*some: Callable[[], Any]) -> Tensor:
        with contextlib.ExitStack() as edits:
            for each in some:
                edits.enter_context(each())
            return logits()[place or 0]

    whole_TV = logits()
    whole_V = whole_TV[place or 0]
    after_V, parts = whole_V, []
    if off:
        after_V = without(*switches)
    else:
        for name in every_part(seen):
            p, q = whole_V.softmax(-1), (off_V := without(switch(seen, name))).softmax(-1)
            parts.append(
                PartOff(name, kl_bits(whole_V, off_V), float(q[p.argmax()]), answers.text(int(off_V.argmax())))
            )
    p_V, q_V = whole_V.softmax(dim=-1), after_V.softmax(dim=-1)
    best = torch.maximum(p_V, q_V).topk(min(top, len(p_V))).indices
    best = best[p_V[best].argsort(descending=True, stable=True)]
    return AblationView(
        where=place_name(seen, place),
        off=list(off),
        top_tokens=[answers.text(i) for i in best.tolist()],
        before=p_V[best].numpy(),
        after=q_V[best].numpy(),
        divergence=kl_bits(whole_V, after_V),
        entropy=(entropy_bits(p_V), entropy_bits(q_V)),
        restored=torch.equal(logits(), whole_TV),
        parts=parts,
    )


def kl_bits(whole_V: Tensor, other_V: Tensor) -> float:
    """KL(whole || other) of two predictions given as logits."""
    logp_V, logq_V = whole_V.double().log_softmax(-1), other_V.double().log_softmax(-1)
    return max(0.0, float(torch.where(logp_V.exp() > 0, logp_V.exp() * (logp_V - logq_V), 0.0).sum()) / LN2)


def entropy_bits(p_V: Tensor) -> float:
    return float(torch.special.entr(p_V.double()).sum()) / LN2


def every_part(seen: Reading) -> list[str]:
    """Every head and feed-forward of the stack that answers.

    Raises:
        UsageError: they are too many to switch off one at a time.
    """
    stack, _ = stack_of(seen.model)
    n = len(stack.blocks) * (stack.config.n_head + 1)
    if n > MAX_SWEEP:
        raise UsageError(f"{n:,} parts are more than {MAX_SWEEP:,} to switch off one at a time; name some: off={FORMS}")
    return [
        part
        for layer in range(len(stack.blocks))
        for part in (*(f"head:{layer}.{head}" for head in range(stack.config.n_head)), f"mlp:{layer}")
    ]


def switch(seen: Reading, part: str) -> Callable[[], Any]:
    """What switches a part off, as a context.

    Raises:
        UsageError: the part is not of one of the `FORMS`, or there is none such.
    """
    found = re.fullmatch(r"(head|neuron):(\d+)\.(\d+)|(attention|mlp|layer|token):(\d+)", part)
    if found is None:
        raise UsageError(f"off={part} is no part; write {FORMS}")
    kind, first, second = found[1] or found[4], int(found[2] or found[5]), int(found[3] or 0)
    stack, prefix = stack_of(seen.model)
    if kind == "token":
        place = check_place("token", first, len(seen.labels))
        return lambda: edit(seen.model, f"{prefix}blocks.*.attention.scores", _hidden_from_others(place))
    layer = check_place("layer", first, len(stack.blocks))
    block = f"{prefix}blocks.{layer}"
    if kind == "head":
        head = check_place("head", second, stack.config.n_head)
        return lambda: ablate(seen.model, f"{block}.attention.heads", H=head)
    if kind == "neuron":
        neuron = check_place("neuron", second, stack.config.n_hidden)
        return lambda: ablate(seen.model, f"{block}.feedforward.hidden", F=neuron)
    if kind != "layer":
        sublayer = "feedforward" if kind == "mlp" else kind
        return lambda: ablate(seen.model, f"{block}.{sublayer}.output")
    return lambda: _skipped(seen.model, block)


def _hidden_from_others(place: int) -> Callable[[str, Tensor], Tensor]:
    """No query but its own may look at a place: its scores are -inf before the softmax."""

    def change(name: str, scores_BHTS: Tensor) -> Tensor:
        scores_BHTS = scores_BHTS.clone()
        own = scores_BHTS[:, :, place, place].clone()
        scores_BHTS[:, :, :, place] = -torch.inf
        scores_BHTS[:, :, place, place] = own
        return scores_BHTS

    return change


@contextlib.contextmanager
def _skipped(model: Any, block: str) -> Any:
    """A block that hands on what it was given."""
    given: list[Tensor] = []
    with (
        edit(model, f"{block}.residual.before", lambda _, x: given.append(x)),
        edit(model, f"{block}.residual.after", lambda _, x: given.pop()),
    ):
        yield
