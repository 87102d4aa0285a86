"""Encoding a text in which some special tokens are meant and others are only written.

The `tokenizers` library recognises all special tokens in a text or none, and encoding piece by piece gives other ids
(a space in front of the first piece only, special tokens that remove white space beside them). So a copy of the
vocabulary gets a second name for every special token, one that no text contains; the names are put into the text where
tokens are meant, and the whole is encoded at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

import tokenizers
from tokenizers import AddedToken

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers.alphabet import whole_characters
from glassformer.processors.tokenizers.special_tokens import without_specials

_FIRST_PRIVATE = 0xF0000  # the fifteenth plane of Unicode: characters that mean nothing
_MAX_GAP = 10_000
_FILLER = 10**11  # above every id


class SpecialTokenEncoder:
    """Text and ids of special tokens, in order, to ids.

    Args:
        spec: tokenizer.json as text.
        vocabulary: ids of all tokens.
    """

    def __init__(self, spec: str, vocabulary: Mapping[str, int]):
        self._library = tokenizers.Tokenizer.from_str(spec)
        self._library.encode_special_tokens = True
        self._library.no_truncation()
        self._library.no_padding()
        self._secret = "".join(chr(_FIRST_PRIVATE + byte) for byte in secrets.token_bytes(16))
        size = max(vocabulary.values()) + 1
        if size - len(set(vocabulary.values())) > _MAX_GAP:
            n = f"{len(vocabulary):,} tokens and ids up to {size - 1:,}"
            raise TokenizerError(f"the vocabulary has {n}; is it damaged?")
        # New names get the numbers that follow the *count* of tokens: where ids have gaps, the first ones fill these.
        while (used := self._library.get_vocab_size(with_added_tokens=True)) < size:
            self._library.add_tokens([AddedToken(self._name(_FILLER + used), normalized=False)])
        special = {i: token for i, token in self._library.get_added_tokens_decoder().items() if token.special}
        self._names = {i: self._name(i) for i in special}
        self._library.add_tokens([self._second(self._names[i], token) for i, token in special.items()])
        self._meant = {self._library.token_to_id(name): i for i, name in self._names.items()}

    def encode(self, parts: Iterable[str | int], spelled: dict[int, list[int]]) -> list[int]:
        """The ids of the parts, encoded as one text; special tokens that come out of text are `spelled`."""
        try:
            text = "".join(whole_characters(part) if isinstance(part, str) else self._names[part] for part in parts)
        except KeyError as error:
            raise UsageError(f"token id {error} is not one of the vocabulary's special tokens") from None
        ids = without_specials(self._library.encode(text, add_special_tokens=False).ids, spelled)
        return [self._meant.get(i, i) for i in ids]

    def _second(self, name: str, token: AddedToken) -> AddedToken:
        """A token with the same flags under its second name, but without `single_word`: it counts beside a letter."""
        normalizer = self._library.normalizer
        kept = normalizer is None or name in normalizer.normalize_str(name)  # some drop characters that mean nothing
        flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized and kept}
        return AddedToken(name, special=False, **flags)

    def _name(self, number: int) -> str:
        return self._secret + "".join(chr(_FIRST_PRIVATE + int(digit)) for digit in f"{number:012d}")
