"""Tokenizers made from text, or fetched: `TOKENIZERS` holds one builder a name.

    build(texts, *, vocab_size=None, path=None, progress=False, specials=None) -> Tokenizer

`texts` is any iterable of strings and is read once (by those that learn from text); `path` is a local file or folder
(for those that read one). A builder refuses an argument that it does not use.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from glassformer.errors import TokenizerError, UsageError, did_you_mean
from glassformer.processors.tokenizers.alphabet import BYTE_ORDER, BYTE_TO_CHARACTER, whole_characters
from glassformer.processors.tokenizers.gpt2 import END_OF_TEXT, byte_level_bpe, check_gpt2, gpt2_tokenizer
from glassformer.processors.tokenizers.kinds import (
    BPE_PATTERN,
    CHARACTER_PATTERN,
    PLAIN_WORD_PATTERN,
    SMILES_PATTERN,
)
from glassformer.processors.tokenizers.reading import load_tokenizer
from glassformer.processors.tokenizers.sentencepiece import train_sentencepiece
from glassformer.processors.tokenizers.special_tokens import END, SENTENCE_SPECIALS, UNKNOWN, named_specials
from glassformer.processors.tokenizers.tokenizer import Tokenizer

DEFAULT_BPE_SIZE = 4096
LEAST_COUNT = 5
"""How often a plain word must occur to have a vector worth looking at; word2vec's choice."""
_SPLIT_SPECIALS = {"split_special_tokens": True}
"""Makes transformers do what `Tokenizer.encode` always does: a special token in a text is text."""


@dataclass(frozen=True)
class Options:
    """vocab_size: entries, special tokens included; None: the builder's own size. path: a file or folder to read.
    progress: draw a bar on a terminal. specials: special tokens, which come last."""

    vocab_size: int | None
    path: str | None
    progress: bool
    specials: tuple[str, ...]

    def size(self, least: int) -> int | None:
        """How many entries are left for text; a `UsageError` if fewer than `least`."""
        if self.vocab_size is None:
            return None
        needed = least + len(self.specials)
        if self.vocab_size < needed:
            raise UsageError(f"vocab_size={self.vocab_size} is too small; it takes at least {needed}")
        return self.vocab_size - len(self.specials)


@dataclass(frozen=True)
class Builder:
    """A kind of tokenizer. specials: those it has unless others are given; None: it takes none. fixed_size: entries
    beside the special ones, where that cannot be chosen."""

    name: str
    make: Callable[[Iterable[str], Options], Tokenizer]
    specials: tuple[str, ...] | None = ()
    reads_path: bool = False
    fixed_size: int | None = None

    def __call__(
        self,
        texts: Iterable[str] = (),
        *,
        vocab_size: int | None = None,
        path: str | None = None,
        progress: bool = False,
        specials: Sequence[str] | None = None,
    ) -> Tokenizer:
        """The tokenizer.

        Raises:
            TokenizerError: there is no text to learn from.
            UsageError: a value is impossible, or this kind does not use an argument that is given.
        """
        if path is not None and not self.reads_path:
            raise UsageError(f"a {self.name} tokenizer reads no file (path={path!r}); leave path out")
        if specials is not None and self.specials is None:
            known = ", ".join(name for name, builder in TOKENIZERS.items() if builder.specials is not None)
            raise UsageError(f"a {self.name} tokenizer takes no special tokens; use one of {known}")
        chosen = (self.specials or ()) if specials is None else specials
        if isinstance(chosen, str) or len(set(chosen)) != len(chosen) or not all(map(str.strip, chosen)):
            raise UsageError(f"specials={chosen!r}: give a list of different tokens, none of them empty")
        if self.fixed_size is not None and vocab_size not in (None, n := self.fixed_size + len(chosen)):
            raise UsageError(f"a {self.name} tokenizer has {n} entries, not {vocab_size}; leave vocab_size out")
        if path is not None and vocab_size is not None and self.fixed_size is None:
            raise UsageError(f"vocab_size={vocab_size}: the file {path!r} has its own size; leave vocab_size out")
        return self.make(texts, Options(vocab_size, path, progress and sys.stdout.isatty(), tuple(chosen)))


def characters(texts: Iterable[str], options: Options) -> Tokenizer:
    """One id for every character of the text, in sorted order: in Tiny Shakespeare newline is 0, space 1, `z` 64.

    A character that is not there is read as a space (or as the first character of the vocabulary when there is no
    space), with a warning. With a vocab_size the most frequent characters are kept.
    """
    size = options.size(1)
    if size is None:  # faster than counting
        found: set[str] = set()
        for text in texts:
            found.update(whole_characters(text))
    else:
        found = {*_most_frequent(Counter(chain.from_iterable(map(whole_characters, texts))), size)}
    if not found:
        raise TokenizerError("there is no text to take characters from; give some text with --data")
    library = character_library({character: i for i, character in enumerate(sorted(found))})
    return _with_specials(library, options.specials) if options.specials else Tokenizer(library)


def character_library(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """The `tokenizers` form of a vocabulary of characters; see `characters`."""
    # No token of its own for what is unknown: that would be a 66th logit, trained on nothing.
    replacement = " " if " " in vocabulary else min(vocabulary)
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=replacement))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(CHARACTER_PATTERN), "isolated")
    library.decoder = decoders.Fuse()
    return library


def bytes_(texts: Iterable[str], options: Options) -> Tokenizer:
    """The 256 bytes, each its own id, and end-of-text: 257 logits for any language, and nothing to learn.

    Written as a byte-level BPE without merges, so that other programs can load it.
    """
    vocabulary = {BYTE_TO_CHARACTER[byte]: byte for byte in range(256)}
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _with_specials(byte_level_bpe(vocabulary, [], pre_tokenizer=whole), options.specials)


def bpe(texts: Iterable[str], options: Options) -> Tokenizer:
    """Byte-level BPE learned from the text; `bpe_twin.py` is its readable twin.

    Ids are laid out like GPT-2's: bytes in its order, the merges as they were learned, the special tokens. A pair must
    occur twice to be merged, so a short text may give fewer tokens than asked for. Ties go to the pair with the lower
    ids. 4,096 entries unless vocab_size is given.
    """
    size = options.size(256)
    cut = pre_tokenizers.Split(Regex(BPE_PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library = byte_level_bpe(
        {BYTE_TO_CHARACTER[byte]: i for i, byte in enumerate(BYTE_ORDER)},
        [],
        pre_tokenizer=pre_tokenizers.Sequence([cut, to_bytes]),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=DEFAULT_BPE_SIZE - len(options.specials) if size is None else size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=options.progress,
    )
    library.train_from_iterator(_some(texts, "learn BPE from"), trainer)
    return _with_specials(library, options.specials)


def words(texts: Iterable[str], options: Options) -> Tokenizer:
    """One id for everything between spaces, in sorted order, then `<unk>` and the special tokens: for phonemes, labels,
    notes, moves. Decoded text has one space between two tokens. With a vocab_size the most frequent words are kept."""
    options = replace(options, specials=_with_unknown(options.specials))
    counts = Counter(chain.from_iterable(whole_characters(text).split() for text in texts))
    for special in options.specials:
        counts.pop(special, None)
    found = _most_frequent(counts, options.size(1))
    if not found:
        raise TokenizerError("there is no text to take words from; give some text with --data")
    vocabulary = {word: i for i, word in enumerate((*sorted(found), UNKNOWN))}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_specials(library, options.specials)


def plain_words(texts: Iterable[str], options: Options) -> Tokenizer:
    """One id for every word in lower case, the most frequent first, then `<unk>` and the special tokens: for vectors of
    words. A word is letters, with apostrophes inside (`don't`); all else (marks, numbers, spaces) is dropped, so a text
    does not come back as it was. Unless vocab_size is given, every word that occurs five times or more.
    """
    options = replace(options, specials=_with_unknown(options.specials))
    vocabulary = _counted(_plain_words({}), _some(texts, "take words from"), options, least=LEAST_COUNT)
    if not vocabulary:
        raise TokenizerError(f"no word occurs {LEAST_COUNT} times; give more text, or tokenizer.vocab_size")
    return _with_specials(_plain_words({**vocabulary, UNKNOWN: len(vocabulary)}), options.specials)


def _plain_words(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Split(Regex(PLAIN_WORD_PATTERN), "removed", invert=True)
    return library


def smiles(texts: Iterable[str], options: Options) -> Tokenizer:
    """One id for every atom, bond, bracket and ring mark of molecules, in sorted order, then `<unk>` and the special
    tokens: `C[C@H](Cl)N` is `C`, `[C@H]`, `(`, `Cl`, `)`, `N`. With a vocab_size the most frequent ones are kept."""
    options = replace(options, specials=_with_unknown(options.specials))
    found = sorted(_counted(_smiles({}), _some(texts, "take atoms from"), options, least=1))
    return _with_specials(_smiles({token: i for i, token in enumerate((*found, UNKNOWN))}), options.specials)


def _smiles(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES_PATTERN), "isolated")
    library.decoder = decoders.Fuse()
    return library


def _counted(library: tokenizers.Tokenizer, texts: Iterable[str], options: Options, *, least: int) -> dict[str, int]:
    """The pieces that a library cuts texts into, the most frequent first: those that occur `least` times, or as many as
    the vocab_size leaves room for."""
    size = options.size(1)
    trainer = trainers.WordLevelTrainer(
        vocab_size=1 << 31 if size is None else size,
        min_frequency=least if size is None else 1,
        show_progress=options.progress,
        special_tokens=[],
    )
    library.train_from_iterator(texts, trainer)
    found: dict[str, int] = library.get_vocab()
    return found


def gpt2(texts: Iterable[str], options: Options) -> Tokenizer:
    """GPT-2's own 50,257 entries, from the package registry or a local folder `path`; see `gpt2.py`."""
    return gpt2_tokenizer() if options.path is None else check_gpt2(load_tokenizer(options.path), options.path)


def sentencepiece(texts: Iterable[str], options: Options) -> Tokenizer:
    """A SentencePiece Unigram model learned from the text, or any model read from `path` (a `.model` file).

    Raises:
        MissingExtraError: the extra `sentencepiece` is not installed.
    """
    if options.path is not None:
        return load_tokenizer(options.path)
    present = _some(texts, "learn SentencePiece from")
    return train_sentencepiece(present, options.vocab_size or DEFAULT_BPE_SIZE, options.progress)


def wordpiece(texts: Iterable[str], options: Options) -> Tokenizer:
    """BERT's WordPiece, read from the `vocab.txt` at `path`. There is no trainer: new models have better choices."""
    if options.path is None:
        raise UsageError("a wordpiece tokenizer is only read: give its vocab.txt as tokenizer.path, or learn a bpe one")
    path = Path(options.path)
    return load_tokenizer(path / "vocab.txt" if path.is_dir() else path)


TOKENIZERS: dict[str, Builder] = {
    builder.name: builder
    for builder in (
        Builder("characters", characters),
        Builder("bytes", bytes_, specials=(END_OF_TEXT,), fixed_size=256),
        Builder("bpe", bpe, specials=(END_OF_TEXT,)),
        Builder("words", words, specials=SENTENCE_SPECIALS),
        Builder("plain-words", plain_words),
        Builder("smiles", smiles, specials=(END_OF_TEXT,)),
        Builder("gpt2", gpt2, specials=None, reads_path=True, fixed_size=50_257),
        Builder("sentencepiece", sentencepiece, specials=None, reads_path=True),
        Builder("wordpiece", wordpiece, specials=None, reads_path=True),
    )
}


def build_tokenizer(name: str, texts: Iterable[str] = (), **options: Any) -> Tokenizer:
    """`TOKENIZERS[name](texts, **options)`, with a hint when there is no such name.

    Raises:
        UsageError: the name is unknown; and as `Builder`.
    """
    if name not in TOKENIZERS:
        raise UsageError(f"no tokenizer is called {name!r}; {did_you_mean(name, TOKENIZERS)}")
    return TOKENIZERS[name](texts, **options)


def _with_specials(library: tokenizers.Tokenizer, specials: Sequence[str]) -> Tokenizer:
    """The tokenizer with its special tokens, which come last."""
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    end = next((token for token in (END_OF_TEXT, END) if token in specials), None)
    return Tokenizer(library, end_of_text=end, settings=_SPLIT_SPECIALS | named_specials(specials))


def _with_unknown(specials: Sequence[str]) -> tuple[str, ...]:
    return (UNKNOWN, *(token for token in specials if token != UNKNOWN))


def _most_frequent(counts: Counter[str], most: int | None) -> list[str]:
    """The most frequent ones, ties in sorted order; all of them without a limit."""
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return ranked if most is None else ranked[:most]


def _some(texts: Iterable[str], purpose: str) -> Iterable[str]:
    """The texts without lone surrogates; an error, before a trainer starts, if there are none."""
    present = (whole_characters(text) for text in texts if text)
    first = next(present, None)
    if first is None:
        raise TokenizerError(f"there is no text to {purpose}; give some text with --data")
    return chain([first], present)
