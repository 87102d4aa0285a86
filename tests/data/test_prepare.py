"""From text to a store: nothing is lost, nothing is done twice, and what goes wrong leaves nothing behind."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from data_standins import ByteTokenizer

import glassformer.data.prepare as room
from glassformer.data import text_pieces as pieces
from glassformer.data import tokenizer_for, vocabulary
from glassformer.data.prepare import prepare
from glassformer.errors import DataError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS

LINES = "".join(f"line {i:05d} of a text, für alle\n" for i in range(2000))


def ids(store, split: str) -> list[int]:
    view = store.split(split)
    return view.read(0, len(view)).tolist()


def test_one_document_is_cut_once_and_needs_no_mark(tmp_path):
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    store = prepare(str(tmp_path / "a.txt"), ByteTokenizer())
    train, validation = ids(store, "train"), ids(store, "validation")
    assert bytes(train + validation).decode() == LINES
    assert len(validation) / len(LINES.encode()) == pytest.approx(0.1, abs=0.001) and validation[:4] == list(b"line")
    assert (store.split("train").bytes, store.split("train").documents) == (len(train), 1)


def test_documents_end_with_a_mark_and_go_whole_to_one_side(tmp_path):
    rows = [f"document {i} " + "x" * (i % 7) for i in range(100)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": row}) + "\n" for row in rows))
    store = prepare(str(tmp_path / "a.jsonl"), ByteTokenizer(), text_field="body", validation_fraction=0.2)
    found = {name: "".join(chr(i) for i in ids(store, name)).split(chr(256))[:-1] for name in ("train", "validation")}
    assert sorted(found["train"] + found["validation"]) == sorted(rows)
    assert len(found["validation"]) == pytest.approx(20, abs=1)
    view = store.split("train")
    first = [int(start) for start in view.document_starts[:2]]
    assert first == [0, len(found["train"][0]) + 1]
    assert view.bytes == sum(len(row) for row in found["train"])  # the marks are no bytes of text


def test_many_pieces_and_threads_give_what_one_gives(tmp_path, monkeypatch):
    """Small pieces, small jobs and four threads change neither the ids nor their order."""
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    tokenizer = TOKENIZERS["bpe"]([LINES], vocab_size=300)
    plain = prepare(str(tmp_path / "a.txt"), tokenizer, out=tmp_path / "plain")
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
    monkeypatch.setattr(room, "JOB_BYTES", 1500)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    small = prepare(str(tmp_path / "a.txt"), tokenizer, out=tmp_path / "pieces")
    for split in ("train", "validation"):
        assert ids(plain, split) == ids(small, split)
    assert tokenizer.decode(ids(plain, "train") + ids(plain, "validation")) == LINES


def test_it_is_prepared_once_and_again_when_something_changed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 50)
    folders = set()
    for change in ({}, {"validation_fraction": 0.5}, {"max_tokens": 99}, {"tokenizer": ByteTokenizer(marks=False)}):
        arguments = {"tokenizer": ByteTokenizer(), **change}
        first = prepare(str(path), **arguments)
        stamp = (first.folder / "meta.json").stat().st_mtime_ns
        assert (prepare(str(path), **arguments).folder / "meta.json").stat().st_mtime_ns == stamp
        folders.add(first.folder)
    path.write_text("other text\n" * 50)
    folders.add(prepare(str(path), ByteTokenizer()).folder)
    assert len(folders) == 5


def test_a_folder_of_your_own_is_never_overwritten(tmp_path):
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="mine: is in the way"):
        prepare(str(tmp_path / "a.txt"), ByteTokenizer(), out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    prepare(str(tmp_path / "a.txt"), ByteTokenizer(), out=tmp_path / "store")
    prepare(str(tmp_path / "a.txt"), ByteTokenizer(), out=tmp_path / "store")  # the same: found
    with pytest.raises(DataError, match=r"holds a token store of .*a\.txt, prepared otherwise"):
        prepare(str(tmp_path / "a.txt"), ByteTokenizer(), out=tmp_path / "store", validation_fraction=0.3)


@pytest.mark.parametrize("limit", [1, 1234, 10**9])
def test_max_tokens_is_exact(tmp_path, limit):
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    store = prepare(str(tmp_path / "a.txt"), ByteTokenizer(), max_tokens=limit)
    assert len(store.split("train")) + len(store.split("validation")) == min(limit, len(LINES.encode()))


def test_what_fails_leaves_nothing(tmp_path):
    rows = ['{"text": "good"}\n'] * 3000 + ["bad\n"]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    with pytest.raises(DataError, match=r"a\.jsonl:3001: not JSON"):
        prepare(str(tmp_path / "a.jsonl"), ByteTokenizer(), out=tmp_path / "out" / "store")
    assert not list(tmp_path.glob("out/*"))

    class Interrupted(ByteTokenizer):
        def encode_documents(self, texts):
            if texts:
                raise KeyboardInterrupt
            return []

    with pytest.raises(KeyboardInterrupt):
        (tmp_path / "a.txt").write_text("x\n" * 3_000_000)  # large enough for the threads
        prepare(str(tmp_path / "a.txt"), Interrupted(), out=tmp_path / "out" / "store")
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_numbers_are_usage_errors(tmp_path):
    (tmp_path / "a.txt").write_text("some text\n")
    with pytest.raises(UsageError, match=r"validation_fraction=1.5 is outside 0 <= f < 1"):
        prepare(str(tmp_path / "a.txt"), ByteTokenizer(), validation_fraction=1.5)
    with pytest.raises(UsageError, match="max_tokens=0"):
        prepare(str(tmp_path / "a.txt"), ByteTokenizer(), max_tokens=0)


def test_the_store_carries_its_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text("hello world\n" * 20)
    store = prepare(str(tmp_path / "a.txt"), tokenizer_for(str(tmp_path / "a.txt"), "characters"))
    assert store.decode("train", 6, 5) == "world"


def test_subwords_are_learned_from_the_training_split_alone(tmp_path):
    (tmp_path / "a.txt").write_text("aaaa\n" * 90 + "zqzq\n" * 10)
    learned = tokenizer_for(str(tmp_path / "a.txt"), "bpe", vocab_size=300)
    assert len(learned.encode("aaaa")) < 4 and len(learned.encode("zqzq")) == 4
    characters = tokenizer_for(str(tmp_path / "a.txt"), "characters")
    assert characters.vocab_size == 4  # newline, a, q, z
    with pytest.raises(UsageError, match="neither a kind of tokenizer nor a file; did you mean characters"):
        tokenizer_for(str(tmp_path / "a.txt"), "character")


def test_learning_reads_slices_that_end_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "SLICE", 100)
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    slices = list(vocabulary.learning_texts(str(tmp_path / "a.txt"), everything=True))
    assert "".join(slices) == LINES
    assert all(100 < len(part) < 150 and part.endswith("\n") for part in slices[:-1])


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    from glassformer import progress

    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    prepare(str(tmp_path / "a.txt"), ByteTokenizer())
    assert "a.txt: 0 of 0 (100 %) MB" in capsys.readouterr().err
    prepare(str(tmp_path / "a.txt"), ByteTokenizer(), out=tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


def test_bits_per_byte_counts_utf8_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("ü\n" * 100, encoding="utf-8")
    store = prepare(str(tmp_path / "a.txt"), TOKENIZERS["characters"](["ü\n"]))
    train = store.split("train")
    assert (len(train), train.bytes) == (180, 270)
    assert np.array_equal(train.read(0, 4), [1, 0, 1, 0])


@pytest.mark.parametrize("own", [False, True])
def test_who_is_second_takes_what_another_process_has_made_meanwhile(tmp_path, monkeypatch, own):
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    how = {"out": tmp_path / "store"} if own else {}
    write, made = room._write, []

    def write_after_another(*given):
        monkeypatch.setattr(room, "_write", write)
        made.append(prepare(str(tmp_path / "a.txt"), ByteTokenizer(), **how))
        write(*given)

    monkeypatch.setattr(room, "_write", write_after_another)
    store = prepare(str(tmp_path / "a.txt"), ByteTokenizer(), **how)
    assert made and ids(store, "train") == ids(made[0], "train")
    assert not list(tmp_path.rglob("*.part"))
