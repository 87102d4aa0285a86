"""Texts that cannot be trained on: each is one line that says what is wrong and what to do, and no run is left."""

from __future__ import annotations

import sys

import pytest
from command_line import TINY
from data_standins import server

from glassformer.errors import pip_line

NEEDS = "and a prediction needs 2; give more text, or data.validation_fraction=0.1"
CASES = [
    # the file's name and content, settings beyond TINY, what is printed
    ("empty.txt", b"", [], "empty.txt: empty; give a source with some text in it"),
    ("blank.jsonl", b"\n\n", [], "blank.jsonl: empty; give a source with some text in it"),
    ("binary.txt", bytes(range(256)), [], "binary.txt: binary (a NUL byte at byte 0), or UTF-16 without a byte order "
     "mark; give plain UTF-8 text"),
    ("picture.txt", b"text\n\xff\xd8\xff", [], "picture.txt: not UTF-8 at byte 5 (0xff); if it is Latin-1, run iconv "
     "-f LATIN1 -t UTF-8 picture.txt > utf8-picture.txt"),
    ("windows.txt", "text".encode("utf-16")[:-1], [], "windows.txt: damaged UTF-16-LE (truncated data); save it again "
     "as UTF-8"),
    ("packed.txt", b"PK\x03\x04rest", [], "packed.txt: a compressed file; unpack it first"),
    ("short.txt", b"hello world\nhi\n" * 2, ["model.block_size=64"], "block_size=64 is longer than the text: the train "
     "split holds 27 tokens, and a window needs block_size + 1; try block_size=13 or give more text"),
    ("play.txt", None, ["data.max_tokens=50"], f"play.txt: 0 tokens held out for validation, {NEEDS}"),
    ("plya.txt", None, [], "plya.txt: no such file, folder or corpus; did you mean play.txt?"),
    ("shakespear", None, [], "shakespear: no such file, folder or corpus; did you mean shakespeare?"),
    ("https://example.org/texts/book.txt", None, [], "https://example.org/texts/book.txt: addresses are not fetched "
     "here; run curl -LO https://example.org/texts/book.txt first, then give book.txt"),
    ("no-texts", None, [], "no-texts: no .txt, .md, .jsonl, .ndjson, .json or .smi file in this folder or below; give "
     "a folder with texts"),
    ("", None, [], "data.source='' is empty; give it a value, or leave it out"),
    ("-", None, [], "standard input: empty; pipe a text into it: cat my.txt | ..."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "settings", "line"), CASES, ids=[case[0] or "no name" for case in CASES])
def test_a_text_that_cannot_be_trained_on(refused, play, tmp_path, name, content, settings, line):
    (tmp_path / "no-texts").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code = 2 if line.startswith(("block_size", "data.source")) else 1
    refused("train", *TINY, *settings, "--data", name, code=code, line=line)


def test_too_little_to_derive_anything_from(refused, tmp_path):
    (tmp_path / "note.txt").write_text("Buy milk.\nBuy bread.\n")
    line = "note.txt: 10 tokens to train on, too few to learn from (at least 200); give more text, a few pages at "
    refused("train", "--data", "note.txt", code=1, line=line + "the least")


def test_bytes_on_standard_input(glassformer, tmp_path):
    result = glassformer("train", *TINY, "--data", "-", stdin=b"a\0b")
    assert ".txt: binary (a NUL byte at byte 1)" in result.err and "give plain UTF-8 text" in result.err
    assert (result.err.count("\n"), result.out, result.code) == (1, "", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("nothing.txt", "nothing.txt: no such file, folder or corpus; did you mean one.txt?"),
        ("one.txt", f"one.txt: 1 token held out for validation, {NEEDS}"),
    ],
)
def test_evaluation_refuses_the_same_texts(refused, finished, tmp_path, data, line):
    (tmp_path / "one.txt").write_text("S")
    refused("evaluate", finished, "--data", data, code=1, line=line)


def test_a_dataset_that_the_hub_does_not_have(refused, monkeypatch):
    """With and without a recipe: the size of a hub dataset is not known when the rest is derived from it."""
    pytest.importorskip("huggingface_hub")
    line = "owner/name: the hub has no dataset of this name; check the spelling of owner/name"
    with server(lambda path, headers: (404, {}, b"")) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        refused("train", *TINY, "--data", "owner/name", code=1, line=line)
        refused("train", "--data", "owner/name", code=1, line=line)


@pytest.mark.parametrize(
    ("missing", "settings", "line"),
    [
        ("pyarrow.parquet", ["--data", "owner/name"],
         f"reading a hub dataset needs an optional package; run: {pip_line('glassformer[hub]')}"),
        ("sentencepiece", ["tokenizer.kind=sentencepiece", "tokenizer.vocab_size=50", "--data", "play.txt"],
         f"training SentencePiece models needs an optional package; run: {pip_line('glassformer[sentencepiece]')}"),
    ],
)  # fmt: skip
def test_a_missing_extra_names_what_to_install(refused, play, monkeypatch, missing, settings, line):
    monkeypatch.setitem(sys.modules, missing, None)  # what Python itself does for a package that is not there
    refused("train", *[word for word in TINY if not word.startswith("tokenizer")], *settings, code=1, line=line)
