"""Which heads connect two words: "it" with its noun, a noun with its adjectives.

For every head the weight that one token gives another; of a word of several tokens the reader is its last one, and what
it reads are all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, percent, visible
from glassformer.inspection.attention import attention
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import AttentionKind, Option, Target, Text


@dataclass
class LinksView(View):
    """The weight between two words in every head."""

    kind: str
    reader: str  # the token that attends
    read: str  # what it attends to
    position: int  # of the reader
    positions: list[int]  # of what it attends to
    weights: np.ndarray  # (L, H) the reader's attention on these positions
    even: np.ndarray  # (L,) the same of a head that attends evenly to all that it may see
    top: int

    @property
    def ranked(self) -> list[tuple[int, int]]:
        """Heads (layer, head), the largest weight first."""
        order = np.argsort(-self.weights, axis=None, kind="stable")
        return [divmod(int(i), self.weights.shape[1]) for i in order]

    def figures(self) -> list[Figure]:
        L, H = self.weights.shape
        shown = self.ranked[: self.top]
        columns = [Column("head"), Column("weight", "share", role="share"), Column("times even", "number", digits=1)]
        rows: list[list[Any]] = [
            [f"{i}.{h}", float(self.weights[i, h]), float(self.weights[i, h] / self.even[i])] for i, h in shown
        ]
        more = "" if self.kind == "self" else f"&kind={self.kind}"
        mean, even = float(self.weights.mean()), float(self.even.mean())
        reader, read = visible(self.reader), visible(self.read)
        return [
            Table(
                f"The heads with which {reader} looks at {read}",
                columns,
                rows,
                footer=[[f"mean of {L * H}", mean, mean / even]],
                links=[[f"attention?layer={i}&head={h}{more}"] for i, h in shown],
            ),
            Note(
                f"layer.head. weight: how much of the attention at {reader} (place {self.position}) falls on {read} "
                f"({plural(len(self.positions), 'place')}: {', '.join(map(str, self.positions))}). times even: beside "
                f"a head that attends evenly ({percent(even)}). One sentence shows what heads do here, not what they "
                f"are for; {int((self.weights > 2 * even).sum())} of {L * H} have more than twice that weight."
            ),
        ]


@view(
    'glassformer look links smollm2-135m-instruct "The animal did not cross the street because it was tired" it animal',
    'glassformer look links runs/demo-1 "To be, or not to be" 17 b',
)
def links(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    reader: Annotated[str, Option("The word that attends, or the position of a token.")],
    read: Annotated[str, Option("The word that it attends to, or a position.")],
    *,
    top: Annotated[int, Option("How many heads to show.", ge=1)] = 12,
    kind: AttentionKind = "self",
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> LinksView:
    """The heads ranked by the weight that the token of one word gives to another word.

    Raises:
        UsageError: the text has no such word, or the reader's mask hides the other word.
    """
    seen = attention(model, tokenizer, text, kind=kind, target=target, source_tokenizer=source_tokenizer)
    at = places_of(seen.queries, reader, "reader")[-1]
    found = places_of(seen.keys, read, "read")
    visible_LS = seen.visible[:, at]
    if not visible_LS[:, found].any():
        raise UsageError(
            f"{seen.queries[at]!r} (place {at}) cannot look at {read!r} (place {found[0]}): a causal model looks back "
            "only; exchange the two, or take a position"
        )
    even_L = visible_LS[:, found].sum(axis=1) / np.maximum(visible_LS.sum(axis=1), 1)
    weights_LH = seen.patterns[:, :, at][:, :, found].sum(axis=-1)
    name = "".join(seen.keys[i] for i in found)
    return LinksView(kind, seen.queries[at], name, at, found, weights_LH, np.maximum(even_L, 1e-12), top)


def places_of(tokens: list[str], word: str, option: str) -> list[int]:
    """The places of a word's tokens: its first occurrence as a whole word, or else within one; or a position.

    >>> places_of([" a", "n", " an", "t"], "ant", "read"), places_of(["x", "y"], "-1", "read")
    ([2, 3], [1])

    Raises:
        UsageError: there is none.
    """
    if word.lstrip("-").isdigit() and -len(tokens) <= int(word) < len(tokens) and word not in tokens:
        return [int(word) % len(tokens)]
    text = "".join(tokens)
    whole = [i for i in _occurrences(text, word) if _is_whole(text, i, i + len(word))]
    starts = whole or _occurrences(text, word)
    if not starts or not word:
        raise UsageError(f"{option}={word!r} is no word of this text and no position (0 to {len(tokens) - 1})")
    ends = np.cumsum([len(token) for token in tokens])
    begins = ends - [len(token) for token in tokens]
    return np.flatnonzero((begins < starts[0] + len(word)) & (ends > starts[0])).tolist()


def _occurrences(text: str, word: str) -> list[int]:
    return [i for i in range(len(text) - len(word) + 1) if text.startswith(word, i)]


def _is_whole(text: str, start: int, end: int) -> bool:
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())
