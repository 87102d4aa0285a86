"""A table may have rows that no token belongs to, and a tokenizer tokens that the table has no row for: neither is
drawn, and neither is read."""

from __future__ import annotations

import math

import pytest
import tokenizers
import torch
from toys import toy_model
from translators import sources, translator

from glassformer.errors import UsageError
from glassformer.generation import Engine, Request, Sampling, beam_search, generate, next_logits, sample_answers
from glassformer.generation.filters import token_logits
from glassformer.hub.loading import as_dtype
from glassformer.inspection import next_token
from glassformer.native import library
from glassformer.processors.tokenizers import Tokenizer

IDS = {"a": 0, "b": 1, "c": 2, "d": 5, "e": 7, "f": 10}  # 3, 4, 6, 8 and 9 are left out, 11 to 18 lie beyond
MISSING, BEYOND = [3, 4, 6, 8, 9], range(11, 19)
WIDE = {"n_embd": 64, "n_head": 4, "n_kv_head": 2, "head_width": 32, "n_hidden": 96}  # which 8 bits take


def letters() -> Tokenizer:
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(IDS, unk_token="a"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    library.decoder = tokenizers.decoders.Fuse()
    return Tokenizer(library)


def padded(**changes) -> torch.nn.Module:
    """A model whose most likely ids are all no tokens."""
    model = toy_model("modern", vocab_size=19, block_size=31, tied_head=False, head_bias=True, **changes)
    with torch.no_grad():
        model.head.bias[[*MISSING, *BEYOND]] += 20
    return model


def test_the_tokenizer_knows_its_holes():
    assert letters().vocab_size == 11 and letters().missing_ids == MISSING


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1.5), Sampling(1.5, top_k=9), Sampling(1.5, top_p=0.9)])
@pytest.mark.parametrize("way", ["engine", "twin", "compiled"])
def test_they_are_never_drawn(sampling, way):
    if way == "compiled" and library() is None:
        pytest.skip("no C++ compiler here")
    model, tokenizer = padded(**WIDE), letters()
    if way == "compiled":
        model = as_dtype(model, "int8")
        assert model.native is not None
    settings = {"samples": 5, "max_new_tokens": 40, "alternatives": 19, "sampling": sampling}
    for completion in generate(model, tokenizer, "abf", use_cache=way != "twin", **settings):
        for piece in completion.pieces:
            assert piece.token in IDS.values()
            assert sorted(other.token for other in piece.alternatives) == sorted(IDS.values())
            assert sum(other.probability for other in piece.alternatives) == pytest.approx(1)


def test_a_prompt_is_scored_among_tokens_alone():
    model, tokenizer = padded(), letters()
    ids = [0, 5, 10, 7, 2]
    (event, *_) = Engine(model, tokenizer).run(Request(tuple(ids), 0, score_prompt=True))
    logits_TV = model(torch.tensor([ids]))[0]
    known = torch.tensor(sorted(IDS.values()))
    wanted = [logits_TV[t, known].softmax(-1)[known.tolist().index(ids[t + 1])].item() for t in range(4)]
    assert [piece.probability for piece in event.prompt] == pytest.approx(wanted, rel=1e-4)


def test_what_look_shows_is_what_would_be_drawn():
    model, tokenizer = padded(), letters()
    view = next_token(model, tokenizer, "abf", temperature=1.5, seed=4)
    (wanted,) = generate(model, tokenizer, "abf", max_new_tokens=1, sampling=Sampling(1.5, seed=4))
    assert view.token == wanted.pieces[0].token and view.sampling_probability[MISSING].max() == 0


@pytest.mark.parametrize("search", [beam_search, sample_answers])
def test_they_stand_in_no_answer_of_a_translator(search):
    model, missing = translator(vocab_size=17), [0, 5, 8]
    cut = translator(vocab_size=17)
    with torch.no_grad():
        cut.decoder.head.bias[[*missing, *range(11, 17)]] = -math.inf
        model.decoder.head.bias[[*missing, *range(11, 17)]] += 9
    given = sources(5, 3, 7)
    found = search(model, *given, n_tokens=11, missing=missing, max_new_tokens=9)
    assert [[h.tokens for h in best] for best in found] == [
        [h.tokens for h in best] for best in search(cut, *given, max_new_tokens=9)
    ]


@pytest.mark.parametrize("token", [11, 18, 19, -1, 3, 9])
@pytest.mark.parametrize("place", ["ids", "logit_bias"])
def test_they_are_not_read(token, place):
    engine = Engine(padded(), letters())
    fields = {"ids": (0, token, 1)} if place == "ids" else {"ids": (0, 1), "logit_bias": {token: 1.0}}
    with pytest.raises(UsageError, match=rf"token {token} .*0 to 10.* 5 ids"):
        engine.submit(Request(**fields))
    assert not engine.busy


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_token_without_a_row_is_refused_by_name(use_cache):
    """Gemma 3 is published so: one token more than its table has rows."""
    model = toy_model("modern", vocab_size=10, block_size=31)
    with pytest.raises(UsageError, match=r"token 10 \(f\) .* no vector .*leave it out"):
        generate(model, letters(), "abf", max_new_tokens=2, use_cache=use_cache)
    assert generate(model, letters(), "abe", max_new_tokens=2, use_cache=use_cache)[0].pieces


def test_nothing_is_cut_where_all_are_tokens():
    logits = torch.randn(3, 11)
    assert token_logits(logits, 11).data_ptr() == logits.data_ptr()
    assert next_logits(toy_model(), torch.tensor([[1, 2]])).shape == (1, 61)
