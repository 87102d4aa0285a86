"""`glassformer look tokens` without a model: a kind of tokenizer by name, a file, a folder, a run."""

from __future__ import annotations

import json

import pytest
from play import PLAY

from glassformer.processors.tokenizers import build_tokenizer

TEXT = "to be, or not"


def test_a_kind_that_is_the_same_for_every_text_has_a_name(glassformer):
    shown = json.loads(glassformer("look", "tokens", TEXT, "--tokenizer", "bytes", "--json").out)
    assert (shown["kind"], shown["ids"]) == ("bytes", list(TEXT.encode()))


@pytest.mark.parametrize("place", ["folder", "folder/tokenizer.json"])
def test_a_file_or_a_folder_of_one(glassformer, tmp_path, place):
    tokenizer = build_tokenizer("bpe", [PLAY], vocab_size=300)
    tokenizer.save(tmp_path / "folder")
    shown = json.loads(glassformer("look", "tokens", TEXT, "--tokenizer", tmp_path / place, "--json").out)
    assert (shown["kind"], shown["ids"]) == ("bpe", tokenizer.encode(TEXT))


def test_a_run_of_ones_own(glassformer, finished):
    by_model = glassformer("look", "tokens", finished, TEXT, "--json")
    by_tokenizer = glassformer("look", "tokens", TEXT, "--tokenizer", finished, "--json")
    assert by_model.code == 0 and by_tokenizer.out == by_model.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([TEXT], ["--tokenizer gpt2"]),
        (["some/run", TEXT, "--tokenizer", "bytes"], ["some/run", "one of the two"]),
        ([TEXT, "--tokenizer", "characters"], ["characters", "made from a text", "gpt2"]),
        ([TEXT, "--tokenizer", "gtp2"], ["gtp2", "did you mean gpt2?"]),
    ],
)
def test_a_mistake_is_one_line_with_the_next_step(glassformer, words, shown):
    result = glassformer("look", "tokens", *words)
    assert result.code != 0 and len(result.err.splitlines()) == 1
    assert all(word in result.err for word in shown)
