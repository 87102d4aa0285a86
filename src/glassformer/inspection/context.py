"""One word in several sentences: the same vector at the embedding, and further apart with every layer that has looked
at what stands around it.

    context(model, tokenizer, "mole", ["American shrew mole", "one mole of carbon dioxide", "a biopsy of the mole"])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import Column, Curves, Figure, HeatMap, Note, Table, visible
from glassformer.inspection.options import view
from glassformer.inspection.reading import read, reader_of, reading
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.stepwise import token_starts
from glassformer.renamed import old_arguments

MOST_TEXTS = 16
MOST_LINES = 10  # pairs that are drawn one by one


@dataclass
class Neighbours:
    """What a vector is near to.

    layer: 0 is the embedding, l + 1 what block l leaves. text: which one. by: "embedding" (the rows of the embedding
    table with the largest cosine) or "head" (what the model would say if it stopped here: final norm and head; the
    logit lens). tokens, scores: best first; cosines, or probabilities.
    """

    layer: int
    text: int
    by: str
    ids: list[int]
    tokens: list[str]
    scores: list[float]


@dataclass
class ContextView(View):
    """A word in N sentences, through L layers.

    tokens, ids, positions: the token of each text whose vectors are compared (the last one of the word), and where it
    stands. layers: the names of the L + 1 places. cosine (L + 1, N, N): between the vectors of each pair; the first is
    the row of the embedding table, before any position is added, the others the stream behind each block. entering
    (N, N): the same of the stream that enters the first block, where learned or sinusoidal positions and segments are
    in it. vectors (L + 1, N, C). causal: a vector knows only what stands before its word.
    """

    word: str
    texts: list[str]
    tokens: list[str]
    ids: list[int]
    positions: list[int]
    layers: list[str]
    cosine: np.ndarray
    entering: np.ndarray
    vectors: np.ndarray
    neighbours: list[Neighbours]
    causal: bool

    def figures(self) -> list[Figure]:
        n = len(self.texts)
        pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
        lines: dict[str, Any] = {f"{a + 1} and {b + 1}": self.cosine[:, a, b].tolist() for a, b in pairs[:MOST_LINES]}
        if len(pairs) > MOST_LINES:
            above = np.triu_indices(n, 1)
            lines = {"all pairs, mean": self.cosine[:, above[0], above[1]].mean(axis=1).tolist()}
        names = [str(i + 1) for i in range(n)]
        made: list[Figure] = [
            Table(
                f"{self.word!r} in {n} sentences",
                (Column("", "count"), Column("sentence"), Column("token", "token"), Column("at", "count")),
                list(zip(range(1, n + 1), self.texts, self.tokens, self.positions, strict=True)),
            ),
            Curves.over(
                "How alike are the vectors of the word (cosine; 1: the same direction)",
                self.layers,
                lines,
                "layers, from the embedding to the last block",
                "cosine",
            ),
            HeatMap(f"Behind {self.layers[-1]}", self.cosine[-1], names, names, "sentence", "sentence", signed=True,
                    highest=1.0),
            Note(self._note()),
        ]  # fmt: skip
        titles = {
            "embedding": "nearest rows of the embedding table (cosine)",
            "head": "what the model would say here (final norm and head; probability)",
        }
        for by, layer in dict.fromkeys((near.by, near.layer) for near in self.neighbours):
            some = [near for near in self.neighbours if near.by == by and near.layer == layer][:MOST_COLUMNS]
            columns = [Column(f"sentence {near.text + 1}") for near in some]
            rows = [
                [f"{visible(near.tokens[i], 12)} {near.scores[i]:.2f}" for near in some]
                for i in range(len(some[0].tokens))
            ]
            made.append(Table(f"{_behind(self.layers[layer])}: {titles[by]}", columns, rows))
        return made

    def _note(self) -> str:
        above = np.triu_indices(len(self.texts), 1)
        told = "Before any block the word is one row of a table, the same in every sentence (cosine 1)."
        if len(set(self.ids)) > 1:
            shown = ", ".join(dict.fromkeys(visible(token) for token in self.tokens))
            told = f"The word ends in different tokens here ({shown}), so that it differs from the start."
        if self.entering[above].min() < self.cosine[0][above].min() - 1e-4:
            told += (
                " What is added to that row next (where the word stands; in some models also the tokens before it) "
                f"already tells them apart: what enters the first block is alike to {self.entering[above].min():.3f}."
            )
        told += (
            " This model reads from left to right: only what stands before the word can change its vector."
            if self.causal
            else " In this model a word sees the whole sentence, what stands behind it too."
        )
        return told


MOST_COLUMNS = 4


@old_arguments(tokenizer="input_tokenizer")
@view(
    'glassformer look context minilm-l6 mole "an American shrew mole" "one mole of carbon dioxide" '
    '"a biopsy of the mole"',
    'glassformer look context smollm2-135m-instruct model "a machine learning model" "a fashion model"',
)
def context(
    model: Any,
    input_tokenizer: Tokenizer,
    word: Annotated[str, Field(description="A word that all texts hold.")],
    texts: Annotated[Sequence[str], Field(description="Two texts or more, each in quotes.")],
    *,
    neighbours: Annotated[int, Field(ge=0, description="Nearest tokens to show for each vector.")] = 5,
    layers: Annotated[
        Sequence[int],
        Field(description="Where to show them: 0 is the embedding, l + 1 what block l leaves, -1 the end."),
    ] = (),
) -> ContextView:
    """Follow the vector of a word through the layers, in several sentences that have it.

    Of a word of several tokens the last one is taken: it has seen the others. Of an encoder-decoder it is the encoder
    that reads, and `tokenizer` is that of what it reads.

    Raises:
        UsageError: a sentence lacks the word, there are fewer than two or too many, or the model reads no text.
    """
    tokenizer = input_tokenizer
    if not 2 <= len(texts) <= MOST_TEXTS:
        raise UsageError(f"context compares 2 to {MOST_TEXTS} sentences and was given {len(texts)}")
    stack = reader_of(model, tokenizer)
    L = len(stack.blocks)
    at = sorted({_layer(layer, L) for layer in (layers or (0, L // 3, 2 * L // 3, L))})
    found = [_follow(stack, tokenizer, word, text) for text in texts]
    vectors_NLC = torch.stack([f.vectors_LC for f in found])
    entering_NC = torch.stack([f.entering_C for f in found])
    vectors_LNC = vectors_NLC.transpose(0, 1)
    return ContextView(
        word=word,
        texts=list(texts),
        tokens=[tokenizer.token_text(f.token) for f in found],
        ids=[f.token for f in found],
        positions=[f.position for f in found],
        layers=["embedding", *(f"block {layer}" for layer in range(L))],
        cosine=torch.stack([cosines(x_NC) for x_NC in vectors_LNC]).numpy(),
        entering=cosines(entering_NC).numpy(),
        vectors=vectors_LNC.numpy(),
        neighbours=_neighbours(stack, tokenizer, vectors_LNC, at, neighbours) if neighbours else [],
        causal=stack.writes,
    )


def cosines(x_NC: Tensor) -> Tensor:
    """Between all pairs of rows: (N, N); a vector of zeros is like nothing."""
    unit_NC = F.normalize(x_NC.double(), dim=-1)
    return (unit_NC @ unit_NC.T).float()


def _layer(layer: int, n_layer: int) -> int:
    if not -n_layer - 1 <= layer <= n_layer:
        raise UsageError(f"layer {layer} is out of range: 0 is the embedding, {n_layer} what the last block leaves")
    return layer % (n_layer + 1)


def _behind(name: str) -> str:
    return "At the embedding" if name == "embedding" else f"Behind {name}"


@dataclass
class _Followed:
    token: int
    position: int
    vectors_LC: Tensor
    entering_C: Tensor


def _follow(stack: Any, tokenizer: Tokenizer, word: str, text: str) -> _Followed:
    """The vectors of a word in one text."""
    r = read(stack, tokenizer, text)
    ids = tokenizer.encode(text)
    place = _last_token(tokenizer, word, text)
    before = next((i for i in range(len(r.ids) - len(ids) + 1) if r.ids[i : i + len(ids)] == ids), 0)
    position = before + place
    with trace(stack, "embedding.token", "blocks.*.residual.after", "blocks.0.residual.before") as seen:
        r.run()
    names = ["embedding.token", *(f"blocks.{layer}.residual.after" for layer in range(len(stack.blocks)))]
    vectors_LC = torch.stack([seen[name][0, position].float().cpu() for name in names])
    return _Followed(r.ids[position], position, vectors_LC, seen["blocks.0.residual.before"][0, position].float().cpu())


def _last_token(tokenizer: Tokenizer, word: str, text: str) -> int:
    """Which token of the text holds the word's last character.

    Raises:
        UsageError: the word is not there.
    """
    if not word.strip():
        raise UsageError("there is no word to look for; give one that all sentences have")
    word = word.strip()
    hit = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    if hit is None:
        raise UsageError(f"{text[:60]!r} does not have the word {word!r}, as it is written; change the sentence")
    starts = token_starts(tokenizer, text)
    if not starts:
        raise UsageError(f"this {tokenizer.kind} tokenizer does not tell where in {text[:40]!r} its tokens stand")
    return max(i for i, start in enumerate(starts) if start <= hit.end() - 1)


def _neighbours(
    stack: Any, tokenizer: Tokenizer, vectors_LNC: Tensor, layers: Sequence[int], n: int
) -> list[Neighbours]:
    V = tokenizer.vocab_size
    table_VC = stack.embedding.token.weight.detach()[:V].float().cpu()
    unit_VC = F.normalize(table_VC, dim=-1)
    head = getattr(stack, "head", None)
    says = head is not None and getattr(stack.config, "token_head", "vocabulary") == "vocabulary"
    made = []
    for by in ("embedding", "head") if says else ("embedding",):
        for layer in layers:
            x_NC = vectors_LNC[layer]
            if by == "head" and layer == 0:
                continue  # the row of a table has no position in it, and stands in no stream
            scores_NV = F.normalize(x_NC, dim=-1) @ unit_VC.T if by == "embedding" else _said(stack, x_NC)[:, :V]
            if by == "head":
                scores_NV = scores_NV.softmax(dim=-1)
            best = scores_NV.topk(min(n, scores_NV.shape[1]), dim=-1)
            made += [
                Neighbours(layer, i, by, ids, [tokenizer.token_text(token) for token in ids], scores)
                for i, (ids, scores) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            ]
    return made


def _said(stack: Any, x_NC: Tensor) -> Tensor:
    """The logits of vectors of the stream, as if no block came after them: (N, V)."""
    weight = next(stack.parameters())
    with reading(stack):
        x_NC = x_NC.to(weight)
        normed_NC = x_NC if stack.final_norm is None else stack.final_norm(x_NC)
        logits_NV: Tensor = stack.token_logits(normed_NC) if isinstance(stack, Encoder) else stack.logits(normed_NC)
    return logits_NV.float().cpu()


__all__ = ["ContextView", "Neighbours", "context"]
