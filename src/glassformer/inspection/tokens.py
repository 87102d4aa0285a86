"""How a text becomes numbers: tokens, ids, bytes, places, and the merges that made them, one by one."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Annotated, Any

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, Tokens
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer, UnknownCharacterWarning
from glassformer.processors.tokenizers.alphabet import whole_characters
from glassformer.processors.tokenizers.stepwise import Chunk, merge_by_merge, token_starts
from glassformer.renamed import old_arguments
from glassformer.view_options import Option, Text

MAX_TOKENS = 1000  # that are listed one by one
SHOWN = 40  # rows of the table of tokens
SHOWN_CHUNKS = 6
READ = 8  # characters a token that are read, at the most, to list MAX_TOKENS of them

HOW = {
    "characters": "Each character of the vocabulary is a token of its own; one that is not in it becomes a space. "
    "Nothing is merged.",
    "words": "What stands between spaces is one token; a word that is not in the vocabulary becomes <unk>.",
    "smiles": "Each atom of a molecule with all that its brackets hold is one token, and each bond, branch and ring; "
    "what is not in the vocabulary becomes <unk>. Nothing is merged.",
    "bytes": "Each of the 256 bytes is a token of its own, so that any text will do. Nothing is merged.",
    "bpe": "Byte-pair encoding: the text is cut into chunks, each chunk starts as bytes, and the pair of neighbours "
    "that was learned first is merged again and again, until no pair is left that was ever learned.",
    "wordpiece": "WordPiece: the text is made lower-case if the vocabulary is, and cut into words; of each word "
    "the longest piece that is in the vocabulary is taken from the left, then the longest of the rest. No merges.",
    "sentencepiece": "SentencePiece: a space is a character like others (▁). ",
    "huggingface": "A tokenizer of another build, run by the `tokenizers` library.",
}
UNIGRAM = (
    "Unigram: every piece has a probability, and of all ways to cut the text that with the highest product is taken. "
    "No merges."
)


@dataclass
class TokensView(View):
    """A text as a tokenizer cuts it; lists are about its first `MAX_TOKENS` tokens."""

    kind: str  # of the tokenizer (see `Tokenizer.kind`)
    vocab_size: int
    n_tokens: int  # of the whole text, as the next ones
    n_bytes: int
    n_characters: int
    bytes_per_token: float
    ids: list[int]
    texts: list[str]  # to be shown
    bytes: list[str]  # hexadecimal
    starts: list[int]  # the character of the text where each begins; empty where it is not known
    chunks: list[Chunk] | None  # of the first pieces the merges one by one; None where there are none
    how: str  # how this kind of tokenizer cuts, in a sentence or two

    def figures(self) -> list[Figure]:
        sizes = [len(raw.split()) for raw in self.bytes]
        summary = (
            f"{plural(self.n_characters, 'character')}, {plural(self.n_bytes, 'byte')}, "
            f"{plural(self.n_tokens, 'token')} of a vocabulary of {self.vocab_size:,}: {self.bytes_per_token:.2f} "
            "bytes a token."
        )
        columns = [Column("#", "count"), Column("id", "count"), Column("token", "token"), Column("bytes")]
        rows = [
            [i, token, text.replace(" ", "␣"), _short(raw)]
            for i, (token, text, raw) in enumerate(zip(self.ids, self.texts, self.bytes, strict=True))
        ]
        if self.starts:
            columns.insert(3, Column("at character", "count"))
            rows = [[*row[:3], start, row[3]] for row, start in zip(rows, self.starts, strict=True)]
        made: list[Figure] = [
            Note(summary),
            Tokens("The text, token by token", self.texts[: 4 * SHOWN], sizes[: 4 * SHOWN], "bytes", digits=0),
            Table(f"Tokens of a {self.kind} tokenizer", columns, rows[:SHOWN]),
        ]
        if self.n_tokens > SHOWN:
            made.append(Note(f"and {self.n_tokens - SHOWN:,} more"))
        made.append(Note(self.how))
        some = [chunk for chunk in self.chunks or [] if chunk.merges]
        for chunk in some[:SHOWN_CHUNKS]:
            steps: list[Any] = [(None, "", _state(chunk.symbols))]
            steps += [(m.rank, f"{_state([m.left])} + {_state([m.right])}", _state(m.state)) for m in chunk.merges]
            made.append(
                Table(
                    f"Merges of {chunk.text!r}",
                    (Column("merge no.", "count"), Column("pair"), Column("what is there then")),
                    steps,
                )
            )
        return made


def _state(symbols: list[str]) -> str:
    return " ".join(symbol.replace(" ", "␣") for symbol in symbols)


def _short(raw: str) -> str:
    return raw if len(raw) <= 24 else f"{raw[:20]} ..."


@old_arguments(tokenizer="input_tokenizer")
@view(
    'glassformer look tokens smollm2-135m-instruct "tokenisation, unbelievably"',
    'glassformer look tokens "tokenisation, unbelievably" --tokenizer gpt2',
)
def tokens(
    input_tokenizer: Tokenizer,
    text: Text,
    *,
    chunks: Annotated[int, Option("For how many pieces to show the merges.", ge=0)] = 8,
) -> TokensView:
    """What a tokenizer makes of a text.

    Raises:
        UsageError: the text is empty.
    """
    if not isinstance(input_tokenizer, Tokenizer):
        raise UsageError("this model reads no text and has no tokens; take one that does, or give --tokenizer gpt2")
    tokenizer, text = input_tokenizer, whole_characters(text)
    if not text:
        raise UsageError("there is no text to cut into tokens; give it one character")
    every = tokenizer.encode_to_array(text)
    ids = every[:MAX_TOKENS].tolist()
    begun = text if len(every) <= MAX_TOKENS else _beginning(tokenizer, text, ids)
    with warnings.catch_warnings():  # about unknown characters: the first call has warned
        warnings.simplefilter("ignore", UnknownCharacterWarning)
        starts = token_starts(tokenizer, begun)[:MAX_TOKENS]
        merges = merge_by_merge(tokenizer, begun, most=chunks)
    size = len(text.encode("utf-8"))
    return TokensView(
        kind=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        n_tokens=len(every),
        n_bytes=size,
        n_characters=len(text),
        bytes_per_token=size / max(len(every), 1),
        ids=ids,
        texts=[tokenizer.token_text(i) for i in ids],
        bytes=[tokenizer.token_bytes(i).hex(" ") for i in ids],
        starts=starts if len(starts) == len(ids) else [],
        chunks=merges,
        how=_how(tokenizer, merges),
    )


def _beginning(tokenizer: Tokenizer, text: str, ids: list[int]) -> str:
    """So much of a long text that its first tokens are those of the whole."""
    longest = READ * MAX_TOKENS
    while longest < len(text):
        if tokenizer.encode(text[:longest])[: len(ids)] == ids:
            return text[:longest]
        longest *= 4
    return text


def _how(tokenizer: Tokenizer, chunks: list[Chunk] | None) -> str:
    kind = "bpe" if tokenizer.kind == "gpt2" else tokenizer.kind
    how = HOW.get(kind, HOW["huggingface"])
    merges = kind == "bpe"
    if kind == "sentencepiece":
        merges = json.loads(tokenizer.to_json())["model"]["type"] == "BPE"
        how += HOW["bpe"].replace("bytes", "characters") if merges else UNIGRAM
    if merges and chunks is None:
        how += " The steps are not shown: this tokenizer does more than merge, or a chunk of the text is very long."
    return how
