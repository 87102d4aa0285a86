"""An endless text: more of the same, in memory that does not grow, across what ends a text."""

from __future__ import annotations

from itertools import islice

import pytest
from tokenizer_families import FAMILIES
from toys import toy_model

import glassformer as gf
from glassformer.errors import UsageError
from glassformer.generation import Engine, Request, Sampling
from glassformer.generation.requests import ENDLESS


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
    """The token that is the likeliest at once is made the end of text: it comes again and again."""
    tokenizer = FAMILIES["bpe"]()
    model = toy_model(vocab_size=tokenizer.vocab_size)
    (first,) = gf.stream(model, tokenizer, "speak", max_new_tokens=1, temperature=0)
    tokenizer.further_ends = frozenset({first.token})
    assert next(iter(gf.stream(model, tokenizer, "speak", temperature=0))).finish_reason == "end_of_text"
    pieces = list(islice(gf.stream(model, tokenizer, "speak", temperature=0, endless=True), 20))
    assert pieces[0].token == first.token and pieces[0].text == "\n\n"
    assert {piece.finish_reason for piece in pieces} == {None}


def test_it_is_a_stream_and_has_no_length():
    tokenizer = FAMILIES["characters"]()
    model = toy_model(vocab_size=tokenizer.vocab_size)
    with pytest.raises(UsageError, match="max_new_tokens=5"):
        gf.stream(model, tokenizer, "speak", endless=True, max_new_tokens=5)
    with pytest.raises(UsageError, match="use stream"):
        gf.generate(model, tokenizer, "speak", endless=True)
