"""What a folder says about generating changes our tokens as it changes those of transformers, field by field.

Greedy and by beams, with random weights: the two best logits are far apart compared with a rounding. Each field must
also change something, or it would prove nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import CASES, PAD, START
from toys import toy_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import glassformer as gf
from glassformer.generation import answer_ids
from glassformer.generation.generate import prompt_ids
from glassformer.hub import load_model
from glassformer.processors.tokenizers import TOKENIZERS

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n"
PROMPT, NEW = "All:\nSpeak to me, ", 23


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    """A folder of Llama's kind, whose model says something else after every text."""
    folder = tmp_path_factory.mktemp("decoder") / "model"
    tokenizer = TOKENIZERS["bpe"]([TEXT * 3], vocab_size=283)
    model = toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=47, tied_head=False)
    with torch.no_grad():
        model.embedding.token.weight *= 5
    gf.save(folder, model, tokenizer)
    return folder


def with_settings(folder: Path, into: Path, *, file: str = "generation_config.json", **fields: Any) -> Path:
    """A copy of a folder as people publish it: without our own words, with these fields in one of its files."""
    shutil.copytree(folder, into)
    config = json.loads((into / "config.json").read_text())
    config.pop("glassformer", None)
    if file == "config.json":
        (into / "generation_config.json").unlink()
        (into / file).write_text(json.dumps({**config, **fields}))
        return into
    (into / "config.json").write_text(json.dumps(config))
    given = {name: config.get(name) for name in ("bos_token_id", "eos_token_id", "decoder_start_token_id")}
    (into / file).write_text(json.dumps({**given, "transformers_version": "4.40.0", **fields}))
    return into


def ours(folder: Path, prompt: str = PROMPT, **settings: Any) -> list[int]:
    model, tokenizer = gf.load(folder)
    settings = {"max_new_tokens": NEW, "temperature": 0, **settings}
    return [piece.token for piece in gf.stream(model, tokenizer, prompt, **settings)]


def theirs(folder: Path, ids: list[int], **settings: Any) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    settings = {"max_new_tokens": NEW, "do_sample": False, **settings}
    return model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist()


@pytest.fixture(scope="module")
def plain(decoder) -> list[int]:
    """What is said where the folder has nothing; no token twice near the beginning."""
    text = ours(decoder)
    assert len(text) == NEW and len(set(text)) > 11
    return text


def fields(text: list[int], ids: list[int]) -> dict[str, dict[str, Any]]:
    return {
        "several ends": {"eos_token_id": [1, text[6], text[9]]},
        "one end": {"eos_token_id": text[4]},
        "a bad word": {"bad_words_ids": [[text[0]], [text[5]]]},
        "bad words of several tokens": {"bad_words_ids": [text[3:5], text[7:10], [281, 280]]},
        "a bad word that is the end": {"eos_token_id": text[4], "bad_words_ids": [[text[4]], [text[2]]]},
        "suppressed": {"suppress_tokens": [text[2], text[8]]},
        "suppressed first": {"begin_suppress_tokens": [text[0], text[4]]},
        "no token twice": {"no_repeat_ngram_size": 1},
        "no pair twice": {"no_repeat_ngram_size": 2},
        "not too short": {"eos_token_id": text[2], "min_new_tokens": 7},
        "not too short with the prompt": {"eos_token_id": text[2], "min_length": len(ids) + 5},
        "a forced end": {"forced_eos_token_id": 17},
        "repetition": {"repetition_penalty": 1.7},
        "all together": {
            "eos_token_id": [text[1], text[7]], "min_new_tokens": 5, "no_repeat_ngram_size": 2,
            "suppress_tokens": [text[3]], "bad_words_ids": [text[8:10], [text[0]]], "repetition_penalty": 1.2,
            "forced_eos_token_id": [19],
        },
    }  # fmt: skip


NAMES = list(fields(list(range(NEW)), []))


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("name", NAMES)
def test_each_field_does_what_it_does_in_transformers(name, file, decoder, plain, tmp_path):
    _, tokenizer = gf.load(decoder)
    # a pair only comes twice where something repeats itself
    text = PROMPT if name != "no pair twice" else tokenizer.decode(plain[:3]) * 3
    ids = prompt_ids(tokenizer, text)
    assert len(ids) + NEW <= 47  # beyond that transformers has no positions
    folder = with_settings(decoder, tmp_path / "m", file=file, **fields(plain, ids)[name])
    expected = theirs(folder, ids)
    assert ours(folder, text) == expected
    assert ours(folder, text, use_cache=False) == expected
    assert expected != ours(decoder, text)


def test_rows_of_a_batch_keep_their_own_rules(decoder, plain, tmp_path):
    """Drawn, so that rows say different things; alone and together they say the same."""
    folder = with_settings(decoder, tmp_path / "m", no_repeat_ngram_size=1, begin_suppress_tokens=plain[:3])
    model, tokenizer = gf.load(folder)
    together = gf.generate(model, tokenizer, PROMPT, samples=3, max_new_tokens=11, seed=7, temperature=1.3)
    for i, sample in enumerate(together):
        text = [piece.token for piece in sample.pieces]
        assert len(set(text)) == len(text) and text[0] not in plain[:3]
        (alone,) = gf.generate(model, tokenizer, PROMPT, max_new_tokens=11, seed=7 + i, temperature=1.3)
        assert [piece.token for piece in alone.pieces] == text


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_compiled_drawing_obeys_too(dtype, decoder, plain, tmp_path):
    folder = with_settings(decoder, tmp_path / "m", suppress_tokens=list(range(3, 283, 2)), eos_token_id=[2])
    try:
        model, tokenizer = gf.load(folder, dtype=dtype)
    except gf.GlassformerError as error:
        pytest.skip(str(error))
    for temperature in (0, 1.0):
        pieces = list(gf.stream(model, tokenizer, PROMPT, max_new_tokens=13, temperature=temperature, seed=1))
        assert all(piece.token % 2 == 0 or piece.token == 1 for piece in pieces)
        assert (pieces[-1].token == 2) == (pieces[-1].finish_reason == "end_of_text")


def test_probabilities_shown_are_the_models_own(decoder, plain, tmp_path):
    folder = with_settings(decoder, tmp_path / "m", suppress_tokens=[plain[0]])
    model, tokenizer = gf.load(folder)
    (piece,) = gf.stream(model, tokenizer, PROMPT, max_new_tokens=1, temperature=1.0, seed=3, alternatives=1)
    assert piece.alternatives[0].token == plain[0] != piece.token
    assert piece.sampling_probability > piece.probability


def test_rules_that_leave_no_token_are_not_applied(decoder, plain, tmp_path):
    folder = with_settings(decoder, tmp_path / "m", suppress_tokens=list(range(283)))
    assert ours(folder, max_new_tokens=3) == plain[:3]


# Answers of encoder-decoders

SOURCES = [[11, 13, 17, 19, 23, 29, 31], [37, 41, 43], [47, 53, 59, 2, 11]]
ANSWERS = {
    "one best": {"num_beams": 1},
    "pad is never said": {"num_beams": 1, "bad_words_ids": [[PAD]], "suppress_tokens": [START]},
    "a forced first token": {"num_beams": 1, "forced_bos_token_id": 23, "begin_suppress_tokens": [29]},
    "another start": {"num_beams": 1, "decoder_start_token_id": 31},
    "no pair twice": {"num_beams": 1, "no_repeat_ngram_size": 2},
    "long enough": {"num_beams": 1, "min_length": 9, "eos_token_id": [7, 11, 13]},
    "repetition": {"num_beams": 1, "repetition_penalty": 1.4},
    "beams": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    "beams that favour short answers": {"num_beams": 3, "length_penalty": -0.7, "early_stopping": True},
    "beams with rules": {
        "num_beams": 4, "length_penalty": 1.0, "early_stopping": True, "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2, "min_length": 6, "eos_token_id": [7, 11], "bad_words_ids": [[PAD], [19, 23]],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("family", ["marian", "bart", "t5"])
def test_answers_too(family, name, tmp_path):
    model = CASES[family].build()
    given = {"max_length": 13, "forced_eos_token_id": 7, "decoder_start_token_id": START, "eos_token_id": 7}
    model.generation_config = transformers.GenerationConfig(pad_token_id=PAD, **{**given, **ANSWERS[name]})
    model.save_pretrained(tmp_path)
    their = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    found = answer_ids(load_model(tmp_path), SOURCES)
    for source, answer in zip(SOURCES, found, strict=True):
        (text,) = their.generate(torch.tensor([source]), max_length=13, use_cache=False).tolist()
        ends = their.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        n = next((n for n, token in enumerate(text[1:], 1) if token in ends), len(text))
        assert list(answer.tokens) == text[1:n]
