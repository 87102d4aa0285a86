"""The Turkish Web Treebank: sentences whose words have their part of speech, given by linguists.

    Burun kemiğimde herhangi bir eğrilik olmadı .       NOUN NOUN DET DET NOUN VERB PUNCT

Kayadelen, Öztürel and Bohnet 2020, "A Gold Standard Dependency Treebank for Turkish" (LREC): 4,851 sentences of web
pages and Wikipedia, 66,466 words, 14 parts of speech. Turkish puts much of its grammar into the endings of words, so
many words of a new text were never seen before.

The treebank cuts a word where its part of speech changes (eğri-lik: bent, bend); the parts before the last have the
relation `ig`. Here a word is whole and has the part of speech of its last part, the one it has in the sentence.
"""

from __future__ import annotations

from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.example_splits import Example, Examples, split_by_group
from glassformer.errors import DataError

FILES = ("data/web.conllu", "data/wiki.conllu")
COLUMNS = 10  # of CoNLL-U: number, form, lemma, part of speech, ..., relation (the eighth), ...


def read_treebank(wheel: Path) -> Examples:
    """The sentences inside the package `turkish-treebanks`, each once, words and tags with spaces between; split by
    page: 10 % validate, 10 % test.

    Raises:
        DataError: a file is not in the archive, or a line of it is not CoNLL-U.
    """
    rows: dict[str, tuple[Example, str]] = {}
    for name in FILES:
        text = read_member(wheel, name).decode("utf-8", "replace")
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
        if len(columns) != COLUMNS or len(columns[1].split()) != 1 or not columns[3]:
            raise ValueError(f"{line[:60]!r} is no word with {COLUMNS} columns between tabs")
        start += columns[1]
        if columns[7] != "ig":  # the last part of a word
            words.append(start)
            tags.append(columns[3])
            start = ""
    if start or not words or not page:
        raise ValueError(f"{lines[0][:60]!r} begins a sentence without words, without sent_id, or with half a word")
    return Example(" ".join(words), " ".join(tags)), page
