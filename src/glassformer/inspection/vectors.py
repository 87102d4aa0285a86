"""A table of vectors with a word for each row: the token embedding of a model, or any other.

word    row          king   [ 0.21 -0.73 ... ]
cosine  angle        queen  [ 0.19 -0.65 ... ]      N words, C channels
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from glassformer.errors import UsageError, plural
from glassformer.processors.tokenizers import Tokenizer

PLACES = ("embedding.token", "decoder.embedding.token", "encoder.embedding.token", "embedding", "table")
"""Where models keep the table that tokens are looked up in: Transformers, pairs of them, and those that came before."""


class Vectors:
    """N words and their vectors.

    Attributes:
        words: what stands for each row, N texts; of a token that begins a word, with the space before it.
        table: (N, C) float32 on the CPU.

    Args:
        tokenizer, ids: where the rows are tokens; then a word is found as the tokenizer spells it. ids: token of each
            row.

    Raises:
        UsageError: not one word for each row, or fewer than two rows.
    """

    def __init__(
        self,
        words: Sequence[str],
        table: Tensor,
        *,
        tokenizer: Tokenizer | None = None,
        ids: Sequence[int] | None = None,
    ):
        if table.dim() != 2 or len(words) != len(table) or len(words) < 2:
            raise UsageError(
                f"{plural(len(words), 'word')} and a table {tuple(table.shape)}; give one row each, 2 or more"
            )
        self.words, self.table = list(words), table.detach().float().cpu()
        self.tokenizer = tokenizer
        self._rows: dict[Any, int] = {}
        for row, key in enumerate(self.words if tokenizer is None else ids or range(len(words))):
            self._rows.setdefault(key, row)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return self._find(word) is not None

    def __getitem__(self, word: str) -> Tensor:
        """The vector of a word, (C,)."""
        return self.table[self.row(word)]

    @cached_property
    def unit_NC(self) -> Tensor:
        """All vectors at length 1; those without a length stay 0."""
        return self.table / self.table.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def row(self, word: str) -> int:
        """Where a word stands. Of tokens, ` word` is looked for before `word`.

        Raises:
            UsageError: the vocabulary lacks it (the nearest are named), or has it in several tokens.
        """
        row = self._find(word)
        if row is None:
            raise UsageError(self._why_not(word))
        return row

    def rows(self, words: Sequence[str]) -> list[int]:
        """Where several words stand; the first that is missing is named."""
        return [self.row(word) for word in words]

    def cosines(self, vector_C: Tensor) -> Tensor:
        """Cosine of the angle between every word and a vector, (N,)."""
        N, C = self.table.shape
        return self.unit_NC @ (vector_C / vector_C.norm().clamp_min(1e-12))  # (N, C) @ (C,) -> (N,)

    def _find(self, word: str) -> int | None:
        if self.tokenizer is None:
            return self._rows.get(word)
        for text in (f" {word}", word) if not word.startswith(" ") else (word,):
            ids = self.tokenizer.encode(text) if not self.tokenizer.unknown_characters(text) else []
            if len(ids) == 1 and ids[0] in self._rows:
                return self._rows[ids[0]]
        return None

    def _why_not(self, word: str) -> str:
        known = {label.strip(): None for label in self.words if label.strip()}
        near = difflib.get_close_matches(word.strip(), known, n=3, cutoff=0.6)
        advice = f"near: {', '.join(near)}" if near else "try another word"
        t = self.tokenizer
        ids = t.encode(word) if t is not None and not t.unknown_characters(word) else []
        if t is not None and len(ids) > 1 and all(i in self._rows for i in ids):
            pieces = " | ".join(t.token_text(i) for i in ids)
            return f"{word!r} is {len(ids)} tokens here ({pieces}) and has no vector of its own; {advice}"
        return f"{word!r} is not in this vocabulary of {plural(len(self), 'word')}; {advice}"


def vectors_of(model: Any, tokenizer: Any) -> Vectors:
    """The token embedding of a model, special tokens left out, which are no words. Of an encoder-decoder, that of what
    it writes; of a model of sets, that of their columns and words. It is the table as it stands: what a model adds to
    it (positions) or multiplies it with is not in it.

    Raises:
        UsageError: the model reads no tokens.
    """
    table_VC = embedding_of(model)
    if hasattr(tokenizer, "row_names"):
        return Vectors(tokenizer.row_names, table_VC)
    if not isinstance(tokenizer, Tokenizer):
        raise UsageError(f"this {type(model).__name__} reads no text and has no tokens; take a model that does")
    special = set(tokenizer.special_tokens.values())
    ids, words = [], []
    for i in range(min(tokenizer.vocab_size, len(table_VC))):
        if i not in special:
            ids.append(i)
            words.append(_label(tokenizer, i))
    return Vectors(words, table_VC[ids], tokenizer=tokenizer, ids=ids)


def embedding_of(model: Any) -> Tensor:
    """The table that tokens are looked up in, (V, C).

    Raises:
        UsageError: there is none.
    """
    for place in PLACES:
        try:
            module = model.get_submodule(place)
        except AttributeError:
            continue
        if isinstance(module, nn.Embedding):
            return module.weight.detach()
    raise UsageError(
        f"this {type(model).__name__} reads {model.reads} and has no table of token vectors; take one that reads text"
    )


def _label(tokenizer: Tokenizer, token: int) -> str:
    try:
        return tokenizer.token_text(token)
    except UsageError:  # vocabularies may have gaps
        return f"[{token}]"
