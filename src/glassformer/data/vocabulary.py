"""A tokenizer for a source: a saved one, or a new one that is learned from the source's own text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glassformer.data.readers import open_source
from glassformer.data.splits import plan_split
from glassformer.errors import UsageError, did_you_mean

SLICE = 1 << 16  # characters handed to a trainer at a time: it holds 256 such, split into words, in memory
LEARN_BYTES = 100_000_000  # text that subwords are learned from: more changes hardly a merge


def tokenizer_for(
    source: str,
    tokenizer: str = "characters",
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    specials: Sequence[str] | None = None,
    text_field: str = "text",
    validation_fraction: float = 0.1,
    progress: bool = False,
) -> Any:
    """Build the kind of tokenizer that is named (`TOKENIZERS`), or load the one in a file or folder.

    Characters are taken from the whole text, as in the lecture (a character that only validation has would otherwise be
    unknown). Subwords are learned from the first 100 MB of the training split alone. specials: its special
    tokens; None: those of its kind.

    Raises:
        UsageError: neither a kind nor a path; a vocab_size for a tokenizer that is loaded.
        DataError, TokenizerError: the text or the tokenizer cannot be read.
    """
    from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer

    if tokenizer in TOKENIZERS:
        texts = learning_texts(
            source,
            limit=None if tokenizer == "characters" else LEARN_BYTES,
            everything=tokenizer == "characters",
            text_field=text_field,
            validation_fraction=validation_fraction,
        )
        return TOKENIZERS[tokenizer](texts, vocab_size=vocab_size, path=path, progress=progress, specials=specials)
    if not Path(tokenizer).exists():
        raise UsageError(
            f"{tokenizer!r} is neither a kind of tokenizer nor a file; {did_you_mean(tokenizer, TOKENIZERS)}"
        )
    if vocab_size is not None:
        raise UsageError(f"{tokenizer} has its own size; leave out vocab_size={vocab_size}")
    return load_tokenizer(tokenizer)


def learning_texts(
    source: str,
    *,
    limit: int | None = None,
    everything: bool = False,
    text_field: str = "text",
    validation_fraction: float = 0.1,
) -> Iterator[str]:
    """The training text of a source (or `everything`) in pieces, up to about `limit` bytes. Reading starts with the
    first piece, so a tokenizer that is not trained costs nothing."""
    text = open_source(source, text_field=text_field)
    seen = 0
    for part in plan_split(text, 0 if everything else validation_fraction).split(text.pieces()):
        if part.split == "train" or everything:
            yield from _slices(part.text)
            seen += part.bytes
            if limit is not None and seen >= limit:
                return


def _slices(text: str) -> Iterator[str]:
    """The text in slices that end with a line."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + SLICE) + 1 or len(text)
        yield text[start:end]
        start = end
