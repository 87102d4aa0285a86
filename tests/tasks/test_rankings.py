"""Rankings: what a choice writes, what is taken back, and how another sitting continues."""

import io
import json
import os
import sys

import pytest
import torch
from killed_runs import die, killed

from glassformer.cli import main
from glassformer.data.chat_sets import load_chats
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, UsageError
from glassformer.hub import save
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import DPO
from glassformer.tasks.rankings import Rankings


def user(text):
    return [{"role": "user", "content": text}]


def said(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def rows():
    return [chat_row({"prompt": user(f"question {i}")}, f"p:{i}") for i in range(5)]


def test_a_choice_makes_a_pair_with_each_other_answer(rows, tmp_path):
    rankings = Rankings(rows, tmp_path / "a.jsonl")
    rankings.pick(["a", "b", "c"], 1)
    pairs = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert pairs == [{"prompt": user("question 0"), "chosen": said("b"), "rejected": said(x)} for x in ("a", "c")]


def test_skip_undo_and_another_sitting(rows, tmp_path):
    out = tmp_path / "a.jsonl"
    first = Rankings(rows, out)
    for answers, best in ((["a", "b"], 0), (["a", "b"], None), (["c", "d", "e"], 2)):
        first.pick(answers, best)
    before = out.read_text()
    first.pick(["f", "g"], 0)
    assert first.undo() and out.read_text() == before and first.place == 3
    second = Rankings(rows, out)
    assert (second.place, second.row.prompt) == (3, user("question 3"))
    assert second.undo() and second.place == 2 and len(out.read_text().splitlines()) == 1
    second.pick(["c", "d"], 1)
    assert second.undo() and second.undo() and not out.read_text() and second.place == 0
    assert not second.undo()


def keys_until_killed(words, keys):
    """`glassformer rank` in a process that is killed while it writes the choice of the last key."""

    class Keyboard(io.StringIO):
        def readline(self):
            line = super().readline()
            if self.tell() == len(self.getvalue()):
                os.replace = die
            return line

    sys.stdin, sys.argv = Keyboard(keys), ["glassformer", *words]
    main()


def test_a_kill_keeps_every_choice_before_it(tmp_path, glassformer):
    tokenizer = build_tokenizer("bpe", ["what is it"] * 9, vocab_size=270)
    torch.manual_seed(1)
    fields = {"vocab_size": tokenizer.vocab_size, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}
    save(tmp_path / "model", Decoder(ModelConfig.make(**fields)), tokenizer)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"what {i}"}) + "\n" for i in range(5)))
    words = ["rank", "model", "p.jsonl", "-n", "4", "--answers", "3", "--device", "cpu", "--out"]
    assert glassformer(*words, "whole.jsonl", stdin=b"1\n2\n3\n1\n2\n").code == 0
    killed(keys_until_killed, [*words, "cut.jsonl"], "1\n2\n3\n")
    whole, cut = (tmp_path / f"{name}.jsonl" for name in ("whole", "cut"))
    assert cut.read_text().splitlines() == whole.read_text().splitlines()[:4]
    assert glassformer(*words, "cut.jsonl", stdin=b"3\n1\n2\n").code == 0
    assert cut.read_bytes() == whole.read_bytes() and not [*tmp_path.glob(".cut*")]


def test_equal_prompts_are_asked_one_after_the_other(tmp_path):
    rows = [chat_row({"prompt": "same"}, "p:1"), chat_row({"prompt": "other"}, "p:2")]
    rankings = Rankings(rows, tmp_path / "a.jsonl")
    rankings.pick(["a", "b"], 0)
    rankings.pick(["a", "b"], 1)
    assert rankings.row is None and Rankings(rows, tmp_path / "a.jsonl").row is None


def test_the_pairs_are_preferences(rows, tmp_path):
    rankings = Rankings(rows, tmp_path / "a.jsonl")
    for _ in rows:
        rankings.pick(["good", "bad"], 0)
    read = load_chats(tmp_path / "a.jsonl")
    DPO.check_rows(read)
    assert {row.answers[0][0]["content"] for split in read.values() for row in split} == {"good"}


def test_of_a_chat_with_answers_the_last_is_asked_again(tmp_path):
    turns = [*user("one"), *said("two"), *user("three"), *said("four")]
    (row,) = Rankings([chat_row({"messages": turns}, "p:1")], tmp_path / "a.jsonl").rows
    assert row.prompt == turns[:3]


def test_a_file_of_something_else_is_not_written_over(rows, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1"):
        Rankings(rows, tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="jsonl"):
        Rankings(rows, tmp_path / "a.txt")
