"""Prompt and pieces are one text, through the engine and its twin, with stop strings, in samples and in chats."""

from __future__ import annotations

import pytest
from tokenizer_families import FAMILIES
from toys import toy_model

import glassformer as gf
from glassformer.generation import Chat, Engine, Request, Sampling
from glassformer.generation.generate import prompt_ids

PROMPT = "First Citizen"
SPACED = ("llama", "gemma", "metaspace", "bpe", "wordpiece", "ends of words", "words")


@pytest.mark.parametrize("family", SPACED)
def test_a_word_behind_a_prompt_keeps_its_space(family):
    """The engine is made to draw the next word of a text, at each place."""
    tokenizer = FAMILIES[family]()
    model = toy_model(vocab_size=tokenizer.vocab_size, block_size=47)
    ids = tokenizer.encode("First we proceed any hear me")
    text = tokenizer.decode(ids[:1])
    for n in range(1, len(ids)):
        engine = Engine(model, tokenizer, max_rows=1)
        engine.submit(Request(tuple(ids[:n]), 1, sampling=Sampling(0.0), logit_bias={ids[n]: 1000.0}))
        ((event,), *_) = iter(engine.step, [])
        assert event.piece.token == ids[n]
        text += event.piece.text
    assert text.lower() == "first we proceed any hear me"


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_streams_are_what_decoding_all_at_once_gives(family, use_cache):
    tokenizer = FAMILIES[family]()
    model = toy_model(vocab_size=tokenizer.vocab_size, block_size=29)
    samples: dict[int, list] = {0: [], 1: [], 2: []}
    for piece in gf.stream(model, tokenizer, PROMPT, max_new_tokens=17, samples=3, seed=5, use_cache=use_cache):
        samples[piece.sample].append(piece)
    before = tokenizer.text_ids(prompt_ids(tokenizer, PROMPT))
    for pieces in samples.values():
        said = [piece.token for piece in pieces if piece.finish_reason != "end_of_text"]
        assert tokenizer.decode(before) + "".join(p.text for p in pieces) == tokenizer.decode([*before, *said])


def test_a_stop_string_may_begin_with_the_space():
    """Without the space of the first word it would not be found."""
    tokenizer = FAMILIES["llama"]()
    model = toy_model(vocab_size=tokenizer.vocab_size, block_size=47)
    prompt = prompt_ids(tokenizer, PROMPT)
    word = next(token for token in prompt if tokenizer.token_text(token) == " Ci")
    engine = Engine(model, tokenizer, max_rows=1)
    request = Request(tuple(prompt), 5, sampling=Sampling(0.0), logit_bias={word: 1000.0}, stop=(" Ci",))
    engine.submit(request)
    pieces = []
    while engine.busy:
        pieces += [event.piece for event in engine.step()]
    assert pieces[-1].finish_reason == "stop"
    assert tokenizer.decode([*prompt, *(piece.token for piece in pieces)]).startswith(PROMPT + " Ci")
    assert "".join(piece.text for piece in pieces) == ""


def test_a_chat_keeps_the_answer_as_it_stands_behind_the_turns():
    tokenizer = FAMILIES["llama"]()
    model = toy_model(vocab_size=tokenizer.vocab_size, block_size=61)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"
    chat = Chat(model, tokenizer, sampling=Sampling(0.0), max_new_tokens=9)
    pieces = list(chat.ask("speak"))
    ids = tokenizer.chat.encode([{"role": "user", "content": "speak"}])
    said = [piece.token for piece in pieces if piece.finish_reason != "end_of_text"]
    answer = tokenizer.decode([*ids, *said])[len(tokenizer.decode(ids)) :]
    assert chat.messages[-1]["content"] == "".join(piece.text for piece in pieces) == answer
