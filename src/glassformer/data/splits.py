"""Which text is for training and which for validation: decided while it streams by, and the same at every run.

    lecture     the first int(0.9 n) of n characters train (Tiny Shakespeare)
    lines       one or few documents: one cut at the line end nearest to (1 - f) of the bytes
    documents   whole documents, spread evenly, so that validation holds the fraction f of the bytes

The rule for documents looks at no total and draws no lots: a document goes to validation when at least half of it is
owed there by the bytes seen so far (error diffusion). So a streamed dataset needs no first pass, text that is added at
the end moves nothing, and of ten equal documents with f = 0.1 the fifth validates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from glassformer.data.readers import TextSource
from glassformer.data.text_pieces import Piece, utf8_length

FEW_DOCUMENTS = 20  # below this, whole documents are too coarse a measure


class Part(NamedTuple):
    """A stretch of text on one side of the split; `last` ends a document (or the side's part of it)."""

    split: str
    text: str
    bytes: int
    last: bool


class Plan(NamedTuple):
    """How a source will be split. `documents` is None when it is not known before reading (a hub dataset)."""

    rule: str
    fraction: float
    documents: int | None
    bytes: int | None

    def describe(self) -> str:
        """The rule in words, for people and for meta.json."""
        if self.rule == "lecture":
            return "lecture: the first int(0.9 n) characters train"
        if self.fraction == 0:
            return "everything trains"
        where = "at the line end nearest to that byte" if self.rule == "lines" else "by whole documents, spread evenly"
        return f"{self.rule}: {self.fraction:g} of the bytes validate, {where}"

    def split(self, pieces: Iterator[Piece]) -> Iterator[Part]:
        """Give each piece its side. Empty pieces are passed on only where they end a document."""
        if self.rule == "lecture":
            return _lecture(pieces)
        if self.rule == "lines" and self.fraction:
            assert self.bytes is not None
            return _cut_once(pieces, (1 - self.fraction) * self.bytes)
        return _whole_documents(pieces, self.fraction)


def plan_split(source: TextSource, fraction: float) -> Plan:
    """Choose the rule. Reads all files, to count their documents and bytes of text."""
    if source.corpus and source.corpus.split == "lecture":
        return Plan("lecture", 0.1, 1, source.bytes())
    if source.hub:
        return Plan("documents", fraction, None, None)
    if source.corpus:
        sizes = [utf8_length(text) for text in source.corpus.texts()]
    else:
        sizes = list(source.document_sizes())
    sizes = [size for size in sizes if size]
    total = sum(sizes)
    many = len(sizes) >= FEW_DOCUMENTS and max(sizes) <= fraction * total
    return Plan("documents" if many or not fraction else "lines", fraction, len(sizes), total)


def _lecture(pieces: Iterator[Piece]) -> Iterator[Part]:
    text = "".join(piece.text for piece in pieces)
    cut = int(0.9 * len(text))
    for split, part in (("train", text[:cut]), ("validation", text[cut:])):
        yield Part(split, part, utf8_length(part), True)


def _whole_documents(pieces: Iterator[Piece], fraction: float) -> Iterator[Part]:
    """Error diffusion over documents. A document in several pieces is large by itself and trains."""
    seen = held = 0
    inside = False
    for piece in pieces:
        size = utf8_length(piece.text)
        whole = piece.last and not inside
        validate = fraction > 0 and whole and held + size / 2 <= fraction * (seen + size)
        seen += size
        held += size if validate else 0
        inside = not piece.last
        yield Part("validation" if validate else "train", piece.text, size, piece.last)


def _cut_once(pieces: Iterator[Piece], target: float) -> Iterator[Part]:
    seen = 0
    split, inside = "train", False
    for piece in pieces:
        size = utf8_length(piece.text)
        if split == "train" and seen + size > target:
            at = int((target - seen) * len(piece.text) / max(size, 1))
            cut = _line_end_near(piece.text, at, least=0 if seen else 1)
            head, tail = piece.text[:cut], piece.text[cut:]
            split = "validation"
            if head or inside:
                yield Part("train", head, utf8_length(head), True)
            if tail or not piece.last:
                yield Part("validation", tail, utf8_length(tail), piece.last)
        else:
            yield Part(split, piece.text, size, piece.last)
        seen += size
        inside = not piece.last


def _line_end_near(text: str, target: int, least: int) -> int:
    """The position after the line break nearest to `target`, from `least` (0 when the text continues a line that
    ended before it) and before its end; without one, after the nearest space; without one, `target`."""
    for mark in ("\n", " "):
        places = (text.rfind(mark, 0, max(target, 0)) + 1, text.find(mark, max(target - 1, 0)) + 1)
        inside = [place for place in places if least <= place < len(text)]
        if inside:
            return min(inside, key=lambda place: abs(place - target))
    return min(max(target, 1), len(text) - 1)
