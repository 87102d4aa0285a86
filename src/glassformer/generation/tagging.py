"""Tags of words by an encoder with a class for each token: a word is tagged at its first token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.encoders import around, check_encoder, read_in_batches
from glassformer.processors.tokenizers import Tokenizer

_OPENING, _CLOSING = "(\\[{\"'“‘«¿¡", ".,;:!?…)\\]}\"'”’»"
_WORD = re.compile(rf"\.\.+|[{_OPENING}]|[^\s{_OPENING}]\S*?(?=[{_CLOSING}]*(?:\s|$))|[{_CLOSING}]")


def words_of(text: str) -> list[str]:
    """A text as words: what stands between spaces, and punctuation at its edges by itself.

    >>> words_of('Ankara\\'da "kar" var.')
    ["Ankara'da", '"', 'kar', '"', 'var', '.']
    """
    return _WORD.findall(text)


def encode_words(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
    """Of each text (ids of its words with spaces between, the place of each word's first token).

    Raises:
        UsageError: a word is empty in this vocabulary.
    """
    flat = [f" {word}" if number else word for words in texts for number, word in enumerate(words)]
    rows = iter([ids.tolist() for ids in tokenizer.encode_documents(flat)])
    found = []
    for words in texts:
        pieces = [next(rows) for _ in words]
        if empty := next((word for word, ids in zip(words, pieces, strict=True) if not ids), None):
            raise UsageError(f"the word {empty!r} is empty in this vocabulary; leave it out")
        found.append(([i for ids in pieces for i in ids], [0, *accumulate(map(len, pieces))][:-1]))
    return found


def tag(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str | Sequence[str]], *, batch_size: int = 64
) -> list[Tensor]:
    """Probability of each tag for each word: (words, classes) in fp32 for each text.

    Args:
        texts: a string is words with spaces between (`words_of` takes punctuation off).

    Raises:
        UsageError: the model gives no class to tokens, or a text is empty or longer than it reads.
    """
    check_encoder(model, "tag words")
    if model.config.token_head != "classes":
        raise UsageError("this encoder knows no classes of tokens; train one with task.kind=tag")
    split = [text.split() if isinstance(text, str) else list(text) for text in texts]
    if (number := next((i for i, words in enumerate(split, 1) if not words), None)) is not None:
        raise UsageError(f"text {number} is empty; give it one word or leave it out")
    encoded = encode_words(tokenizer, split)
    rows = [around(tokenizer, ids, model, cut=False) for ids, _ in encoded]
    before = len(around(tokenizer, [], model)) // 2  # BERT's tokenizers put a token at each end
    read = read_in_batches(model, rows, batch_size, lambda vectors_BTC, _: model.token_logits(vectors_BTC))
    places = ([before + first for first in firsts] for _, firsts in encoded)
    return [logits_TV[at].softmax(dim=-1) for logits_TV, at in zip(read, places, strict=True)]
