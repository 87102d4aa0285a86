"""Tokenizers made from text, or fetched: the plain dict `TOKENIZERS` holds one builder a name.

    build(texts, *, vocab_size=None, path=None, progress=False) -> Tokenizer

`texts` is any iterable of strings and is read once (by those that learn from text); `path` is a local file or folder
(for those that read one). A builder refuses an argument that it does not use.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from glassformer.errors import TokenizerError, UsageError, did_you_mean
from glassformer.processors.tokenizers.alphabet import BYTE_ORDER, BYTE_TO_CHARACTER, whole_characters
from glassformer.processors.tokenizers.gpt2 import END_OF_TEXT, byte_level_bpe, gpt2_tokenizer
from glassformer.processors.tokenizers.kinds import BPE_PATTERN, CHARACTER_PATTERN, PLAIN_WORD_PATTERN
from glassformer.processors.tokenizers.special_tokens import END, SENTENCE_SPECIALS, UNKNOWN, named_specials
from glassformer.processors.tokenizers.tokenizer import Tokenizer

DEFAULT_BPE_SIZE = 4096
LEAST_COUNT = 5
"""How often a plain word must occur to have a vector worth looking at; word2vec's choice."""
_SPLIT_SPECIALS = {"split_special_tokens": True}
"""Tells transformers what `Tokenizer.encode` does anyway: a special token in a text is text."""


def characters(
    texts: Iterable[str],
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    progress: bool = False,
    specials: Sequence[str] = (),
) -> Tokenizer:
    """One id for every character of the text, in sorted order: the lecture's tokenizer.

    In Tiny Shakespeare newline is 0, space 1, `z` 64: exactly 65 logits. A character that is not there is read as a
    space (or as the first character of the vocabulary when there is no space), with a warning.

    Args:
        vocab_size: keep only that many, the most frequent ones; special tokens are counted with them.
        specials: none for a language model; for other shapes see `specials.py`. They come last.

    Raises:
        TokenizerError: there is no text.
        UsageError: vocab_size leaves no room for a character, or a special token is there twice or empty.
    """
    _refuse_path("characters", path)
    _check_specials(specials)
    if vocab_size is None:
        found = set(chain.from_iterable(set(whole_characters(text)) for text in texts))
    else:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(whole_characters(text))
        ranked = sorted(counts, key=lambda character: (-counts[character], character))
        found = set(ranked[: _at_least(vocab_size, 1 + len(specials)) - len(specials)])
    if not found:
        raise TokenizerError("there is no text to take characters from; give some text with --data")
    library = character_library({character: i for i, character in enumerate(sorted(found))})
    if not specials:
        return Tokenizer(library)
    return _with_specials(library, specials)


def character_library(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """The `tokenizers` form of a vocabulary of characters; see `characters`."""
    # No token of its own for what is unknown: that would be a 66th logit, trained on nothing.
    replacement = " " if " " in vocabulary else min(vocabulary)
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=replacement))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(CHARACTER_PATTERN), "isolated")
    library.decoder = decoders.Fuse()
    return library


def bytes_(
    texts: Iterable[str] = (),
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    progress: bool = False,
    specials: Sequence[str] = (END_OF_TEXT,),
) -> Tokenizer:
    """The 256 bytes, each its own id, and end-of-text: 257 logits for any language, and nothing to learn.

    Written as a byte-level BPE without merges, so that other programs can load it.

    Args:
        specials: `<|endoftext|>` for a language model; for other shapes see `specials.py`.

    Raises:
        UsageError: another vocab_size than there is, or a special token is there twice or empty.
    """
    _refuse_path("bytes", path)
    _check_specials(specials)
    _refuse_size("bytes", vocab_size, 256 + len(specials))
    vocabulary = {BYTE_TO_CHARACTER[byte]: byte for byte in range(256)}
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _with_specials(byte_level_bpe(vocabulary, [], pre_tokenizer=whole), specials)


def bpe(
    texts: Iterable[str],
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    progress: bool = False,
    specials: Sequence[str] = (END_OF_TEXT,),
) -> Tokenizer:
    """Byte-level BPE learned from the text; `bpe_twin.py` is the same thing to be read.

    Ids are laid out like GPT-2's: bytes in its order, then the merges in the order they were learned, then
    the special tokens. A pair must occur twice to be merged, so a short text may give fewer tokens than asked for. The
    same text gives the same vocabulary: ties go to the pair with the lower ids.

    Args:
        vocab_size: entries in all, special tokens included (4,096 unless given; 256 and the special ones at the least).
        specials: `<|endoftext|>` for a language model; for other shapes see `specials.py`.

    Raises:
        TokenizerError: there is no text.
        UsageError: vocab_size is too small, or a special token is there twice or empty.
    """
    _refuse_path("bpe", path)
    _check_specials(specials)
    size = _at_least(DEFAULT_BPE_SIZE if vocab_size is None else vocab_size, 256 + len(specials))
    library = byte_level_bpe(
        {BYTE_TO_CHARACTER[byte]: i for i, byte in enumerate(BYTE_ORDER)},
        [],
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(BPE_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(specials),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress and sys.stdout.isatty(),  # elsewhere it prints empty lines
    )
    library.train_from_iterator(_some(texts, "learn BPE from"), trainer)
    return _with_specials(library, specials)


def words(
    texts: Iterable[str],
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    progress: bool = False,
    specials: Sequence[str] = SENTENCE_SPECIALS,
) -> Tokenizer:
    """One id for everything between spaces, in sorted order, then `<unk>` and the special tokens: for phonemes, labels,
    notes, moves. Spaces are not kept: what is decoded has one between two tokens.

    Args:
        vocab_size: entries in all, special ones included: keep only the most frequent words.

    Raises:
        TokenizerError: there is no text.
        UsageError: vocab_size leaves no room for a word, or a special token is there twice or empty.
    """
    _refuse_path("words", path)
    _check_specials(specials)
    specials = (UNKNOWN, *(token for token in specials if token != UNKNOWN))
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(whole_characters(text).split())
    ranked = sorted(counts.keys() - set(specials), key=lambda word: (-counts[word], word))
    if vocab_size is not None:
        ranked = ranked[: _at_least(vocab_size, 1 + len(specials)) - len(specials)]
    if not ranked:
        raise TokenizerError("there is no text to take words from; give some text with --data")
    vocabulary = {word: i for i, word in enumerate((*sorted(ranked), UNKNOWN))}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_specials(library, specials)


def plain_words(
    texts: Iterable[str],
    *,
    vocab_size: int | None = None,
    path: str | None = None,
    progress: bool = False,
    specials: Sequence[str] = (),
) -> Tokenizer:
    """One id for every word in lower case, the most frequent first, then `<unk>` and the special tokens: for vectors of
    words. A word is letters, with apostrophes inside (`don't`); all else (marks, numbers, spaces) is dropped, so a text
    does not come back as it was.

    Args:
        vocab_size: entries in all, special ones included; unless given, every word that occurs five times or more.

    Raises:
        TokenizerError: there is no text, or no word in it often enough.
        UsageError: vocab_size leaves no room for a word, or a special token is there twice or empty.
    """
    _refuse_path("plain-words", path)
    _check_specials(specials)
    specials = (UNKNOWN, *(token for token in specials if token != UNKNOWN))
    size = 1 << 31 if vocab_size is None else _at_least(vocab_size, 1 + len(specials))
    library = _plain_words({})
    trainer = trainers.WordLevelTrainer(
        vocab_size=size - len(specials),
        min_frequency=LEAST_COUNT if vocab_size is None else 1,
        show_progress=progress and sys.stdout.isatty(),
        special_tokens=[],
    )
    library.train_from_iterator(_some(texts, "take words from"), trainer)
    vocabulary = library.get_vocab()
    if not vocabulary:
        raise TokenizerError(f"no word occurs {LEAST_COUNT} times; give more text, or tokenizer.vocab_size")
    return _with_specials(_plain_words({**vocabulary, UNKNOWN: len(vocabulary)}), specials)


def _plain_words(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Split(Regex(PLAIN_WORD_PATTERN), "removed", invert=True)
    return library


def gpt2(
    texts: Iterable[str] = (), *, vocab_size: int | None = None, path: str | None = None, progress: bool = False
) -> Tokenizer:
    """GPT-2's own 50,257 entries, from the package registry or a local folder `path`; see `gpt2.py`."""
    _refuse_size("gpt2", vocab_size, 50257)
    return gpt2_tokenizer(path)


def sentencepiece(
    texts: Iterable[str], *, vocab_size: int | None = None, path: str | None = None, progress: bool = False
) -> Tokenizer:
    """A SentencePiece Unigram model learned from the text, or any model read from `path` (a `.model` file).

    Raises:
        MissingExtraError: the extra `sentencepiece` is not installed.
    """
    from glassformer.processors.tokenizers.reading import load_tokenizer
    from glassformer.processors.tokenizers.sentencepiece import train_sentencepiece

    if path is not None:
        return load_tokenizer(path)
    return train_sentencepiece(_some(texts, "learn SentencePiece from"), vocab_size or DEFAULT_BPE_SIZE, progress)


def wordpiece(
    texts: Iterable[str] = (), *, vocab_size: int | None = None, path: str | None = None, progress: bool = False
) -> Tokenizer:
    """BERT's WordPiece, read from the `vocab.txt` at `path`. There is no trainer: new models have better choices."""
    from glassformer.processors.tokenizers.reading import load_tokenizer

    if path is None:
        raise UsageError(
            "a wordpiece tokenizer is only read: give tokenizer.path, the vocab.txt; to learn one, use bpe"
        )
    return load_tokenizer(Path(path) / "vocab.txt" if Path(path).is_dir() else path)


TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "characters": characters,
    "bytes": bytes_,
    "bpe": bpe,
    "words": words,
    "plain-words": plain_words,
    "gpt2": gpt2,
    "sentencepiece": sentencepiece,
    "wordpiece": wordpiece,
}


def build_tokenizer(name: str, texts: Iterable[str] = (), **options: Any) -> Tokenizer:
    """`TOKENIZERS[name](texts, **options)`, with a hint when there is no such name.

    Raises:
        UsageError: the name is unknown, or special tokens are asked of one that takes none.
    """
    if name not in TOKENIZERS:
        raise UsageError(f"no tokenizer is called {name!r}; {did_you_mean(name, TOKENIZERS)}")
    build = TOKENIZERS[name]
    if "specials" in options and "specials" not in signature(build).parameters:
        known = ", ".join(other for other, made in TOKENIZERS.items() if "specials" in signature(made).parameters)
        raise UsageError(f"a {name} tokenizer takes no special tokens, and they are needed here; use one of {known}")
    return build(texts, **options)


def _with_specials(library: tokenizers.Tokenizer, specials: Sequence[str]) -> Tokenizer:
    """The tokenizer with its special tokens, which come last."""
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    end = next((token for token in (END_OF_TEXT, END) if token in specials), None)
    return Tokenizer(library, end_of_text=end, settings=_SPLIT_SPECIALS | named_specials(specials))


def _some(texts: Iterable[str], purpose: str) -> Iterable[str]:
    """The texts without lone surrogates, checked to hold anything at all before a trainer starts on them."""
    present = (whole_characters(text) for text in texts if text)
    first = next(present, None)
    if first is None:
        raise TokenizerError(f"there is no text to {purpose}; give some text with --data")
    return chain([first], present)


def _check_specials(specials: Sequence[str]) -> None:
    if isinstance(specials, str) or len(set(specials)) != len(specials) or not all(map(str.strip, specials)):
        raise UsageError(f"specials={specials!r}: give a list of different tokens, none of them empty")


def _at_least(vocab_size: int, least: int) -> int:
    if vocab_size < least:
        raise UsageError(f"vocab_size={vocab_size} is too small; it takes at least {least}")
    return vocab_size


def _refuse_path(name: str, path: str | None) -> None:
    if path is not None:
        raise UsageError(f"a {name} tokenizer reads no file (path={path!r}); leave path out, or load the file instead")


def _refuse_size(name: str, vocab_size: int | None, fixed: int) -> None:
    if vocab_size not in (None, fixed):
        raise UsageError(f"a {name} tokenizer has {fixed} entries, not {vocab_size}; leave vocab_size out, or use bpe")
