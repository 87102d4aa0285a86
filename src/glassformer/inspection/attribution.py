"""Direct logit attribution: which parts of the model speak for a token, and which against it.

What it is a sum of, and what is frozen so that it is one, stands in `contributions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, Note, Table, number, percent, visible
from glassformer.inspection.contributions import WATCHED, Part, Place, contributions, kinds_of, watch_place
from glassformer.inspection.options import OptionalPosition, Target, Text, Token, view
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.stream import check_says_tokens, place_name, place_of, stack_of, token_of
from glassformer.inspection.trace import ablate
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer

MOST_LAYERS, MOST_HEADS = 33, 10  # that are drawn
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
    """A head of the table and what the logit really loses without it, later layers answering to its absence.

    kind, layer, head, value: as of `Part`. here: the logit minus what it is when the head says nothing at this place;
    everywhere: when it says nothing at any place.
    """

    kind: str
    layer: int | None
    head: int | None
    value: float
    here: float
    everywhere: float


@dataclass
class AttributionView(View):
    """A logit as a sum over the parts of the model.

    tokens: (T,), of the text. position, where: the place that is asked about. token, token_id: whose logit it is;
    against, against_id: the token whose logit is taken away, if any. parts: the summands, in the order of the model.
    total: their sum. logit: the model's own, before a soft cap; softcap: the cap, if there is one. probability: the
    token's. looks_at, looks_share: for each kind of attention (L, H), the place that a head looks at most from here,
    and its share. checks: what the strongest heads really do. frozen: what was held constant, in words.
    """

    tokens: list[str]
    position: int
    where: str
    token: str
    token_id: int
    against: str | None
    against_id: int | None
    parts: list[Part]
    total: float
    logit: float
    softcap: float | None
    probability: float
    looks_at: dict[str, np.ndarray]
    looks_share: dict[str, np.ndarray]
    looked_labels: dict[str, list[str]]
    checks: list[Ablated]
    frozen: str

    def sum_of(self, kind: str, layer: int | None = None) -> float:
        """All parts of a kind together, of one layer or of all."""
        return sum(p.value for p in self.parts if p.kind == kind and layer in (None, p.layer))

    def strongest(self, n: int) -> list[Part]:
        """The heads that add or take away most."""
        return sorted((p for p in self.parts if p.head is not None), key=lambda p: -abs(p.value))[:n]

    @property
    def what(self) -> str:
        """What is taken apart."""
        token = visible(self.token)
        return f"the logit of {token}" + (f" minus that of {visible(self.against)}" if self.against else "")

    def figures(self) -> list[Figure]:
        kinds = [kind for kind in NAMES if any(p.kind == kind for p in self.parts)]
        adds = Column("adds", "signed", role="weights")
        figures: list[Figure] = [
            Note(
                f"What each part of the model says for or against {visible(self.token)} {self.where}, straight to the "
                "head; what it says to later layers is counted as theirs. The parts add up exactly because "
                f"{self.frozen} frozen: held at the scale of the true stream."
            ),
            Table(
                f"What {self.what} is made of",
                (Column("part"), adds),
                [[NAMES[kind], self.sum_of(kind)] for kind in kinds],
            ),
            Table(
                "",
                tuple(
                    Column(name, "number", digits=5) for name in ("sum of the parts", "the model's own", "difference")
                ),
                [[self.total, self.logit, self.total - self.logit]],
            ),
            Note(self._ending()),
            self._by_layer(),
            *self._heads(),
        ]
        return figures

    def _ending(self) -> str:
        capped = f"Before the soft cap of {self.softcap:g}. " if self.softcap else ""
        return f"{capped}In the end {visible(self.token)} has a chance of {percent(self.probability)}."

    def _by_layer(self) -> Table:
        kinds = [kind for kind in SHORT if any(p.kind == kind for p in self.parts)]
        n_layer = 1 + max(p.layer for p in self.parts if p.layer is not None)
        sums = [[self.sum_of(kind, layer) for kind in kinds] for layer in range(n_layer)]
        loudest = sorted(range(n_layer), key=lambda layer: -max(map(abs, sums[layer])))[:MOST_LAYERS]
        title = "Block by block" + (f": the {MOST_LAYERS} loudest of {n_layer}" if n_layer > MOST_LAYERS else "")
        columns = [Column("of"), *(Column(SHORT[kind], "signed", digits=2, role="weights") for kind in kinds)]
        return Table(title, columns, [[f"block {layer}", *sums[layer]] for layer in sorted(loudest)])

    def _heads(self) -> list[Figure]:
        shown = self.strongest(MOST_HEADS)
        heads = [p.value for p in self.parts if p.head is not None]
        rest, left = len(heads) - len(shown), sum(heads) - sum(p.value for p in shown)
        columns = (
            Column("head"),
            Column("adds", "signed", role="weights"),
            Column("looks most at", "token"),
            Column("share", "share", role="query"),
        )
        rows = [[_name(p), p.value, *self._look(p)] for p in shown]
        figures: list[Figure] = [Table("The strongest heads (block.head)", columns, rows)]
        if rest:
            figures.append(Note(f"The other {rest:,} heads add {number(left)} together."))
        if self.checks:
            names = ("adds directly", "lost if silent here", "lost if silent everywhere")
            effects = (Column("head"), *(Column(name, "number") for name in names))
            checks = [[_name(c), c.value, c.here, c.everywhere] for c in self.checks]
            figures += [
                Table("What the logit really loses without a head (ablation)", effects, checks),
                Note("Where the numbers differ, later layers listened to the head, or made up for it."),
            ]
        return figures

    def _look(self, p: Part) -> list[Any]:
        at = int(self.looks_at[p.kind][p.layer, p.head])
        return [visible(self.looked_labels[p.kind][at], 14), float(self.looks_share[p.kind][p.layer, p.head])]


@view('glassformer look attribution smollm2-135m-instruct "The capital of France is" --against " London"')
def attribution(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    *,
    token: Annotated[Token, Field(description="Whose logit; left out, the likeliest token.")] = None,
    against: Annotated[Token, Field(description="Take apart how much more likely it is than this one.")] = None,
    position: OptionalPosition = None,
    check: Annotated[
        int, Field(ge=0, description="Ablate so many of the strongest heads, to see what really changes.")
    ] = 3,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> AttributionView:
    """The logit of a token as an exact sum over embedding, heads, feed-forwards and biases.

    Raises:
        UsageError: the model has no head over tokens or its weights are kept in fewer bits, a token is not one, or
            there is no such position.
    """
    check_says_tokens(model)
    chosen = None if token is None else token_of(tokenizer, token, "token")
    other = None if against is None else token_of(tokenizer, against, "against")
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    at, (stack, _) = place_of(seen, position), stack_of(model)
    place = watch_place(seen, at, *WATCHED)
    logits_V = place.head[: tokenizer.vocab_size]
    chosen = int(logits_V.argmax()) if chosen is None else chosen
    if chosen == other:
        raise UsageError(f"token and against are both {tokenizer.token_text(chosen)!r}; take two different ones")
    u_V = torch.zeros(len(logits_V))
    u_V[chosen] = 1
    if other is not None:
        u_V[other] = -1
    parts = contributions(stack, place, u_V)
    cap = stack.config.logit_softcap
    capped_V = logits_V if cap is None else cap * torch.tanh(logits_V / cap)
    looks = {kind: _looks(place, len(stack.blocks), kind) for kind in kinds_of(stack.blocks[0])}
    view = AttributionView(
        tokens=seen.labels,
        position=at,
        where=place_name(seen, at),
        token=tokenizer.token_text(chosen),
        token_id=chosen,
        against=None if other is None else tokenizer.token_text(other),
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
    view.checks = [
        _ablated(seen, at, part, lambda logits_V: float(logits_V[: len(u_V)] @ u_V.double()), view.logit)
        for part in view.strongest(max(check, 0))
    ]
    return view


def _ablated(seen: Reading, at: int, part: Part, asked: Callable[[Tensor], float], logit: float) -> Ablated:
    """What is lost when a head says nothing."""
    name = f"{stack_of(seen.model)[1]}blocks.{part.layer}.{part.kind}.heads"
    head: dict[str, Any] = {"H": part.head}
    with ablate(seen.model, name, **head, T=at):
        here = asked(watch_place(seen, at).head)
    with ablate(seen.model, name, **head):
        everywhere = asked(watch_place(seen, at).head)
    return Ablated(part.kind, part.layer, part.head, part.value, logit - here, logit - everywhere)


def _looks(place: Place, n_layer: int, kind: str) -> Any:
    return torch.stack([place.taps[f"blocks.{layer}.{kind}.pattern"] for layer in range(n_layer)]).max(dim=-1)


def _frozen(stack: Any) -> str:
    """What was held constant, in words."""
    norms = {"pre": "the final norm is", "post": "the norm behind every layer is"}
    if stack.config.norm_place in ("sandwich", "output"):
        return "the final norm and the norms behind all layers are"
    if getattr(stack, "transform", None) is not None:
        return norms[stack.config.norm_place].removesuffix(" is") + " and the layer before the head are"
    return norms[stack.config.norm_place]


def _name(p: Part | Ablated) -> str:
    return f"{'cross ' if p.kind == 'cross_attention' else ''}{p.layer}.{p.head}"
