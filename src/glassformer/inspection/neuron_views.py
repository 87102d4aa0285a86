"""What is shown of the neurons of a feed-forward; `neurons` computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glassformer.errors import plural
from glassformer.figures import Column, Figure, Note, Table
from glassformer.inspection.views import View


@dataclass
class Excitation:
    """A place in the texts. value: the activation. tokens: what stands around it; at: which of them it is. text,
    position: the number of the text, and of the token in it."""

    value: float
    tokens: list[str]
    at: int
    text: int
    position: int


@dataclass
class Neuron:
    """A hidden neuron over all tokens that were read.

    active: the share of tokens on which it is. mean, std, least, most: of its activations. kurtosis: the fourth moment
    over the squared second, less 3: large for one that is silent nearly always and loud now and then. contexts: where
    it is highest, best first. lowest: of a gated one, where it is lowest. promotes, suppresses: tokens with the most
    and the least of `direction`, for a positive activation.
    """

    neuron: int
    active: float
    mean: float
    std: float
    least: float
    most: float
    kurtosis: float
    contexts: list[Excitation]
    lowest: list[Excitation]
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]

    @property
    def strongest(self) -> Excitation:
        """Where its activation is furthest from nothing, above or, of a gated one, below."""
        return max((*self.contexts[:1], *self.lowest[:1]), key=lambda hit: abs(hit.value))


@dataclass
class NeuronsView(View):
    """Some neurons of the feed-forward of one layer.

    n_tokens, n_texts: what was read; skipped: of each window so many tokens at the beginning were not counted.
    threshold: above it a neuron counts as active (of a gated one: above it or below minus it). n_neurons: the layer
    has so many; silent: so many of them were never active. direction: how `promotes` is computed, or why it is not.
    """

    layer: int
    n_neurons: int
    n_tokens: int
    n_texts: int
    skipped: int
    window: int
    threshold: float
    gated: bool
    silent: int
    neurons: list[Neuron]
    direction: str

    def figures(self) -> list[Figure]:
        what = "above" if not self.gated else "beyond plus or minus"
        told = (
            f"{plural(self.n_tokens, 'token')} of {plural(self.n_texts, 'text')} through the feed-forward of layer "
            f"{self.layer} ({self.n_neurons:,} neurons), in windows of {self.window}. Active: {what} "
            f"{self.threshold:.3g}. {self.silent:,} never were."
        )
        if self.skipped:
            told += " The first token of a window is left out: attention is parked there, its vector is like no other."
        made: list[Figure] = [Note(told)]
        return made + (self._one(self.neurons[0]) if len(self.neurons) == 1 else self._many())

    def _one(self, n: Neuron) -> list[Figure]:
        made: list[Figure] = [
            Note(
                f"Neuron {n.neuron} is active on {100 * n.active:.2g} % of them; from {n.least:.3g} to {n.most:.3g}, "
                f"mean {n.mean:.3g}, std {n.std:.3g}, kurtosis {n.kurtosis:.3g}."
            ),
            Table(
                "Where it is most excited (by the token in [ ], which has seen what stands before it)",
                (Column("value", "number"), Column("text")),
                [(hit.value, _context(hit, 62)) for hit in n.contexts],
            ),
        ]
        if n.lowest and n.lowest[0].value < -self.threshold:
            rows = [(hit.value, _context(hit, 62)) for hit in n.lowest]
            made.append(
                Table("Where it is lowest (and says the opposite)", (Column("value", "number"), Column("text")), rows)
            )
        if n.promotes:
            said = [(*up, *down) for up, down in zip(n.promotes, n.suppresses, strict=True)]
            columns = (
                Column("promotes", "token"),
                Column("by", "number"),
                Column("suppresses", "token"),
                Column("by ", "number"),
            )
            made.append(Table("What it then says of the next token", columns, said))
        return [*made, Note(self.direction)]

    def _many(self) -> list[Figure]:
        rows = [
            (n.neuron, n.kurtosis, n.active, n.strongest.value, _context(n.strongest, 20, after=0))
            for n in self.neurons
        ]
        made: list[Figure] = [
            Table(
                "The most selective neurons (silent on most tokens, loud on a few)",
                (
                    Column("neuron", "count"),
                    Column("kurtosis", "number", 1),
                    Column("active", "share", role="weights"),
                    Column("strongest", "number"),
                    Column("at"),
                ),
                rows,
            )
        ]
        if any(n.promotes for n in self.neurons):
            says = []
            for n in self.neurons:
                both = _list(n.promotes[:4]), _list(n.suppresses[:4])
                says.append((n.neuron, *(both if n.strongest.value > 0 else both[::-1])))
            columns = Column("neuron", "count"), Column("promotes there"), Column("suppresses there")
            made.append(Table("What they say at their strongest", columns, says))
        return [*made, Note(self.direction)]


def _list(said: Sequence[tuple[str, float]]) -> str:
    return " ".join(token.replace(" ", "␣")[:8] for token, _ in said)


def _context(hit: Excitation, width: int, after: int | None = None) -> str:
    """So much of a context as there is room for, the end of what stands before it first."""
    marked = f"[{hit.tokens[hit.at]}]"
    behind = "".join(hit.tokens[hit.at + 1 :])[: max((width - len(marked)) // 4, 0) if after is None else after]
    room = max(width - len(marked) - len(behind), 0)
    before = "".join(hit.tokens[: hit.at])
    before = "…" + before[len(before) - room + 1 :] if len(before) > room > 0 else before
    return f"{before}{marked}{behind}"


__all__ = ["Excitation", "Neuron", "NeuronsView"]
