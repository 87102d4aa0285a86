"""One text by several tokenizers: short sequences cost a large vocabulary, and a large vocabulary costs parameters.

A code book of 65 characters makes "hii there" nine numbers, one of 50,257 pieces makes it three ("Let's build GPT").
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from glassformer.errors import UsageError, plural
from glassformer.fetch import cached
from glassformer.figures import Column, Figure, Note, Table, Tokens
from glassformer.inspection.options import view
from glassformer.inspection.surprise import surprise
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer, UnknownCharacterWarning, build_tokenizer
from glassformer.processors.tokenizers.alphabet import whole_characters
from glassformer.processors.tokenizers.gpt2 import SOURCE as GPT2
from glassformer.view_options import Corpus, Option, Text

LEARNED = ("characters", "bytes", "bpe", "words")
"""Kinds that are made here, from the corpus."""
LEAST = 2000  # characters that a bpe is learned from, unless it is asked for
SHOWN = 40  # ids of each


@dataclass
class Tokenization:
    """What one tokenizer makes of the text.

    uniform_bits_per_byte: the cost of the text if every token of the vocabulary were equally likely, which a model has
    to beat. model_bits_per_byte: what its model needs; None where it has none, or one that writes nothing.
    """

    name: str
    kind: str
    vocab_size: int
    ids: list[int]
    texts: list[str]  # to be shown
    n_bytes: list[int]  # of each token
    bytes_per_token: float
    embedding: int | None  # parameters of a token embedding as wide as the model; None: it has none
    uniform_bits_per_byte: float
    model_bits_per_byte: float | None


@dataclass
class TokenizersView(View):
    """A text by several tokenizers."""

    text: str
    n_bytes: int
    width: int | None  # of the model's vectors
    tokenizations: list[Tokenization]
    left_out: str  # what is not here, and how to get it

    def figures(self) -> list[Figure]:
        columns = (
            Column("tokenizer"),
            Column("vocabulary", "count"),
            Column("tokens", "count"),
            Column("bytes each", "number", digits=2),
            Column("embedding", "count"),
            Column("uniform", "number", digits=2),
            Column("model", "number", digits=2),
        )
        rows = [
            [
                *(t.name, t.vocab_size, len(t.ids), t.bytes_per_token, t.embedding),
                *(t.uniform_bits_per_byte, t.model_bits_per_byte),
            ]
            for t in self.tokenizations
        ]
        wide = "" if self.width is None else f"Embedding: parameters of a table {self.width:,} wide. "
        made: list[Figure] = [
            Table(f"{plural(self.n_bytes, 'byte')} by {len(rows)} tokenizers", columns, rows),
            Note(
                f"{wide}Uniform: bits a byte if all tokens were equally likely. Model: bits a byte that the model with "
                f"this tokenizer needs. {self.left_out}".rstrip()
            ),
        ]
        for t in self.tokenizations:
            ids = " ".join(map(str, t.ids[:SHOWN])) + (" ..." if len(t.ids) > SHOWN else "")
            made.append(Tokens(t.name, t.texts[: 4 * SHOWN], t.n_bytes[: 4 * SHOWN], "bytes", digits=0))
            made.append(Note(ids, verbatim=True))
        return made


@view(
    'glassformer look tokenizers runs/demo-1 "hii there, unbelievably" --with characters --with bpe --with gpt2',
    'glassformer look tokenizers runs/demo-1 "hii there" --with runs/demo-bpe',
)
def tokenizers(
    model: Any,
    input_tokenizer: Tokenizer,
    text: Text,
    corpus: Corpus,
    *,
    others: Annotated[
        Sequence[str],
        Option(
            "characters, bytes, bpe or words (learned from the texts), gpt2, or a model; default: the model's own "
            "beside characters, bpe and gpt2.",
            max_length=8,
            flag="with",
        ),
    ] = (),
    vocab_size: Annotated[int, Option("Entries of a bpe tokenizer learned here.", ge=257, le=65_536)] = 512,
    open_model: Callable[[str], Any],
) -> TokenizersView:
    """The ids, vocabulary, embedding parameters and bits per byte of one text by several tokenizers.

    Raises:
        UsageError: the text is empty, the model has no tokenizer, or one of the others is unknown.
    """
    if not isinstance(input_tokenizer, Tokenizer):
        raise UsageError("this model reads no text and has no tokens; take one that does")
    text = whole_characters(text)
    if not text:
        raise UsageError("there is no text to cut into tokens; give it one character")
    texts = [corpus] if isinstance(corpus, str) else list(corpus)
    width = getattr(model.config, "n_embd", None)
    left_out = []
    if not others:
        others = ["characters", "bpe", "gpt2"]
        if sum(map(len, texts)) < LEAST:
            others.remove("bpe")
            left_out.append(f"bpe is left out: it is learned from the texts, from {LEAST:,} characters or more.")
        if cached(GPT2) is None:
            others.remove("gpt2")
            left_out.append(f"gpt2 is left out: {_absent()}.")
    found = [_tokenization(f"its own ({input_tokenizer.kind})", input_tokenizer, text, width, model)]
    for other in others:
        if other in (*LEARNED, "gpt2"):
            found.append(_tokenization(other, _made(other, texts, vocab_size), text, width))
            continue
        opened = open_model(other)
        its_width = getattr(opened.model.config, "n_embd", None)
        found.append(_tokenization(other, opened.input_tokenizer, text, its_width, opened.model))
    return TokenizersView(text, len(text.encode("utf-8")), width, found, " ".join(left_out))


def _absent() -> str:
    return 'its vocabulary is not here yet; glassformer look tokens "a text" --tokenizer gpt2 fetches it'


def _made(kind: str, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    if kind == "gpt2" and cached(GPT2) is None:
        raise UsageError(f"gpt2: {_absent()}")
    return build_tokenizer(kind, texts, **({"vocab_size": vocab_size} if kind == "bpe" else {}))


def _tokenization(name: str, tokenizer: Any, text: str, width: int | None, model: Any = None) -> Tokenization:
    if not isinstance(tokenizer, Tokenizer):
        raise UsageError(f"{name} reads no text and has no tokens; take a model that does")
    with warnings.catch_warnings():  # about characters that are not in a vocabulary: the tokens show it
        warnings.simplefilter("ignore", UnknownCharacterWarning)
        ids = tokenizer.encode(text)
        needed = None
        if model is not None and "next_token" in model.answers and len(ids) > 1:
            needed = surprise(model, tokenizer, text).bits_per_byte
    size = len(text.encode("utf-8"))
    return Tokenization(
        name=name,
        kind=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        ids=ids,
        texts=[tokenizer.token_text(i) for i in ids],
        n_bytes=[len(tokenizer.token_bytes(i)) for i in ids],
        bytes_per_token=size / max(len(ids), 1),
        embedding=None if width is None else width * tokenizer.vocab_size,
        uniform_bits_per_byte=len(ids) * math.log2(tokenizer.vocab_size) / size,
        model_bits_per_byte=needed,
    )
