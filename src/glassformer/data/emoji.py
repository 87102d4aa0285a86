"""Emoji as pictures with category, names and keywords: 1,911 emoji and their skin tones, 3,786 pictures of 32 x 32.

    Emoji(pixels, "People & Body", "waving hand sign", ("wave",), ("medium skin tone",), ("hello", "gesture", ...))

The pictures are Google's Noto emoji out of an npm package, which has them on one sheet; the keywords are those of
another. Emoji that differ in skin tone, gender or direction alone are of one group, and a split tears no group.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from glassformer.archives import read_member
from glassformer.data.example_splits import split_strata
from glassformer.errors import DataError, one_line
from glassformer.fetch import PackageSource, fetch

SIZE = 32
"""Height and width of a picture in pixels."""
VALIDATION, TEST = 0.1, 0.2
"""The parts of each category that validate and test."""

PICTURES = PackageSource(
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    license="MIT (the package); Apache-2.0 (Noto emoji, the pictures)",
    client="npm",
)
KEYWORDS = PackageSource(
    "emojilib",
    "4.0.3",
    "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
    license="MIT",
    client="npm",
)

_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}


class Emoji(NamedTuple):
    """A picture and what is known of it.

    Attributes:
        pixels: (32, 32, 3) uint8; transparent pixels are white.
        category: one of ten, such as "Food & Drink". subcategory: one of about a hundred, such as "food-fruit".
        name: as Unicode has it, in lower case. short_names: as chats write it between colons.
        skin_tones: of each person in it; () for the emoji itself.
        keywords: what people search it by; () where none are known, or none were asked for.
        code: its code points. group: the same for emoji that differ in skin tone, gender or direction alone.
    """

    pixels: Any
    category: str
    subcategory: str
    name: str
    short_names: tuple[str, ...]
    skin_tones: tuple[str, ...]
    keywords: tuple[str, ...]
    code: str
    group: str

    @property
    def text(self) -> str:
        """The characters."""
        return _characters(self.code)


def load_emoji(*, fold: int = 0, quiet: bool = False) -> dict[str, list[Emoji]]:
    """Emoji by split, with keywords: the same split as `load_images("emoji", fold=fold)`.

    Raises:
        DataError: a package cannot be fetched, or has other content than expected.
        MissingExtraError: without Pillow.
    """
    pictures, keywords = fetch(PICTURES, quiet=quiet), fetch(KEYWORDS, quiet=quiet)
    rows = [(emoji, emoji.group, emoji.category) for emoji in read_emoji(pictures, keywords)]
    return split_strata(rows, validation=VALIDATION, test=TEST, start=fold * TEST)


def read_emoji(pictures: Path, keywords: Path | None = None) -> list[Emoji]:
    """The emoji of the package; keywords if the archive that has them is given too. Raises as `load_emoji`."""
    try:
        entries = json.loads(read_member(pictures, "package/emoji.json"))
        words = json.loads(read_member(keywords, "package/dist/emoji-en-US.json")) if keywords else {}
        sheet = _sheet(read_member(pictures, "package/img/google/sheets/32.png"), entries)
        return [emoji for entry in entries for emoji in _variants(entry, sheet, words)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{pictures}: emoji of another form than expected ({one_line(error)})") from None


def _sheet(png: bytes, entries: list[dict[str, Any]]) -> Any:
    """The pictures in rows and columns, laid on white: (rows, columns, 32, 32, 3). Each has a border of one pixel."""
    import numpy as np  # `glassformer data list` reads this file and needs no numpy

    from glassformer.processors.image import ImageProcessor

    n, cell = 1 + max(place["sheet_x"] for entry in entries for place, _ in _places(entry)), SIZE + 2
    whole = ImageProcessor(size=(n * cell, n * cell), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0, background=255)
    pixels_HWC = whole.encode(png).transpose(1, 2, 0).astype(np.uint8)
    return pixels_HWC.reshape(n, cell, n, cell, 3).swapaxes(1, 2)[:, :, 1:-1, 1:-1]


def _places(entry: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """An emoji, then each of its variants with the code points of the skin tones."""
    yield entry, ""
    for tones, variant in entry.get("skin_variations", {}).items():
        yield variant, tones


def _variants(entry: dict[str, Any], sheet: Any, words: dict[str, list[str]]) -> Iterator[Emoji]:
    code = entry["unified"]
    neither = re.sub("-200D-(2640|2642|27A1)(-FE0F)?", "", code)  # without the signs of gender and direction
    group = re.sub("1F46[89]", "1F9D1", neither)  # man, woman: person
    for place, tones in _places(entry):
        yield Emoji(
            pixels=sheet[place["sheet_y"], place["sheet_x"]],
            category=entry["category"],
            subcategory=entry["subcategory"],
            name=entry["name"].lower(),
            short_names=tuple(entry["short_names"]),
            skin_tones=tuple(_TONES[tone] for tone in tones.split("-") if tone),
            keywords=tuple(words.get(_characters(code), ())),
            code=place["unified"],
            group=group,
        )


def _characters(code: str) -> str:
    return "".join(chr(int(point, 16)) for point in code.split("-"))
