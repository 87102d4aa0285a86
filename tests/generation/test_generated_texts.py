"""Texts: prompt and pieces are one text, stop strings end it, an endless one continues in constant memory."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizer_families import FAMILIES
from toys import toy_model

import glassformer as gf
from glassformer.errors import UsageError
from glassformer.generation import Chat, Engine, Request, Sampling, StopStrings
from glassformer.generation.generate import prompt_ids
from glassformer.generation.requests import ENDLESS

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
        written = [piece.token for piece in pieces if piece.finish_reason != "end_of_text"]
        assert tokenizer.decode(before) + "".join(p.text for p in pieces) == tokenizer.decode([*before, *written])


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
    written = [piece.token for piece in pieces if piece.finish_reason != "end_of_text"]
    answer = tokenizer.decode([*ids, *written])[len(tokenizer.decode(ids)) :]
    assert chat.messages[-1]["content"] == "".join(piece.text for piece in pieces) == answer


# ---- stop strings


def pushed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopStrings(stops)
    text = "".join([stop.push(piece) for piece in pieces] + [stop.finish()])
    return text, stop.found


def by_looking_at_the_whole(text: str, stops: list[str]) -> tuple[str, bool]:
    """The readable twin: read on until the text ends with a stop string; the longest, if with several."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if hits:
            return text[: end - max(map(len, hits))], True
    return text, False


SHORT = st.text(alphabet="ab", max_size=3)


@given(pieces=st.lists(SHORT, max_size=8), stops=st.lists(st.text(alphabet="ab", max_size=4), max_size=3))
@example(pieces=["abcd"], stops=["abcd", "bc"])  # bc is complete first
@example(pieces=["aab"], stops=["b", "ab", "aab"])  # all at once: the longest
@example(pieces=["aa", "ab"], stops=["aab"])  # a false start inside
def test_where_the_pieces_are_cut_does_not_matter(pieces: list[str], stops: list[str]):
    whole = by_looking_at_the_whole("".join(pieces), stops)
    assert pushed(pieces, stops) == whole
    assert pushed(["".join(pieces)], stops) == whole
    assert pushed(list("".join(pieces)), stops) == whole


def test_text_is_shown_as_soon_as_no_stop_string_can_begin_in_it():
    stop = StopStrings(["\n\nUser:", "END"])
    shown = [stop.push(piece) for piece in ("Well", "\n", "\nUs", "ury", " E", "NT", "\n\nUser", ":", "x")]
    assert shown == ["Well", "", "", "\n\nUsury", " ", "ENT", "", "", ""]
    assert stop.found and stop.finish() == ""


# ---- endless texts


@pytest.mark.parametrize("window", ["half", "exact"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_it_begins_as_a_text_with_an_end(window, use_cache):
    tokenizer = FAMILIES["characters"]()
    model = toy_model(vocab_size=tokenizer.vocab_size)
    settings = {"seed": 3, "window": window, "use_cache": use_cache}
    ended = [p.token for p in gf.stream(model, tokenizer, "speak", max_new_tokens=67, **settings)]
    assert [p.token for p in islice(gf.stream(model, tokenizer, "speak", endless=True, **settings), 67)] == ended


def test_its_memory_does_not_grow():
    tokenizer = FAMILIES["characters"]()
    engine = Engine(toy_model(vocab_size=tokenizer.vocab_size), tokenizer, max_rows=1)
    engine.submit(Request((1, 2, 3), ENDLESS, sampling=Sampling(seed=1), end_tokens=frozenset()))
    longest = 0
    for _ in range(200):
        engine.step()
        longest = max(longest, len(engine.active[0].ids))
    assert longest <= 13 + 1  # the context, and the token that is one too many


def test_what_ends_a_text_begins_the_next_one():
    """The token that is the most likely at once is made the end of text: it comes again and again."""
    tokenizer = FAMILIES["bpe"]()
    model = toy_model(vocab_size=tokenizer.vocab_size)
    (first,) = gf.stream(model, tokenizer, "speak", max_new_tokens=1, temperature=0)
    tokenizer.further_ends = frozenset({first.token})
    with pytest.raises(UsageError, match="use stream"):
        gf.generate(model, tokenizer, "speak", endless=True)
    assert next(iter(gf.stream(model, tokenizer, "speak", temperature=0))).finish_reason == "end_of_text"
    pieces = list(islice(gf.stream(model, tokenizer, "speak", temperature=0, endless=True), 20))
    assert pieces[0].token == first.token and pieces[0].text == "\n\n"
    assert {piece.finish_reason for piece in pieces} == {None}
