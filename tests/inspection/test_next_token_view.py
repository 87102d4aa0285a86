"""The next token and surprise: every stage against torch, the reasons of the filters, and what `generate` does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_letters import TEXT, letters
from toys import shaken, toy_config, toy_model

from glassformer.errors import UsageError
from glassformer.generation import Sampling, generate
from glassformer.inspection import compare, explain, next_token, surprise
from glassformer.models import EncoderConfig, EncoderDecoderConfig, build_model
from glassformer.tasks import evaluate_loss

SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 15, "n_hidden": 23}


@pytest.fixture(params=["classic", "modern"])
def model(request):
    return toy_model(request.param)


@torch.no_grad()
def test_the_distribution_is_the_softmax_of_the_models_logits(model):
    tokenizer = letters()
    view = next_token(model, tokenizer, TEXT)
    logits = model(tokenizer.encode_batch([TEXT]))[0, -1]
    torch.testing.assert_close(torch.tensor(view.logits), logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(view.raw), logits.softmax(0), atol=1e-6, rtol=0)
    p = logits.double().softmax(0)
    assert view.entropy == pytest.approx(float(-(p * p.log2()).sum()), abs=1e-5)
    assert len(view.tokens) == 61 and view.cut_by == [""] * 61 and view.raw.sum() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_any_position_of_a_text_is_what_the_text_up_to_there_gives(model):
    tokenizer = letters()
    for position in (4, -7):
        view = next_token(model, tokenizer, TEXT, position=position)
        short = next_token(model, tokenizer, TEXT[:5])
        np.testing.assert_allclose(view.logits, short.logits, atol=1e-5)
        assert view.text == TEXT[:5]


def test_filters_cut_for_the_reason_that_they_give():
    """Five tokens with probabilities 0.4, 0.3, 0.15, 0.1, 0.05, checked by hand at each stage."""
    tokenizer, p = letters(), [0.4, 0.3, 0.15, 0.1, 0.05]
    logits = torch.tensor([math.log(x) for x in p])

    def of(**draw):
        return explain(logits, [], tokenizer, Sampling(**draw))

    assert of(top_k=2).cut_by == ["", "", "top_k", "top_k", "top_k"]
    np.testing.assert_allclose(of(top_k=2).sampling_probability, [4 / 7, 3 / 7, 0, 0, 0], atol=1e-6)
    assert of(top_p=0.8).cut_by == ["", "", "", "top_p", "top_p"]
    assert of(min_p=0.3).cut_by == ["", "", "", "min_p", "min_p"]  # 0.3 of 0.4 is 0.12
    both = of(top_k=4, top_p=0.9)  # after top-k: 0.421 0.316 0.158 0.105; the first three reach 0.895
    assert both.cut_by == ["", "", "", "", "top_k"]
    assert of(top_k=4, top_p=0.89).cut_by == ["", "", "", "top_p", "top_k"]
    zero = of(temperature=0)
    assert zero.cut_by == ["", *["temperature"] * 4] and zero.sampling_probability.tolist() == [1, 0, 0, 0, 0]
    hot = of(temperature=2)
    roots = np.sqrt(p)
    np.testing.assert_allclose(hot.tempered, roots / roots.sum(), atol=1e-6)
    np.testing.assert_allclose(hot.raw, p, atol=1e-6)


def test_the_token_that_is_drawn_is_the_one_that_generate_draws(model):
    tokenizer, drawn = letters(), set()
    for seed in range(12):
        settings = {"temperature": 1.3, "top_k": 29, "top_p": 0.95, "min_p": 0.001, "repetition_penalty": 1.1}
        view = next_token(model, tokenizer, TEXT, seed=seed, **settings)
        (piece,) = generate(model, tokenizer, TEXT, max_new_tokens=1, seed=seed, **settings)[0].pieces
        assert view.token == piece.token and view.raw[view.token] == pytest.approx(piece.probability, abs=1e-6)
        assert view.sampling_probability[view.token] == pytest.approx(piece.sampling_probability, abs=1e-6)
        low, high = view.interval
        assert low <= view.u < high and high - low == pytest.approx(view.sampling_probability[view.token], abs=1e-6)
        drawn.add(view.token)
    assert len(drawn) > 3  # else the test would say nothing about drawing


@torch.no_grad()
def test_surprise_is_minus_log2_and_its_mean_the_evaluated_loss(model):
    """In windows too: 11 tokens read 4 at a time, as `evaluate` does with block_size 4."""
    tokenizer = letters()
    ids = tokenizer.encode_batch([TEXT])
    logits = model(ids[:, :-1])[0]
    bits = F.cross_entropy(logits.double(), ids[0, 1:], reduction="none") / math.log(2)
    view = surprise(model, tokenizer, TEXT)
    assert math.isnan(view.bits[0]) and view.tokens[0] == "t"
    np.testing.assert_allclose(view.bits[1:], bits, atol=1e-5)
    assert view.loss == pytest.approx(evaluate_loss(model, [(ids[:, :-1], ids[:, 1:])]).loss, abs=1e-5)
    windows = [(ids[:, a:b], ids[:, a + 1 : b + 1]) for a, b in ((0, 4), (4, 8), (8, 10))]
    by_four = surprise(model, tokenizer, TEXT, window=4)
    assert by_four.loss == pytest.approx(evaluate_loss(model, windows).loss, abs=1e-5)
    assert by_four.loss != pytest.approx(view.loss, abs=1e-3)
    order = logits.argsort(dim=-1, descending=True)
    assert view.rank[1:] == [int((order[t] == ids[0, t + 1]).nonzero()) + 1 for t in range(10)]
    assert view.bits_per_byte == pytest.approx(float(bits.sum()) / 10)


def test_surprise_of_a_text_longer_than_the_model_reads(model):
    view = surprise(model, letters(), TEXT * 5)
    assert len(view.bits) == 55 and np.isfinite(view.bits[1:]).all() and view.window == 13


@torch.no_grad()
def test_an_encoder_decoder_is_surprised_by_its_target():
    config = EncoderDecoderConfig(encoder=EncoderConfig.make(**SHAPE), decoder=toy_config(), start_token=0, end_token=1)
    model, tokenizer = shaken(build_model(config)).eval(), letters()
    view = surprise(model, tokenizer, "abZ", target="ZA b")
    source, target = tokenizer.encode_batch(["abZ"]), tokenizer.encode_batch(["ZA b"])
    inputs = torch.cat((torch.tensor([[0]]), target[:, :-1]), dim=1)
    bits = F.cross_entropy(model(source, inputs)[0].double(), target[0], reduction="none") / math.log(2)
    np.testing.assert_allclose(view.bits[1:], bits, atol=1e-5)
    first = next_token(model, tokenizer, "abZ")
    torch.testing.assert_close(torch.tensor(first.logits), model(source, torch.tensor([[0]]))[0, -1], atol=1e-5, rtol=0)


def test_compare_lays_temperatures_and_models_side_by_side():
    tokenizer = letters()
    cold = next_token(toy_model(), tokenizer, TEXT, temperature=0.5)
    hot = next_token(toy_model(), tokenizer, TEXT, temperature=2)
    view = compare({"cold": cold, "hot": hot}, top=5)
    for row, token in zip(view.probability, view.tokens, strict=True):
        i = cold.tokens.index(token)
        assert row.tolist() == [cold.sampling_probability[i], hot.sampling_probability[i]]
    best = int(cold.raw.argmax())
    assert view.tokens[0] == cold.tokens[best] and view.entropy[0] < view.entropy[1]
    assert view.drawn == [cold.tokens[cold.token], hot.tokens[hot.token]]
    with pytest.raises(UsageError, match="nothing to compare"):
        compare({})
