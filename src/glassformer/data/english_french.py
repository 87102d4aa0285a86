"""English and French sentences out of the manuals that Debian ships in both languages.

    packages                                pages    pairs   what they are
    libreoffice-help-en-us, -fr             2,560   39,209   the help of an office suite (HTML)
    manpages, manpages-fr                     139    6,231   devices, file formats, protocols of Linux (troff)
    manpages-dev, manpages-fr-dev             763   19,451   system calls and the C library (troff)
    gnome-user-docs                           293    3,174   the help of a desktop (Mallard XML)
    debian-reference-en, -fr                   14    4,319   a handbook for administrators (HTML)

(Counted in Debian 12; another release has other manuals.)

This is the language of software manuals: full of names of functions and menus, regular, and repetitive. A model that
translates it well will not translate a novel. What it has for it is that it is free, clean and aligned by its makers:
translators worked paragraph by paragraph, so the n-th paragraph of a page is the translation of the n-th.

How pairs are made, in this order:
1. A page's paragraphs in both languages (`manual_blocks`). Where the two pages have the same structure, which is so
   for 98 in 100, they are paired in order; where not, only those whose HTML ids or kinds occur once in each.
2. Typography is evened out: one kind of apostrophe and of double quotes, ordinary spaces, `...`.
3. Paragraphs become sentences where both sides have equally many and each pair's lengths fit.
4. Dropped: text left untranslated (equal, or with most of its words in common), without a word, mostly signs (code),
   longer than 400 characters, of lengths that do not fit, with other numbers in it than its translation.
5. A sentence that was there before, upper and lower case aside, is dropped.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from glassformer.archives import read_members
from glassformer.data.example_splits import Examples
from glassformer.data.manual_blocks import Block, html_blocks, man_blocks
from glassformer.errors import DataError

MAX_CHARACTERS = 400
"""Longest sentence, in characters, in either language; longer ones are unbroken lists."""


class Pair(NamedTuple):
    """A sentence, its translation, and its page (`package/page`)."""

    english: str
    french: str
    page: str


class Manual(NamedTuple):
    """The pages of one manual in the two packages.

    Attributes:
        english, french: (package, folder in it).
        pages: a regular expression; its first group is the page's name, the same in both languages.
        blocks: text -> blocks.
    """

    name: str
    english: tuple[str, str]
    french: tuple[str, str]
    pages: str
    blocks: Callable[[str], list[Block]]


def _page_of_man(text: str) -> list[Block]:
    blocks = man_blocks(text)
    ends = [i for i, block in enumerate(blocks) if block == Block("SH", "TRADUCTION")]  # what translators add
    return blocks[: ends[0]] if ends else blocks


_HELP, _MAN, _GNOME = "usr/share/libreoffice/help", "usr/share/man", "usr/share/help"
_DEBIAN = "usr/share/debian-reference/"
_MAN_PAGE = r"(man\d/.+)\.gz"
MANUALS = (
    Manual(
        "libreoffice-help",
        ("libreoffice-help-en-us", f"{_HELP}/en-US/text/"),
        ("libreoffice-help-fr", f"{_HELP}/fr/text/"),
        r"(.+)\.html",
        html_blocks,
    ),
    Manual("manpages", ("manpages", f"{_MAN}/"), ("manpages-fr", f"{_MAN}/fr/"), _MAN_PAGE, _page_of_man),
    Manual("manpages-dev", ("manpages-dev", f"{_MAN}/"), ("manpages-fr-dev", f"{_MAN}/fr/"), _MAN_PAGE, _page_of_man),
    Manual(
        "gnome-user-docs",
        ("gnome-user-docs", f"{_GNOME}/C/"),
        ("gnome-user-docs", f"{_GNOME}/fr/"),
        r"(.+)\.page",
        html_blocks,
    ),
    Manual(
        "debian-reference",
        ("debian-reference-en", _DEBIAN),
        ("debian-reference-fr", _DEBIAN),
        r"((?!index)\w+)\.(?:en|fr)\.html",
        html_blocks,
    ),
)
PACKAGES = tuple(dict.fromkeys(package for manual in MANUALS for package, _ in (manual.english, manual.french)))
"""The packages that all of them need."""


def english_french(archives: dict[str, Path], manuals: Sequence[Manual] = MANUALS) -> Iterator[Pair]:
    """The pairs of all manuals, each sentence once.

    Args:
        archives: the .deb files of the manuals' packages, by package.

    Raises:
        DataError: an archive is damaged or holds no pages of its manual.
    """
    seen: set[str] = set()
    for manual in manuals:
        for page, english, french in _pages(manual, archives):
            for pair in paragraph_pairs(manual.blocks(english), manual.blocks(french)):
                for source, target in sentence_pairs(even_out(pair[0]), even_out(pair[1])):
                    if is_translation(source, target) and not {source.casefold(), target.casefold()} & seen:
                        seen |= {source.casefold(), target.casefold()}
                        yield Pair(source, target, f"{manual.name}/{page}")


def _pages(manual: Manual, archives: dict[str, Path]) -> Iterator[tuple[str, str, str]]:
    """(name, English text, French text) of the pages that both packages have, by name."""
    english, french = (
        _texts(archives[package], folder, manual.pages) for package, folder in (manual.english, manual.french)
    )
    both = sorted(english.keys() & french.keys())
    if not both:
        raise DataError(
            f"{archives[manual.french[0]]}: no pages under {manual.french[1]} that the English package has too"
        )
    for page in both:
        yield page, english[page], french[page]


def _texts(archive: Path, folder: str, pages: str) -> dict[str, str]:
    pattern = re.compile(re.escape(folder) + pages)
    found = {}
    for name, content in read_members(archive, lambda member: bool(pattern.fullmatch(member))):
        match = pattern.fullmatch(name)
        assert match is not None
        if name.endswith(".gz"):
            try:
                content = gzip.decompress(content)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(
                    f"{archive}: {name} inside is damaged ({error}); delete the file and fetch again"
                ) from error
        found[match[1]] = content.decode("utf-8", "replace")
    return found


def paragraph_pairs(english: Sequence[Block], french: Sequence[Block]) -> list[tuple[str, str]]:
    """Step 1: the paragraphs of two pages that belong together."""
    if [block.key for block in english] == [block.key for block in french]:
        return [(e.text, f.text) for e, f in zip(english, french, strict=True)]
    once = [key for key, count in Counter(block.key for block in english).items() if count == 1]
    other = Counter(block.key for block in french)
    of_english, of_french = ({block.key: block.text for block in blocks} for blocks in (english, french))
    return [(of_english[key], of_french[key]) for key in once if other[key] == 1]


_SIGNS = {
    "’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "…": "...", "\u2010": "-", "\u2011": "-",
    "\u00ad": "", "\u200b": "", "\u2060": "", "\ufeff": "", "\ufffd": "",
}  # fmt: skip
_SIGN = re.compile("|".join(_SIGNS))


def even_out(text: str) -> str:
    """Step 2. French keeps its spaces before `:` and inside `« »`, as ordinary ones.

    >>> even_out("l’onglet\u00a0“Options”\u202f:")
    'l\\'onglet "Options" :'
    """
    return " ".join(_SIGN.sub(lambda match: _SIGNS[match[0]], text).split())


_ABBREVIATED = r"(?<![A-Z]\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)(?<!\bcf\.)(?<!\bex\.)(?<!\bvs\.)"
_ENDED = r"""(?:(?<=[.!?])|(?<=[.!?][)"»])|(?<=[.!?] »))"""
_SENTENCE_END = re.compile(_ABBREVIATED + _ENDED + r"""\s+(?=["«(]?\s?[A-ZÀ-ÖØ-Þ])""")


def sentence_pairs(english: str, french: str) -> list[tuple[str, str]]:
    """Step 3: two paragraphs as pairs of sentences, or as the one pair they are.

    >>> sentence_pairs("Press Tab. Then type.", "Appuyez sur Tab. Tapez ensuite.")
    [('Press Tab.', 'Appuyez sur Tab.'), ('Then type.', 'Tapez ensuite.')]
    """
    sources, targets = _SENTENCE_END.split(english), _SENTENCE_END.split(french)
    if len(sources) == len(targets) and all(map(_lengths_fit, sources, targets)):
        return list(zip(sources, targets, strict=True))
    return [(english, french)]


def _lengths_fit(english: str, french: str) -> bool:
    """French is about a fifth longer; short texts may differ more."""
    return len(french) <= 1.9 * len(english) + 15 and len(english) <= 1.4 * len(french) + 12


_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\d{2,}")
_BROKEN = re.compile(r"\.xhp\b|\$\[")  # what LibreOffice's own build left unresolved


def is_translation(english: str, french: str) -> bool:
    """Step 4.

    >>> is_translation("Press Tab 12 times.", "Appuyez 12 fois sur Tab."), is_translation("Tab", "Tab")
    (True, False)
    """
    if max(len(english), len(french)) > MAX_CHARACTERS or not _lengths_fit(english, french):
        return False
    if _BROKEN.search(english + french):
        return False
    words, translated = (_WORD.findall(text.casefold()) for text in (english, french))
    if not words or not translated or sum(map(len, words)) < 0.5 * len(english.replace(" ", "")):
        return False
    return len(set(words) & set(translated)) <= 0.6 * len(set(words)) and Counter(_NUMBER.findall(english)) == Counter(
        _NUMBER.findall(french)
    )


def without_near_copies(examples: Examples) -> Examples:
    """Held-out examples without those that differ from a training example, on either side, only in numbers, signs and
    upper or lower case; what tests is compared with what validates as well."""
    seen: set[str] = set()
    kept: Examples = {}
    for split in ("train", "validation", "test"):
        letters = [{_letters(source), _letters(target)} for source, target in examples[split]]
        kept[split] = [
            e for e, sides in zip(examples[split], letters, strict=True) if split == "train" or not sides & seen
        ]
        seen.update(*letters)
    return kept


def _letters(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))
