"""The named texts: the lecture's numbers on the lecture's text, and the plays without a mark of their markdown."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from published import published

from glassformer.data import CORPORA, EXAMPLE_SETS, corpora, describe, tokenizer_for
from glassformer.data.batches import window_batch
from glassformer.data.examples import Example
from glassformer.data.prepare import prepare
from glassformer.data.shakespeare import convert_play
from glassformer.errors import DataError


def test_tiny_shakespeare_comes_with_the_package(monkeypatch, tmp_path):
    """Whatever the network is like: no socket is opened and no package client started."""
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(subprocess, "run", None)
    corpus = CORPORA["tinyshakespeare"]
    text = corpus.file().read_bytes()
    assert hashlib.sha256(text).hexdigest() == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    monkeypatch.setenv("GLASSFORMER_DATA", str(tmp_path))
    assert corpus.file().read_bytes() == text, "a folder without it is no reason to do without"
    (tmp_path / "tinyshakespeare.txt").write_bytes(text)
    assert corpus.file() == tmp_path / "tinyshakespeare.txt"


def test_the_lectures_numbers():
    tokenizer = tokenizer_for("tinyshakespeare")
    store = prepare("tinyshakespeare", tokenizer)
    info = describe("tinyshakespeare")
    assert (info.characters, info.documents, info.license) == (1_115_394, 1, "public domain")
    assert info.first.startswith("First Citizen:\nBefore we proceed")
    train, validation = store.split("train"), store.split("validation")
    assert (tokenizer.vocab_size, len(train), len(validation)) == (65, 1_003_854, 111_540)
    assert train.read(0, 9).tolist() == [18, 47, 56, 57, 58, 1, 15, 47, 58]
    torch.manual_seed(1337)
    starts = torch.randint(len(train) - 8, (4,)).numpy()
    inputs, targets = window_batch(train, starts, 8)
    assert inputs[0, :4].tolist() == [24, 43, 58, 5]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_a_wrong_file_in_the_data_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tinyshakespeare.txt").write_text("not Shakespeare")
    monkeypatch.setenv("GLASSFORMER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"tinyshakespeare\.txt: the SHA-256 is \w{64} where 86c4\w{60} was expected"):
        CORPORA["tinyshakespeare"].file()


PLAY = r"""# The Play

## ACT I

### SCENE I. A room, with a table.
and two chairs.

_Enter Nurse
and others_

**Nurse**
_\[Aside]_
Good night,
and _\[sweet,]_
good night.\--

_Exit_

Once more.

BISHOP

**OF WINCHESTER & First Lord**
_\[Within]_
Who?  —I?

*Alarum.*
"""


def test_a_play_becomes_names_and_speeches():
    assert convert_play(PLAY) == (
        "NURSE:\nGood night,\nand sweet, good night.--\nOnce more.\n\n"
        "BISHOP OF WINCHESTER AND FIRST LORD:\nWho?  --I?\n"
    )


@pytest.fixture(scope="module")
def plays(tmp_path_factory):
    with published(tmp_path_factory):
        return CORPORA["shakespeare"].texts(quiet=True)


def test_all_plays_arrive_without_markup(plays):
    assert len(plays) == 38
    assert sum(map(len, plays)) == CORPORA["shakespeare"].bytes
    assert not set("".join(plays)) & set("_*\\[]#<>—$\r")


def test_every_speech_has_an_upper_case_name_and_a_line(plays):
    for play in plays:
        for speech in play.rstrip("\n").split("\n\n"):
            name, *lines = speech.split("\n")
            assert re.fullmatch(r"[A-Z][A-Z' -]+:", name) and lines and all(lines), speech[:80]


def test_the_plays_hold_the_lines_of_tiny_shakespeare(plays):
    """Both come from one edition: of 23,874 different lines 26 differ, all of them mended or re-spaced ones."""
    lines = {line for play in plays for line in play.split("\n")}
    text = CORPORA["tinyshakespeare"].texts()[0]
    missing = {line.strip() for line in text.split("\n") if not line.endswith(":")} - lines - {""}
    assert len(missing) <= 26, sorted(missing)


@pytest.mark.parametrize(
    ("name", "documents", "first"),
    [("wikipedia-sample", 30, "Anarchism is a political philosophy"), ("web-sample", 300, "Don")],
)
def test_samples_out_of_a_package(name, documents, first, tmp_path_factory):
    with published(tmp_path_factory):
        texts = CORPORA[name].texts(quiet=True)
    assert len(texts) == documents and texts[0].startswith(first)
    assert sum(len(text.encode()) for text in texts) == CORPORA[name].bytes
    assert name in CORPORA["english-mix"].parts


def test_molecules_out_of_a_package(tmp_path_factory):
    with published(tmp_path_factory):
        molecules = CORPORA["moses"].texts(quiet=True)
    assert (
        len(molecules) == len(set(molecules)) == 1_584_663 and molecules[0] == "CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1"
    )
    assert sum(map(len, molecules)) == CORPORA["moses"].bytes and set(map(type, molecules[:9])) == {str}


def test_a_corpus_of_parts_is_their_texts_one_after_the_other(monkeypatch):
    plays = dataclasses.replace(CORPORA["shakespeare"], name="plays", documents=lambda path: ["one play", "another"])
    monkeypatch.setattr(corpora, "fetch", lambda source, quiet: Path("unused"))
    reviews = dataclasses.replace(
        EXAMPLE_SETS["reviews"],
        packages=(),
        read=lambda files: {
            "train": [Example("good", "positive")],
            "validation": [Example("bad", "negative")],
            "test": [],
        },
    )
    monkeypatch.setitem(CORPORA, "plays", plays)
    monkeypatch.setitem(EXAMPLE_SETS, "reviews", reviews)
    both = dataclasses.replace(CORPORA["reviews-and-plays"], parts=("plays", "reviews"))
    assert both.texts(quiet=True) == ["one play", "another", "good", "bad"]
    assert both.origin == "made of plays and reviews"
    with pytest.raises(DataError, match="reviews-and-plays is made of plays and reviews; get each of them"):
        both.file()
    changed = dataclasses.replace(plays, version=plays.version + 1)
    before = both.identity()
    monkeypatch.setitem(CORPORA, "plays", changed)
    assert both.identity() != before
    assert CORPORA["shakespeare"].identity().split()[0] == "shakespeare"
