"""Induction scores: by loops over a model's own patterns, and on a model built to be an induction head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from heads_by_hand import TOKENIZER
from toy_letters import LETTERS
from toys import toy_model

from glassformer.inspection import edit, induction_scores
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.taps import listening


@pytest.mark.parametrize("family", ["classic", "modern"])
@torch.no_grad()
def test_scores_and_surprise_are_what_loops_give(family: str):
    model = toy_model(family)
    view = induction_scores(model, TOKENIZER, length=6, seed=3)
    assert view.tokens[:6] == view.tokens[6:] and len(set(view.tokens)) == 6
    ids = TOKENIZER.encode("".join(view.tokens))
    seen = {}
    with listening(model, "*.pattern", lambda name, x: seen.update({name: x[0]})):
        logits = model(torch.tensor([ids]))[0]
    for layer in range(2):
        pattern = seen[f"blocks.{layer}.attention.pattern"]
        for h in range(len(pattern)):
            mean = sum(float(pattern[h, t, ids[:6].index(ids[t]) + 1]) for t in range(6, 12)) / 6
            assert view.scores[layer, h] == pytest.approx(mean, abs=1e-6)
    bits = [-float(logits[t].log_softmax(0)[ids[t + 1]]) / math.log(2) for t in range(11)]
    assert view.bits[0] is None and view.bits[1:] == pytest.approx(bits, abs=1e-4)
    assert view.bits_first == pytest.approx(np.mean(bits[:5]), abs=1e-4)
    assert view.bits_second == pytest.approx(np.mean(bits[5:]), abs=1e-4)
    assert view.even == pytest.approx(np.mean([1 / n for n in range(7, 13)]))


def test_a_head_that_looks_there_and_nowhere_else_scores_one():
    """The pattern of head 2 in block 1 is put in: all of it on the token that followed last time, 20 tokens before."""

    def put(name, x):
        keys = (torch.arange(x.shape[-1]) - 19).clamp_min(0)
        return torch.nn.functional.one_hot(keys, x.shape[-1]).to(x)

    model = toy_model(block_size=41)
    with edit(model, "blocks.1.attention.pattern", put, H=2):
        view = induction_scores(model, TOKENIZER)
    assert view.length == 20  # twice as many fit
    assert view.scores[1, 2] == 1 and view.scores.argmax() == 5
    assert view.figures()[1].rows[0] == ["layer 1, head 2", 1.0]


def test_the_seed_decides_what_is_drawn():
    model = toy_model()
    one, same, other = (induction_scores(model, TOKENIZER, seed=seed) for seed in (1, 1, 2))
    assert one.tokens == same.tokens != other.tokens and one.length == 6
    np.testing.assert_array_equal(one.scores, same.scores)


def test_special_tokens_are_not_drawn_and_a_text_begins_as_it_should():
    tokenizer = TOKENIZERS["characters"]([LETTERS[:20]], specials=("<s>", "</s>"))
    model = toy_model(vocab_size=tokenizer.vocab_size, block_size=60)
    view = induction_scores(model, tokenizer, length=20)
    assert not {"<s>", "</s>"} & set(view.tokens) and len(set(view.tokens)) == 20
    started = StartsWith(tokenizer, 1)
    view = induction_scores(model, started, length=5)
    assert len(view.tokens) == 11 and view.tokens[1:6] == view.tokens[6:]
    assert view.tokens[0] == tokenizer.token_text(1)


class StartsWith:
    """A tokenizer whose texts begin with a token of their own, as Llama's do."""

    def __init__(self, tokenizer, start: int):
        self.tokenizer, self.starts_with = tokenizer, start

    def __getattr__(self, name: str):
        return getattr(self.tokenizer, name)
