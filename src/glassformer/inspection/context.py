"""One word in several sentences: the same vector at the embedding, and further apart with every layer that has read
the words around it.

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
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.figures import Column, Curves, Figure, HeatMap, Note, Table, visible
from glassformer.generation.eval_mode import evaluating
from glassformer.inspection.options import view
from glassformer.inspection.reading import check_place, read, reader_of
from glassformer.inspection.stream import read_out
from glassformer.inspection.trace import trace
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.stepwise import token_starts
from glassformer.renamed import old_arguments
from glassformer.view_options import Option

MAX_TEXTS = 16
MAX_LINES, MAX_COLUMNS = 10, 4  # pairs, and sentences, that are drawn one by one
TITLES = {
    "embedding": "nearest rows of the embedding table (cosine)",
    "head": "what the model would predict here (final norm and head; probability)",
}


@dataclass
class NearTokens:
    """The tokens that a vector is near to, best first."""

    layer: int  # 0 is the embedding, l + 1 what block l leaves
    text: int  # which one
    by: str  # "embedding" (rows of the embedding table by cosine) or "head" (the logit lens)
    ids: list[int]
    tokens: list[str]
    scores: list[float]  # cosines, or probabilities


@dataclass
class ContextView(View):
    """A word in N sentences, through L layers."""

    word: str
    texts: list[str]
    tokens: list[str]  # of each text the token whose vectors are compared: the last one of the word
    ids: list[int]
    positions: list[int]  # where it stands
    layers: list[str]  # names of the L + 1 places
    cosine: np.ndarray  # (L + 1, N, N) of each pair: rows of the embedding table, then the stream behind each block
    entering: np.ndarray  # (N, N) the same of the stream that enters the first block, with positions and segments
    vectors: np.ndarray  # (L + 1, N, C)
    neighbours: list[NearTokens]
    causal: bool  # a vector depends only on what stands before its word

    def figures(self) -> list[Figure]:
        n = len(self.texts)
        names = [str(i + 1) for i in range(n)]
        above = np.triu_indices(n, 1)
        pairs = list(zip(*(rows.tolist() for rows in above), strict=True))
        lines: dict[str, Any] = {f"{a + 1} and {b + 1}": self.cosine[:, a, b].tolist() for a, b in pairs}
        if len(pairs) > MAX_LINES:
            lines = {"all pairs, mean": self.cosine[:, above[0], above[1]].mean(axis=1).tolist()}
        columns = (Column("", "count"), Column("sentence"), Column("token", "token"), Column("at", "count"))
        sentences = zip(range(1, n + 1), self.texts, self.tokens, self.positions, strict=True)
        title = "How alike are the vectors of the word (cosine; 1: the same direction)"
        axis, last = "layers, from the embedding to the last block", f"Behind {self.layers[-1]}"
        return [
            Table(f"{self.word!r} in {n} sentences", columns, list(sentences)),
            Curves.over(title, self.layers, lines, axis, "cosine"),
            HeatMap(last, self.cosine[-1], names, names, "sentence", "sentence", signed=True, highest=1.0),
            Note(self._note(above)),
            *(self._near(by, layer) for by, layer in dict.fromkeys((near.by, near.layer) for near in self.neighbours)),
        ]

    def _near(self, by: str, layer: int) -> Table:
        some = [near for near in self.neighbours if near.by == by and near.layer == layer][:MAX_COLUMNS]
        rows = [
            [f"{visible(near.tokens[i], 12)} {near.scores[i]:.2f}" for near in some] for i in range(len(some[0].tokens))
        ]
        where = f"Behind {self.layers[layer]}" if layer else "At the embedding"
        return Table(f"{where}: {TITLES[by]}", [Column(f"sentence {near.text + 1}") for near in some], rows)

    def _note(self, above: Any) -> str:
        text = "Before any block the word is one row of a table, the same in every sentence (cosine 1)."
        if len(set(self.ids)) > 1:
            shown = ", ".join(dict.fromkeys(visible(token) for token in self.tokens))
            text = f"The word ends in different tokens here ({shown}), so that it differs from the start."
        if self.entering[above].min() < self.cosine[0][above].min() - 1e-4:
            text += (
                " What is added to that row next (where the word stands; in some models also the tokens before it) "
                f"already separates them: the cosine at the first block is down to {self.entering[above].min():.3f}."
            )
        if self.causal:
            return text + " This model reads from left to right: only what stands before the word changes its vector."
        return text + " In this model a word sees the whole sentence, what stands behind it too."


@old_arguments(tokenizer="input_tokenizer")
@view(
    'glassformer look context minilm-l6 mole "an American shrew mole" "one mole of carbon dioxide" '
    '"a biopsy of the mole"',
    'glassformer look context smollm2-135m-instruct model "a machine learning model" "a fashion model"',
)
def context(
    model: Any,
    input_tokenizer: Tokenizer,
    word: Annotated[str, Option("A word that occurs in all texts.")],
    texts: Annotated[Sequence[str], Option("Two texts or more, each in quotes.")],
    *,
    neighbours: Annotated[int, Option("Nearest tokens to show for each vector.", ge=0)] = 5,
    layers: Annotated[
        Sequence[int],
        Option("The layers to show: 0 is the embedding, l + 1 the output of block l, -1 the last."),
    ] = (),
) -> ContextView:
    """The vectors of a word through the layers, in several sentences that have it.

    A word of several tokens is taken at its last token, which has seen the others; a word that occurs twice, at its
    first place. An encoder-decoder reads with its encoder.

    Raises:
        UsageError: a sentence lacks the word, there are fewer than two or too many, or the model reads no text.
    """
    if not 2 <= len(texts) <= MAX_TEXTS:
        raise UsageError(f"context compares 2 to {MAX_TEXTS} sentences and was given {len(texts)}")
    stack, t = reader_of(model, input_tokenizer), input_tokenizer
    L = len(stack.blocks)
    shown = sorted({check_place("layer", layer, L + 1) for layer in layers or (0, L // 3, 2 * L // 3, L)})
    found = [_follow(stack, t, word, text) for text in texts]
    vectors_LNC = torch.stack([vectors_LC for _, _, vectors_LC, _ in found]).transpose(0, 1)
    return ContextView(
        word=word,
        texts=list(texts),
        tokens=[t.token_text(token) for token, *_ in found],
        ids=[token for token, *_ in found],
        positions=[position for _, position, *_ in found],
        layers=["embedding", *(f"block {layer}" for layer in range(L))],
        cosine=torch.stack([cosines(x_NC) for x_NC in vectors_LNC]).numpy(),
        entering=cosines(torch.stack([entering_C for *_, entering_C in found])).numpy(),
        vectors=vectors_LNC.numpy(),
        neighbours=_near_tokens(stack, t, vectors_LNC, shown, neighbours) if neighbours else [],
        causal=stack.writes,
    )


def cosines(x_NC: Tensor) -> Tensor:
    """Between all pairs of rows: (N, N); a vector of zeros has cosine 0 with all."""
    unit_NC = F.normalize(x_NC.double(), dim=-1)
    return (unit_NC @ unit_NC.T).float()


def _follow(stack: Any, tokenizer: Tokenizer, word: str, text: str) -> tuple[int, int, Tensor, Tensor]:
    """(the id of a word in a text, its position, its vectors (L + 1, C), the one that enters the first block (C,))."""
    seen = read(stack, tokenizer, text)
    ids = tokenizer.encode(text)
    place = _last_token(tokenizer, word, text)
    before = next((i for i in range(len(seen.ids) - len(ids) + 1) if seen.ids[i : i + len(ids)] == ids), 0)
    position = before + place
    names = ["embedding.token", *(f"blocks.{layer}.residual.after" for layer in range(len(stack.blocks)))]
    first = "blocks.0.residual.before"
    with trace(stack, *names, first) as kept:
        seen.run()
    vectors = {name: kept[name][0, position].float().cpu() for name in (*names, first)}
    return seen.ids[position], position, torch.stack([vectors[name] for name in names]), vectors[first]


def _last_token(tokenizer: Tokenizer, word: str, text: str) -> int:
    """Which token of the text holds the word's last character.

    Raises:
        UsageError: the word is not there.
    """
    word = word.strip()
    if not word:
        raise UsageError("there is no word to look for; give one that all sentences have")
    hit = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    if hit is None:
        raise UsageError(f"{text[:60]!r} does not have the word {word!r} in this spelling; change the sentence")
    starts = token_starts(tokenizer, text)
    if not starts:
        raise UsageError(f"this {tokenizer.kind} tokenizer does not report where in {text[:40]!r} its tokens stand")
    return max(i for i, start in enumerate(starts) if start <= hit.end() - 1)


def _near_tokens(
    stack: Any, tokenizer: Tokenizer, vectors_LNC: Tensor, layers: Sequence[int], n: int
) -> list[NearTokens]:
    V = tokenizer.vocab_size
    unit_VC = F.normalize(stack.embedding.token.weight.detach()[:V].float().cpu(), dim=-1)
    head = getattr(stack, "head", None)
    has_head = head is not None and getattr(stack.config, "token_head", "vocabulary") == "vocabulary"
    found = []
    for by in ("embedding", "head") if has_head else ("embedding",):
        for layer in layers:
            x_NC = vectors_LNC[layer]
            if by == "embedding":
                scores_NV = F.normalize(x_NC, dim=-1) @ unit_VC.T
            elif layer:  # the row of the embedding table stands in no stream
                scores_NV = _logits(stack, x_NC)[:, :V].softmax(dim=-1)
            else:
                continue
            best = scores_NV.topk(min(n, scores_NV.shape[1]), dim=-1)
            for i, (ids, scores) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
                found.append(NearTokens(layer, i, by, ids, [tokenizer.token_text(token) for token in ids], scores))
    return found


def _logits(stack: Any, x_NC: Tensor) -> Tensor:
    """The logits of vectors of the stream, as if no block came after them: (N, V)."""
    with evaluating(stack):
        x_NC = x_NC.to(next(stack.parameters()))
        return read_out(stack, x_NC if stack.final_norm is None else stack.final_norm(x_NC)).float().cpu()
