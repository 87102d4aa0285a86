"""The neurons of a feed-forward: which texts activate them, and which tokens they then promote.

Each hidden neuron multiplies the vector of a token with a row of numbers, and adds a column of numbers to it in
proportion to the result. Geva et al. 2021, https://arxiv.org/abs/2012.14913: the rows are keys that fit certain texts,
the columns values that promote certain tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, visible
from glassformer.inspection.max_activating import (
    BEFORE,
    PADDING,
    ActivationStatistics,
    TopPlaces,
    read_corpus,
    windows,
)
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, reader_of
from glassformer.inspection.views import View
from glassformer.inspection.weights import matrix_of
from glassformer.layers import Experts, GatedFeedForward, LayerNorm, ZeroCenteredRMSNorm
from glassformer.processors.tokenizers import Tokenizer
from glassformer.renamed import old_arguments
from glassformer.view_options import Corpus, Layer, Option, Top

CONTEXTS = 3  # of each neuron, where many are shown
PROMOTED = 10  # tokens


@dataclass
class Activation:
    """A place in the texts."""

    value: float
    tokens: list[str]  # what stands around it
    at: int  # which of them it is
    text: int  # the number of the text
    position: int  # of the token in it


@dataclass
class Neuron:
    """A hidden neuron over all tokens that were read."""

    neuron: int
    active: float  # the share of tokens on which it is
    mean: float
    std: float
    least: float
    most: float
    kurtosis: float  # large for a neuron that is near 0 on most tokens and large on a few
    contexts: list[Activation]  # where it is highest, best first
    lowest: list[Activation]  # of a gated one, where it is lowest
    promotes: list[tuple[str, float]]  # by a positive activation
    suppresses: list[tuple[str, float]]

    @property
    def strongest(self) -> Activation:
        """Where its activation is furthest from 0, above or, of a gated one, below."""
        return max((*self.contexts[:1], *self.lowest[:1]), key=lambda place: abs(place.value))


@dataclass
class NeuronsView(View):
    """Some neurons of the feed-forward of one layer."""

    layer: int
    n_neurons: int  # of the layer
    n_tokens: int
    n_texts: int
    skipped: int  # tokens at the beginning of each window that were not counted
    window: int
    threshold: float  # above it a neuron counts as active; of a gated one: above it or below minus it
    gated: bool
    silent: int  # neurons of the layer that were never active
    neurons: list[Neuron]
    direction: str  # how `promotes` is computed, or why it is not

    def figures(self) -> list[Figure]:
        beyond = "beyond plus or minus" if self.gated else "above"
        text = (
            f"{plural(self.n_tokens, 'token')} of {plural(self.n_texts, 'text')} through the feed-forward of layer "
            f"{self.layer} ({self.n_neurons:,} neurons), in windows of {self.window}. Active: {beyond} "
            f"{self.threshold:.3g}. {self.silent:,} never were."
        )
        if self.skipped:
            text += " The first token of a window is left out: attention sinks there, and its vector is like no other."
        figures = self._one(self.neurons[0]) if len(self.neurons) == 1 else self._many()
        return [Note(text), *figures, Note(self.direction)]

    def _one(self, n: Neuron) -> list[Figure]:
        columns = Column("value", "number"), Column("text")
        figures: list[Figure] = [
            Note(
                f"Neuron {n.neuron} is active on {100 * n.active:.2g} % of them; from {n.least:.3g} to {n.most:.3g}, "
                f"mean {n.mean:.3g}, std {n.std:.3g}, kurtosis {n.kurtosis:.3g}."
            ),
            Table(
                "Where it is most active (at the token in [ ], which has seen what stands before it)",
                columns,
                [(place.value, _context(place, 62)) for place in n.contexts],
            ),
        ]
        if n.lowest and n.lowest[0].value < -self.threshold:
            rows = [(place.value, _context(place, 62)) for place in n.lowest]
            figures.append(Table("Where it is lowest (and promotes the opposite)", columns, rows))
        if n.promotes:
            pairs = [(*up, *down) for up, down in zip(n.promotes, n.suppresses, strict=True)]
            by = Column("by", "number"), Column("by ", "number")
            sides = Column("promotes", "token"), by[0], Column("suppresses", "token"), by[1]
            figures.append(Table("What it then adds to the logits of the next token", sides, pairs))
        return figures

    def _many(self) -> list[Figure]:
        columns = [
            Column("neuron", "count"),
            Column("kurtosis", "number", 1),
            Column("active", "share", role="weights"),
        ]
        columns += [Column("strongest", "number"), Column("at")]
        rows = [(n.neuron, n.kurtosis, n.active, n.strongest.value, _context(n.strongest, 20, 0)) for n in self.neurons]
        figures: list[Figure] = [
            Table("The most selective neurons (silent on most tokens, loud on a few)", columns, rows)
        ]
        if any(n.promotes for n in self.neurons):
            effects = []
            for n in self.neurons:
                both = [" ".join(visible(token)[:8] for token, _ in side[:4]) for side in (n.promotes, n.suppresses)]
                effects.append((n.neuron, *(both if n.strongest.value > 0 else both[::-1])))
            sides = Column("neuron", "count"), Column("promotes there"), Column("suppresses there")
            figures.append(Table("What they promote at their strongest", sides, effects))
        return figures


def _context(place: Activation, width: int, after: int | None = None) -> str:
    """As much of a context as fits, the end of what stands before it first."""
    marked = f"[{place.tokens[place.at]}]"
    behind = "".join(place.tokens[place.at + 1 :])[: max((width - len(marked)) // 4, 0) if after is None else after]
    left = max(width - len(marked) - len(behind), 0)
    before = "".join(place.tokens[: place.at])
    before = "…" + before[len(before) - left + 1 :] if len(before) > left > 0 else before
    return f"{before}{marked}{behind}"


@old_arguments(tokenizer="input_tokenizer", texts="corpus")
@view("glassformer look neurons runs/demo-1 --layer 1 --neuron 7")
def neurons(
    model: Any,
    input_tokenizer: Tokenizer,
    corpus: Corpus,
    *,
    layer: Layer = 0,
    neuron: Annotated[int | None, Option("The neuron; default: the most selective of the layer.")] = None,
    top: Top = 10,
    window: Annotated[int, Option("Tokens that are read together, block_size at most.", ge=1)] = 256,
    max_tokens: Annotated[int, Option("Where to stop reading.", ge=1, le=10_000_000)] = 100_000,
    threshold: Annotated[
        float | None, Option("A neuron is active above this; default: 0, in a gated layer its rms.")
    ] = None,
) -> NeuronsView:
    """What activates the neurons of a feed-forward, and what they promote.

    The corpus is a text, or an iterable of texts that is read once. An encoder-decoder reads it with its encoder.

    Raises:
        UsageError: there is no such layer or neuron or no text, or the layer is a mixture of experts.
    """
    stack = reader_of(model, input_tokenizer)
    layer = check_place("layer", layer, len(stack.blocks))
    block, F = stack.blocks[layer], stack.config.n_hidden
    if isinstance(block.feedforward, Experts):
        raise UsageError(
            f"layer {layer} is a mixture of {len(block.feedforward.experts)} experts, whose neurons see only what "
            f"is sent to them; watch one by trace(model, 'blocks.{layer}.feedforward.experts.0.hidden')"
        )
    neuron = None if neuron is None else check_place("neuron", neuron, F)
    gated = isinstance(block.feedforward, GatedFeedForward)
    skip = 1 if stack.writes and input_tokenizer.starts_with is None else 0
    window = min(window, stack.config.block_size)
    texts: Iterable[str] = [corpus] if isinstance(corpus, str) else corpus
    threshold = 0.0 if threshold is None and not gated else threshold
    found = read_corpus(
        stack,
        windows(stack, input_tokenizer, texts, window, max_tokens),
        f"blocks.{layer}.feedforward.hidden",
        ActivationStatistics(top if neuron is not None else CONTEXTS, threshold, gated),
        skip,
    )
    if not found.n or found.threshold is None:
        raise UsageError("there is no token to activate a neuron; give a text of two tokens or more")
    chosen = [neuron] if neuron is not None else found.kurtosis.topk(min(top, F)).indices.tolist()
    logits_NV, direction = output_directions(stack, block, chosen, input_tokenizer.vocab_size)
    rows = [None] * len(chosen) if logits_NV is None else list(logits_NV)
    return NeuronsView(
        layer,
        F,
        found.n,
        found.n_texts,
        skip,
        window,
        found.threshold,
        gated,
        int((found.active == 0).sum()),
        [_neuron(found, n, gated, logits_V, input_tokenizer) for n, logits_V in zip(chosen, rows, strict=True)],
        direction,
    )


def _neuron(found: ActivationStatistics, n: int, gated: bool, logits_V: Tensor | None, tokenizer: Tokenizer) -> Neuron:
    def promoted(largest: bool) -> list[tuple[str, float]]:
        if logits_V is None:
            return []
        best = logits_V.topk(min(PROMOTED, len(logits_V)), largest=largest)
        return list(zip(map(tokenizer.token_text, best.indices.tolist()), best.values.tolist(), strict=True))

    return Neuron(
        n,
        int(found.active[n]) / found.n,
        float(found.mean[n]),
        float(found.std[n]),
        float(found.least[n]),
        float(found.highest.values[0, n]),
        float(found.kurtosis[n]),
        _activations(found.highest, n, 1, tokenizer),
        _activations(found.lowest, n, -1, tokenizer) if gated else [],
        promoted(largest=True),
        promoted(largest=False),
    )


def _activations(best: TopPlaces, n: int, sign: int, tokenizer: Tokenizer) -> list[Activation]:
    spaced = _begins_words(tokenizer)
    found = []
    for value, (text, position, *ids) in zip(best.values[:, n].tolist(), best.places[:, n].tolist(), strict=True):
        tokens = [(" " if spaced(i) else "") + tokenizer.token_text(i) for i in ids if i != PADDING]
        found.append(Activation(sign * value, tokens, BEFORE - ids[:BEFORE].count(PADDING), text, position))
    return found


def _begins_words(tokenizer: Tokenizer) -> Callable[[int], bool]:
    """Whether a token needs a space before it, which vocabularies of words leave out."""
    if tokenizer.kind != "wordpiece":
        return lambda i: tokenizer.kind == "words"
    model = json.loads(tokenizer.to_json())["model"]
    prefix = model["continuing_subword_prefix"]
    inside = {i for token, i in model["vocab"].items() if token.startswith(prefix)}
    return lambda i: i not in inside


def output_directions(stack: Any, block: Any, chosen: Sequence[int], n_tokens: int) -> tuple[Tensor | None, str]:
    """What neurons add to the logits for each unit of activation, without later blocks: (N, tokens); and how it is
    computed in words, or why it is not.

    W_U (g * w): the neuron's column w of the down-projection through the norms that stand between it and the
    unembedding W_U, frozen at a divisor of 1, so that their scales g are left (of a layer norm, also what it does to
    the mean).
    """
    head = getattr(stack, "head", None)
    if head is None or getattr(stack.config, "token_head", "vocabulary") != "vocabulary":
        return None, "What it promotes is not known: this model has no unembedding."
    if getattr(stack, "transform", None) is not None:
        return None, "What it promotes is not linear here: a layer with an activation stands before the unembedding."
    w_CN = matrix_of(block.feedforward.down)[:, list(chosen)].float()
    around = block.norms("feedforward")
    norms = [norm for norm in (around.behind, around.of_sum, stack.final_norm) if norm is not None]
    for norm in norms:
        w_CN = through_frozen(norm, w_CN)
    logits_NV = (matrix_of(head).float() @ w_CN).T[:, :n_tokens] * stack.config.logit_scale
    through = "the norm behind it and the final norm" if len(norms) > 1 else "the last norm" if norms else "no norm"
    return logits_NV.cpu(), (
        f"Promoted and suppressed: the neuron's column of the down-projection, through {through} (its scale, with a "
        "divisor of 1), times the unembedding: what one unit of activation adds to each logit, were that divisor 1 and "
        "no block behind it. A negative activation promotes the opposite."
    )


def through_frozen(norm: nn.Module, x_CN: Tensor) -> Tensor:
    """What is left of a norm when its divisor is 1: a layer norm takes the mean away, and all scale."""
    weight = norm.weight.detach().float()  # type: ignore[union-attr, operator]
    if isinstance(norm, LayerNorm):
        x_CN = x_CN - x_CN.mean(dim=0)
    return x_CN * (1 + weight if isinstance(norm, ZeroCenteredRMSNorm) else weight)[:, None]
