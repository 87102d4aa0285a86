"""Human judgements of words, to evaluate word vectors: similarity of pairs, and analogies.

    wordsim-353   353 pairs, 0 to 10: related in any way (coffee, cup: 6.58)    Finkelstein et al. 2002
    simlex-999    999 pairs, 0 to 10: alike in kind (coffee, cup would be low)  Hill et al. 2015
    analogies     19,544 questions in 14 sections: Athens Greece Oslo Norway    Mikolov et al. 2013, arXiv:1301.3781

All three travel in the source archive of the package `gensim`, among the data of its tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from glassformer.archives import read_members
from glassformer.errors import DataError
from glassformer.fetch import PackageSource, fetch

SOURCE = PackageSource(
    "gensim",
    "4.4.0",
    "a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
    license="LGPL-2.1 (the package); the word lists belong to their authors",
    sdist=True,  # its wheels are one for each Python and system, and each has another hash
)
FILES = {"wordsim-353": "wordsim353.tsv", "simlex-999": "simlex999.txt", "analogies": "questions-words.txt"}


class Likeness(NamedTuple):
    """Two words and their similarity, as rated by people."""

    first: str
    second: str
    score: float


class Question(NamedTuple):
    """`a` is to `b` as `c` is to `d`."""

    a: str
    b: str
    c: str
    d: str


class WordTests(NamedTuple):
    """likeness: pairs by the name of their collection. analogies: questions by section; those whose name begins with
    `gram` ask for forms of words, the others for what is meant."""

    likeness: dict[str, list[Likeness]]
    analogies: dict[str, list[Question]]


def load_word_tests(*, quiet: bool = False) -> WordTests:
    """Fetch the archive (23 MB, once) and read them out of it.

    Raises:
        DataError: it cannot be fetched, or has unexpected content.
    """
    return read_word_tests(fetch(SOURCE, quiet=quiet))


def read_word_tests(archive: Path) -> WordTests:
    """The three files inside an archive of gensim.

    Raises:
        DataError: one is missing, or a line is not what it should be.
    """
    wanted = {f"/test_data/{file}": name for name, file in FILES.items()}
    texts = {
        wanted[ending]: content.decode("utf-8", "replace")
        for path, content in read_members(archive, lambda path: path.endswith(tuple(wanted)))
        for ending in wanted
        if path.endswith(ending)
    }
    if missing := [FILES[name] for name in FILES if name not in texts]:
        raise DataError(f"{archive}: has no test_data/{missing[0]} inside")
    try:
        likeness = {name: _likeness(texts[name]) for name in FILES if name != "analogies"}
        return WordTests(likeness, _analogies(texts["analogies"]))
    except (TypeError, ValueError) as error:
        raise DataError(f"{archive}: a list of words inside is not of the form that is read here ({error})") from error


def _likeness(text: str) -> list[Likeness]:
    rows = [line.split("\t") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [Likeness(first, second, float(score)) for first, second, score in rows]


def _analogies(text: str) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith(":"):
            section = line[1:].strip()
        elif line.strip():
            found.setdefault(section, []).append(Question(*line.split()))
    return found
