"""Suites of questions: your own files, and those that are known by name.

    sentiment               Review: ...\\nSentiment:              negative, or positive
    translation             English: Font color\\nFrench:         Couleur de police
    spelling                Word: cat\\nLetters:                  c a t
    reversed-words          Letters: tac\\nWord:                  cat
    cycled-letters          Letters: tca\\nWord:                  cat
    sums                    583+274=                             857
    sums-scratchpad         583+274=                             857, after every carry in writing

Translation and words are as in Brown et al. 2020 (https://arxiv.org/abs/2005.14165, figure 2.1, section 3.9.2), sums as
in its section 3.9.1 and, with a scratchpad, as in Nye et al. 2021 (https://arxiv.org/abs/2112.00114).
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from glassformer.data.addition import steps_of_sum
from glassformer.data.example_sets import EXAMPLE_SETS
from glassformer.data.json_lines import JSON_SUFFIXES, json_rows
from glassformer.data.questions import TRAIN, Question, question
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.scratchpad import CLOSE, OPEN

LONGEST_REVIEW = 200
"""Characters of a review in the suite `sentiment`."""
MOST_WORDS = 4
"""Of an English phrase in the suite `translation`."""
FREQUENT, WORD_LENGTHS = 10_000, (4, 14)
"""Words are the most frequent ones of so many letters, as in Brown et al. 2020."""
QUESTIONS = 200
"""Words and phrases of a split `test`, and sums of each number of digits; as many are examples."""
SUM_DIGITS = (1, 2, 3, 4)
_SEED = 17


def load_suite(name: str | os.PathLike[str], *, quiet: bool = False) -> list[Question]:
    """The questions of a file, or of a named suite (`SUITES`).

    Raises:
        UsageError: there is no such file or suite.
        DataError: a row is no question; its place and what is wrong are named.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() in JSON_SUFFIXES:
        questions = [question(row, place) for place, _, row in json_rows(path)]
        if not questions:
            raise DataError(f"{path}: no questions; give one JSON object a line")
        return questions
    if str(name) in SUITES:
        return SUITES[str(name)](quiet)
    if path.exists():
        raise UsageError(f"{path} is no suite: give a .jsonl file, one question a line")
    raise UsageError(f"there is no suite {str(name)!r}, and no such file; {did_you_mean(str(name), SUITES)}")


def sentiment(quiet: bool = False) -> list[Question]:
    """Short film reviews (most from Rotten Tomatoes): negative or positive? As many of each in every split."""
    found: list[Question] = []
    for split, rows in EXAMPLE_SETS["reviews"].load(quiet=quiet).items():
        short = [row for row in rows if len(row.source) <= LONGEST_REVIEW and "\n" not in row.source.strip()]
        by_label = [[row.source.strip() for row in short if row.target == label] for label in SENTIMENTS]
        for texts in zip(*by_label, strict=False):
            for right, text in enumerate(texts):
                prompt = f"Review: {text}\nSentiment:"
                found.append(Question(prompt, (SENTIMENTS[right],), SENTIMENTS, right, split, f"review {len(found)}"))
    return found


def translation(quiet: bool = False) -> list[Question]:
    """Short English phrases of software manuals, and their French."""
    found: list[Question] = []
    for split in (TRAIN, "test"):
        translations: dict[str, list[str]] = {}
        for english, french in EXAMPLE_SETS["en-fr"].load(quiet=quiet)[split]:
            if _PHRASE.fullmatch(english) and _PHRASE.fullmatch(french) and len(english.split()) <= MOST_WORDS:
                translations.setdefault(english, []).append(french)
        for english, answers in translations.items():
            place = f"phrase {len(found)}"
            found.append(Question(f"English: {english}\nFrench:", tuple(answers), split=split, place=place))
    return found


_PHRASE = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")  # words, and no signs


def words(ask: Callable[[str, random.Random], tuple[str, str]], quiet: bool = False) -> list[Question]:
    """Frequent words of film reviews, each asked about by `ask(word, random)`, which gives the prompt and the answer;
    each is an example or a question, never both."""
    counts = Counter[str]()
    for text, _ in EXAMPLE_SETS["reviews"].load(quiet=quiet)[TRAIN]:
        counts.update(word for word in _WORD.findall(text) if WORD_LENGTHS[0] <= len(word) <= WORD_LENGTHS[1])
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:FREQUENT]
    draw, found = random.Random(_SEED), []
    for n, word in enumerate(draw.sample(frequent, min(2 * QUESTIONS, len(frequent)))):
        prompt, answer = ask(word, draw)
        found.append(Question(prompt, (answer,), split=("test", TRAIN)[n % 2], place=word))
    return found


_WORD = re.compile(r"\b[a-z]+\b")


def spelled(word: str, draw: random.Random) -> tuple[str, str]:
    """
    >>> spelled("cat", random.Random(0))
    ('Word: cat\\nLetters:', 'c a t')
    """
    return f"Word: {word}\nLetters:", " ".join(word)


def reversed_word(word: str, draw: random.Random) -> tuple[str, str]:
    """
    >>> reversed_word("cat", random.Random(0))
    ('Letters: tac\\nWord:', 'cat')
    """
    return f"Letters: {word[::-1]}\nWord:", word


def cycled(word: str, draw: random.Random) -> tuple[str, str]:
    """Letters from some place on, then those before it."""
    place = draw.randrange(1, len(word))
    return f"Letters: {word[place:] + word[:place]}\nWord:", word


def sums(quiet: bool = False, *, scratchpad: bool) -> list[Question]:
    """Sums of two numbers of 1 to 4 digits, grouped by that; no sum comes twice.

    scratchpad: examples show every carry in writing before the answer.
    """
    draw, known, found = random.Random(_SEED), set[tuple[int, int]](), list[Question]()
    for digits, split in _places():
        low = 10 ** (digits - 1) if digits > 1 else 0
        while (pair := (draw.randrange(low, 10**digits), draw.randrange(low, 10**digits))) in known:
            pass
        known.add(pair)
        answer = str(sum(pair))
        written = f"{OPEN}{steps_of_sum(*pair)}{CLOSE}{answer}" if scratchpad else None
        prompt, group = "{}+{}=".format(*pair), f"{digits} digit{'s' if digits > 1 else ''}"
        found.append(Question(prompt, (answer,), split=split, place=prompt, group=group, worked=written))
    return found


def _places() -> Iterator[tuple[int, str]]:
    """(digits, split) of every sum; of one digit there are 100."""
    for digits in SUM_DIGITS:
        for split in ("test", TRAIN):
            yield from [(digits, split)] * (QUESTIONS if digits > 1 else 50)


SENTIMENTS = ("negative", "positive")
SUITES: dict[str, Callable[[bool], list[Question]]] = {
    "sentiment": sentiment,
    "translation": translation,
    "spelling": partial(words, spelled),
    "reversed-words": partial(words, reversed_word),
    "cycled-letters": partial(words, cycled),
    "sums": partial(sums, scratchpad=False),
    "sums-scratchpad": partial(sums, scratchpad=True),
}
"""Suites that are known by name."""
