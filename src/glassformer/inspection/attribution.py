"""Direct logit attribution: which parts of the model raise the logit of a token, and which lower it.

What it is a sum of, and what is frozen so that it is one, stands in `direct_logit_attribution`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, Note, Table, number, percent, visible
from glassformer.inspection.direct_logit_attribution import WATCHED, Part, Place, kinds_of, logit_parts, watch_place
from glassformer.inspection.options import view
from glassformer.inspection.reading import Reading, read, stack_of
from glassformer.inspection.stream import answers_of, place_name, place_of
from glassformer.inspection.trace import ablate
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, OptionalPosition, Target, TextOrImage, Token

MAX_LAYERS, MAX_HEADS = 33, 10  # that are drawn
NAMES = {
    "token": "the token's embedding",
    "n-grams": "what the last tokens were (n-grams)",
    "segment": "the segment's embedding",
    "position": "the position's embedding",
    "attention": "all heads of attention",
    "cross_attention": "all heads of cross-attention",
    "feedforward": "all feed-forwards",
    "attention bias": "biases behind attention",
    "cross_attention bias": "biases behind cross-attention",
    "norm bias": "biases of the norms",
    "transform bias": "bias of the layer before the head",
    "head bias": "bias of the head over the vocabulary",
}
SHORT = {"attention": "attention", "cross_attention": "cross-attention", "feedforward": "feed-forward"}


@dataclass(frozen=True)
class Ablated:
    """A head of the table and what the logit loses without it, when later layers react to its absence."""

    kind: str
    layer: int | None
    head: int | None
    value: float  # as of `Part`
    here: float  # the logit minus what it is when the head writes nothing at this place
    everywhere: float  # ... at any place


@dataclass
class AttributionView(View):
    """A logit as a sum over the parts of the model."""

    tokens: list[str]  # (T,) of the text
    position: int
    where: str  # the position in words
    token: str  # whose logit it is
    token_id: int
    against: str | None  # the token whose logit is taken away
    against_id: int | None
    parts: list[Part]  # the summands, in the order of the model
    total: float  # their sum
    logit: float  # the model's own, before a soft cap
    softcap: float | None
    probability: float  # the token's
    looks_at: dict[str, np.ndarray]  # for each kind of attention (L, H): the place with the largest weight
    looks_share: dict[str, np.ndarray]  # ... and that weight
    looked_labels: dict[str, list[str]]
    checks: list[Ablated]  # what really happens without the strongest heads
    frozen: str  # what was held constant, in words

    def sum_of(self, kind: str, layer: int | None = None) -> float:
        """All parts of a kind together, of one layer or of all."""
        return sum(p.value for p in self.parts if p.kind == kind and layer in (None, p.layer))

    def strongest(self, n: int) -> list[Part]:
        """The heads that add or take away most."""
        return sorted((p for p in self.parts if p.head is not None), key=lambda p: -abs(p.value))[:n]

    def figures(self) -> list[Figure]:
        token, kinds = visible(self.token), [kind for kind in NAMES if any(p.kind == kind for p in self.parts)]
        what = f"the logit of {token}" + (f" minus that of {visible(self.against)}" if self.against else "")
        check = ("sum of the parts", "the model's own", "difference")
        capped = f"Before the soft cap of {self.softcap:g}. " if self.softcap else ""
        return [
            Note(
                f"What each part of the model adds to or takes from {what} {self.where}, directly by the head; its "
                "effect on later layers is counted as theirs. The parts add up exactly because "
                f"{self.frozen} frozen: held at the scale of the true stream."
            ),
            Table(
                f"What {what} is made of",
                (Column("part"), Column("adds", "signed", role="weights")),
                [[NAMES[kind], self.sum_of(kind)] for kind in kinds],
            ),
            Table(
                "",
                [Column(name, "number", digits=5) for name in check],
                [[self.total, self.logit, self.total - self.logit]],
            ),
            Note(f"{capped}In the end {token} has a probability of {percent(self.probability)}."),
            self._by_layer(),
            *self._heads(),
        ]

    def _by_layer(self) -> Table:
        kinds = [kind for kind in SHORT if any(p.kind == kind for p in self.parts)]
        n_layer = 1 + max(p.layer for p in self.parts if p.layer is not None)
        sums = [[self.sum_of(kind, layer) for kind in kinds] for layer in range(n_layer)]
        largest = sorted(range(n_layer), key=lambda layer: -max(map(abs, sums[layer])))[:MAX_LAYERS]
        title = "Block by block" + (f": the {MAX_LAYERS} largest of {n_layer}" if n_layer > MAX_LAYERS else "")
        columns = [Column("of"), *(Column(SHORT[kind], "signed", digits=2, role="weights") for kind in kinds)]
        return Table(title, columns, [[f"block {layer}", *sums[layer]] for layer in sorted(largest)])

    def _heads(self) -> list[Figure]:
        shown = self.strongest(MAX_HEADS)
        heads = [p.value for p in self.parts if p.head is not None]
        rest, left = len(heads) - len(shown), sum(heads) - sum(p.value for p in shown)
        columns = [Column("head"), Column("adds", "signed", role="weights")]
        columns += [Column("looks most at", "token"), Column("weight", "share", role="query")]
        figures: list[Figure] = [
            Table("The strongest heads (block.head)", columns, [[_name(p), p.value, *self._look(p)] for p in shown])
        ]
        if rest:
            figures.append(Note(f"The other {rest:,} heads add {number(left)} together."))
        if self.checks:
            names = ("adds directly", "lost if silent here", "lost if silent everywhere")
            figures += [
                Table(
                    "What the logit really loses without a head (ablation)",
                    (Column("head"), *(Column(name, "number") for name in names)),
                    [[_name(c), c.value, c.here, c.everywhere] for c in self.checks],
                ),
                Note("Where the numbers differ, later layers used the head's output, or compensated for it."),
            ]
        return figures

    def _look(self, p: Part) -> list[Any]:
        at = int(self.looks_at[p.kind][p.layer, p.head])
        return [visible(self.looked_labels[p.kind][at], 14), float(self.looks_share[p.kind][p.layer, p.head])]


def _name(p: Part | Ablated) -> str:
    return f"{'cross ' if p.kind == 'cross_attention' else ''}{p.layer}.{p.head}"


@view(
    'glassformer look attribution smollm2-135m-instruct "The capital of France is" --against " London"',
    "glassformer look attribution runs/mnist-1 seven.png --against 1",
)
def attribution(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    *,
    token: Annotated[Token, Option("The token or class whose logit to explain; default: the most likely.")] = None,
    against: Annotated[Token, Option("Explain the difference to the logit of this token.")] = None,
    position: OptionalPosition = None,
    check: Annotated[int, Option("Ablate N of the strongest heads, to see the true effect.", ge=0, le=64)] = 3,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
    labels: Sequence[str] = (),
) -> AttributionView:
    """The logit of a token as an exact sum over embedding, heads, feed-forwards and biases.

    Each checked head costs two passes.

    Raises:
        UsageError: the model has no linear head over tokens or classes or its weights are kept in fewer bits, a token
            is not one, or there is no such position.
    """
    answers = answers_of(model, tokenizer, labels)
    chosen = None if token is None else answers.number(token, "token")
    other = None if against is None else answers.number(against, "against")
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    if answers.classes and position not in (None, 0):
        raise UsageError(f"position={position}: this classifier reads the vector of the first place; leave it out")
    at, (stack, _) = 0 if answers.classes else place_of(seen, position), stack_of(model)
    place = watch_place(seen, at, *WATCHED)
    logits_V = place.head[: len(answers.classes) or answers.tokenizer.vocab_size]
    chosen = int(logits_V.argmax()) if chosen is None else chosen
    if chosen == other:
        raise UsageError(f"token and against are both {answers.text(chosen)!r}; take two different ones")
    u_V = torch.zeros(len(logits_V))
    u_V[chosen] = 1
    if other is not None:
        u_V[other] = -1
    parts = logit_parts(stack, place, u_V)
    cap = stack.config.logit_softcap
    capped_V = logits_V if cap is None else cap * torch.tanh(logits_V / cap)
    looks = {
        kind: torch.stack([place.taps[f"blocks.{i}.{kind}.pattern"] for i in range(len(stack.blocks))]).max(dim=-1)
        for kind in kinds_of(stack.blocks[0])
    }
    found = AttributionView(
        tokens=seen.labels,
        position=at,
        where=place_name(seen, at),
        token=answers.text(chosen),
        token_id=chosen,
        against=None if other is None else answers.text(other),
        against_id=other,
        parts=parts,
        total=sum(part.value for part in parts),
        logit=float(logits_V @ u_V.double()),
        softcap=cap,
        probability=float(capped_V.softmax(dim=-1)[chosen]),
        looks_at={kind: best.indices.numpy() for kind, best in looks.items()},
        looks_share={kind: best.values.float().numpy() for kind, best in looks.items()},
        looked_labels={kind: seen.labels if kind == "attention" else seen.source_labels for kind in looks},
        checks=[],
        frozen=_frozen(stack),
    )

    def logit(at_place: Place) -> float:
        return float(at_place.head[: len(u_V)] @ u_V.double())

    found.checks = [_ablated(seen, at, part, logit, found.logit) for part in found.strongest(check)]
    return found


def _ablated(seen: Reading, at: int, part: Part, logit: Callable[[Place], float], whole: float) -> Ablated:
    """What is lost when a head writes nothing."""
    name = f"{stack_of(seen.model)[1]}blocks.{part.layer}.{part.kind}.heads"
    head: dict[str, Any] = {"H": part.head}
    with ablate(seen.model, name, **head, T=at):
        here = logit(watch_place(seen, at))
    with ablate(seen.model, name, **head):
        everywhere = logit(watch_place(seen, at))
    return Ablated(part.kind, part.layer, part.head, part.value, whole - here, whole - everywhere)


def _frozen(stack: Any) -> str:
    """What was held constant, in words."""
    if stack.config.norm_place in ("sandwich", "output"):
        return "the final norm and the norms behind all layers are"
    norm = {"pre": "the final norm", "post": "the norm behind every layer"}[stack.config.norm_place]
    return (
        f"{norm} and the layer before the head are" if getattr(stack, "transform", None) is not None else f"{norm} is"
    )
