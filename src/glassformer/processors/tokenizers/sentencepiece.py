"""SentencePiece models: trained here or read from a `.model` file, and turned into a `tokenizer.json`.

Needs the extra `sentencepiece`; the tokenizer.json that is saved runs on the `tokenizers` library alone.

SentencePiece writes a space as `▁` (U+2581) and has two algorithms: Unigram (the most likely cut, by a table of piece
probabilities; Kudo 2018) and BPE. How text is prepared (Unicode folding, a space put in front, runs of spaces
collapsed) is stated in the model file, a protocol buffer; the few fields that are needed are read by hand.

One difference from SentencePiece remains: where a model folds Unicode, the library folds a cluster (CR LF, a letter
with combining marks, joined emoji) as one and SentencePiece single code points, so ids may differ there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from glassformer.errors import MissingExtraError, TokenizerError
from glassformer.processors.tokenizers.gpt2 import END_OF_TEXT
from glassformer.processors.tokenizers.tokenizer import Tokenizer

SPACE = "\u2581"
_OF_USERS = b"\x18\x04"  # how a piece of type USER_DEFINED ends
_SPELLING = "<>x0123456789ABCDEF" + "|endoftext" + "unk"
"""Characters that a trained model always has, so that a typed `<0x0A>` or `<|endoftext|>` can be spelled as text."""


def train_sentencepiece(texts: Iterable[str], vocab_size: int, progress: bool = False) -> Tokenizer:
    """A Unigram model learned from text, lossless: nothing is folded or collapsed, and what it lacks becomes bytes.

    Args:
        texts: read line by line; a newline is the byte piece `<0x0A>`.
        vocab_size: pieces in all, with 256 for bytes; a short text gives fewer.

    Raises:
        TokenizerError: SentencePiece cannot train on this (its reason is in the message).
    """
    trainer = _package("training SentencePiece models").SentencePieceTrainer
    model = io.BytesIO()
    try:
        trainer.train(
            sentence_iterator=(line for text in texts for line in text.split("\n") if line),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            required_chars="".join(sorted(set(_SPELLING))),
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 16,
            unk_id=0,
            eos_id=1,
            eos_piece=END_OF_TEXT,
            bos_id=-1,
            pad_id=-1,
            num_threads=1,  # more threads add floats in another order: the pieces would differ from run to run
            minloglevel=0 if progress and sys.stderr.isatty() else 2,
        )
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[-200:]
        raise TokenizerError(f"SentencePiece cannot train with vocab_size={vocab_size}: {reason}") from error
    found = read_model(model.getvalue(), "the trained model")
    unknown = found.pieces.texts[found.pieces.unknown]
    settings = {"unk_token": unknown, "split_special_tokens": True}
    return Tokenizer(found.library(), end_of_text=found.end, settings=settings)


class Pieces(NamedTuple):
    """A SentencePiece vocabulary: the text and score of every piece, and the numbers of those that are no text."""

    texts: list[str]
    scores: list[float]
    unknown: int
    control: set[int]  # the unknown one too
    bytes: set[int]
    unused: set[int]
    of_users: frozenset[int] = frozenset()  # matched whole, before anything is cut

    @property
    def are_words(self) -> bool:
        """Whether no piece reaches over a space."""
        return not any(SPACE in piece[1:] for piece in self.texts)


class Model(NamedTuple):
    """What a `.model` file holds. kind: unigram or bpe. prefix: a space is put before a text. charsmap: how Unicode is
    folded. collapses: spaces at the ends go, runs of them become one. end: the piece that ends a text."""

    pieces: Pieces
    kind: str
    prefix: bool
    charsmap: bytes
    collapses: bool
    end: str | None

    def library(self) -> tokenizers.Tokenizer:
        """Its `tokenizers` form, with the ids that SentencePiece gives."""
        library = library_from_pieces(self.pieces, self.kind, self.normalizer(), self.prefix)
        if self.prefix and self.pieces.of_users:  # these cut a text in two, and the second part gets no space
            library.normalizer = self._replace(prefix=False).normalizer()
            library.pre_tokenizer = pre_tokenizers.Metaspace(
                replacement=SPACE, prepend_scheme="first", split=self.pieces.are_words
            )
        return library

    def normalizer(self) -> normalizers.Normalizer:
        """What SentencePiece does to a text before cutting it."""
        steps: list[normalizers.Normalizer] = []
        if self.charsmap:
            steps.append(normalizers.Precompiled(self.charsmap))
        if self.collapses:
            steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
            steps.append(normalizers.Replace(Regex(r" {2,}"), " "))
        if self.prefix:
            steps.append(normalizers.Prepend(SPACE))
        return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def read_model(proto: bytes, source: str) -> Model:
    """A serialized SentencePiece model.

    Raises:
        TokenizerError: it is damaged, or of a type other than Unigram or BPE.
        MissingExtraError: `sentencepiece` is not installed.
    """
    processor = _package("reading SentencePiece models").SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(proto)
        fields = _fields(proto)
        trainer, normalizer = _fields(fields[2][0]), _fields(fields.get(3, [b""])[0])
        of_users = {i for i, p in enumerate(fields[1]) if p.endswith(_OF_USERS) and _fields(p)[3] == [4]}
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise TokenizerError(f"{source}: not a SentencePiece model, or damaged; fetch it again") from error
    kind = {1: "unigram", 2: "bpe"}.get(trainer.get(3, [1])[0])
    if kind is None:
        raise TokenizerError(f"{source}: only Unigram and BPE models of SentencePiece are read; train one of these")
    numbers = range(processor.get_piece_size())
    pieces = Pieces(
        texts=[processor.id_to_piece(i) for i in numbers],
        scores=[processor.get_score(i) for i in numbers],
        unknown=processor.unk_id(),
        control={i for i in numbers if processor.is_control(i) or processor.is_unknown(i)},
        bytes={i for i in numbers if processor.is_byte(i)},
        unused={i for i in numbers if processor.is_unused(i)},
        of_users=frozenset(of_users),
    )
    return Model(
        pieces=pieces,
        kind=kind,
        prefix=bool(normalizer.get(3, [1])[0]),
        charsmap=normalizer.get(2, [b""])[0],
        collapses=bool(normalizer.get(4, [1])[0]),
        end=pieces.texts[processor.eos_id()] if processor.eos_id() >= 0 else None,
    )


def library_from_pieces(
    pieces: Pieces, kind: str, normalizer: normalizers.Normalizer, prefix: bool
) -> tokenizers.Tokenizer:
    """The `tokenizers` form of a vocabulary of pieces. kind: unigram or bpe. prefix: a space is put before a text."""
    texts, unknown = pieces.texts, pieces.texts[pieces.unknown]
    unmatched = pieces.control | pieces.bytes | pieces.unused
    if kind == "unigram":
        # Control and byte pieces are not text; a score below any spelling keeps the library from finding them there.
        below = 10 * min(pieces.scores) - 100
        table = [(piece, below if i in unmatched else pieces.scores[i]) for i, piece in enumerate(texts)]
        library = tokenizers.Tokenizer(models.Unigram(table, unk_id=pieces.unknown, byte_fallback=bool(pieces.bytes)))
    else:
        vocabulary = {piece: i for i, piece in enumerate(texts)}
        merges = _merges(vocabulary, pieces.scores, unmatched)
        library = tokenizers.Tokenizer(
            models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=bool(pieces.bytes))
        )
    library.normalizer = normalizer
    if pieces.are_words:  # they can be cut apart
        library.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True)
    library.decoder = pieces_decoder(prefix)
    library.add_special_tokens([AddedToken(texts[i], special=True, normalized=False) for i in sorted(pieces.control)])
    library.add_tokens([AddedToken(texts[i], normalized=False) for i in sorted(pieces.of_users)])
    return library


def pieces_decoder(prefix: bool) -> decoders.Decoder:
    """Pieces to text, with bytes put together. prefix: the space that was put before a text is dropped."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)


def _merges(vocabulary: dict[str, int], scores: list[float], unmatched: set[int]) -> list[tuple[str, str]]:
    """The merges that a SentencePiece BPE model implies: every way to put a piece together from two others, pieces of
    higher score first."""
    found = []
    for piece, i in vocabulary.items():
        if i in unmatched:
            continue
        for cut in range(1, len(piece)):
            left, right = vocabulary.get(piece[:cut]), vocabulary.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[i], left, right, piece[:cut], piece[cut:]))
    return [(left, right) for _, _, _, left, right in sorted(found)]


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol-buffer message by number: integers, or bytes for everything else."""
    fields: dict[int, list[Any]] = {}
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        number, wire = divmod(_varint(stream), 8)
        if wire not in (0, 1, 2, 5):
            raise ValueError(f"wire type {wire}")
        value: Any = _varint(stream) if wire in (0, 2) else {1: 8, 5: 4}[wire]
        fields.setdefault(number, []).append(value if wire == 0 else stream.read(value))
    return fields


def _varint(stream: io.BytesIO) -> int:
    value = shift = 0
    while (byte := stream.read(1)[0]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
    return value | byte << shift


def _package(purpose: str) -> ModuleType:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError(purpose, "sentencepiece") from error
    return sentencepiece
