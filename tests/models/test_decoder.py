"""The decoder in both families: initialisation, dropout, shapes. Causality and caching: test_planted_bugs.py."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from toys import toy_config, toy_ids, toy_model

from glassformer.errors import UsageError
from glassformer.models import Decoder
from glassformer.taps import listening

FAMILY = pytest.mark.parametrize("family", ["classic", "modern"])
N_GRAM = pytest.mark.parametrize("n_gram", [1, 4])


@FAMILY
@N_GRAM
@torch.no_grad()
def test_rows_of_a_batch_know_nothing_of_each_other(family: str, n_gram: int):
    model, ids = toy_model(family, n_gram=n_gram, n_gram_rows=5000), toy_ids(3, 7)
    alone = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(model(ids), alone, rtol=1e-4, atol=1e-4)


def first_query(**changes: object) -> torch.Tensor:
    """What the first layer looks for, turned by its positions."""
    heard, model = {}, toy_model("modern", **changes)
    with torch.no_grad(), listening(model, "blocks.0.attention.query", lambda name, x: heard.update({name: x})):
        model(toy_ids(2, 7))
    return heard["blocks.0.attention.query"]


def test_windows_may_turn_by_a_base_of_their_own():
    """And unscaled; a layer that sees all turns as if there were no windows."""
    scaled = {"rotary_base": 50.0, "rotary_scaling": {"rope_type": "linear", "factor": 2.0}}
    both = {**scaled, "rotary_base_local": 7.0}
    in_window, far = first_query(rotary_base=7.0), first_query(**scaled)
    assert (in_window - far).abs().max() > 0.1
    assert torch.equal(first_query(**both, patterns=("window(3)", "causal")), in_window)
    assert torch.equal(first_query(**both, patterns=("causal", "window(3)")), far)
    assert torch.equal(first_query(**both), far)
    assert torch.equal(first_query(**scaled, patterns=("window(3)", "causal")), far)  # without one, all are alike


@FAMILY
def test_every_parameter_is_used(family: str):
    """A gradient reaches each of them, so none was built and forgotten."""
    model = toy_model(family, tied_head=False, n_gram=3, n_gram_rows=11)
    model(toy_ids(2, 13)).logsumexp(dim=-1).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@FAMILY
def test_too_many_tokens_are_refused(family: str):
    model = toy_model(family)
    message = r"^14 tokens do not fit into block_size=13; shorten the text or let generation slide its window$"
    with pytest.raises(UsageError, match=message):
        model(toy_ids(1, 14))
    cache = model.new_cache()
    model(toy_ids(1, 10), cache=cache)
    with pytest.raises(UsageError, match=message):
        model(toy_ids(1, 4), cache=cache)
    assert len(cache) == 10


@FAMILY
def test_initialisation_is_gpt2s(family: str):
    """Deviation 0.02, and 0.02 / sqrt(2 * 3 layers) for what writes into the residual stream; mean 0.

    The deviation of n draws is off by more than 6 / sqrt(2 n) of itself once in 5e8, for each of some 20 matrices.
    """
    torch.manual_seed(0)
    model = Decoder(toy_config(family, n_layer=3, n_embd=42, n_head=6, n_hidden=89, tied_head=False))
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        writes = "attention.out" in name or "feedforward.down" in name
        deviation, n = 0.02 / math.sqrt(2 * 3) if writes else 0.02, parameter.numel()
        assert abs(parameter.std() / deviation - 1) < 6 / math.sqrt(2 * n), name
        assert abs(parameter.mean()) < 6 * deviation / math.sqrt(n), name


@FAMILY
@torch.no_grad()
def test_the_unit_initialisation_starts_as_an_identity(family: str):
    """Nothing is written into the residual stream and an untied head has nothing: the loss is ln V exactly."""
    torch.manual_seed(0)
    model = Decoder(toy_config(family, tied_head=False))
    model.init_weights("unit")
    stream = {}
    with listening(model, "blocks.*.residual.*", lambda name, x: stream.update({name: x})):
        logits = model(toy_ids(2, 7))
    assert (logits == 0).all()
    assert torch.equal(stream["blocks.0.residual.before"], stream["blocks.1.residual.after"])
    assert stream["blocks.0.residual.before"].std() > 0.1
    qkv = model.blocks[1].attention.qkv.weight
    assert abs(qkv.std() * math.sqrt(qkv.shape[1]) - 1) < 6 / math.sqrt(2 * qkv.numel())  # off once in 5e8


def test_an_unknown_initialisation_is_named():
    with pytest.raises(UsageError, match=r"^init='gpt' is unknown; did you mean gpt2\?$"):
        toy_model().init_weights("gpt")


def test_a_tied_head_is_the_same_tensor_and_counts_once():
    tied, free = toy_model(tied_head=True), toy_model(tied_head=False)
    assert tied.head.weight is tied.embedding.token.weight
    assert free.parameter_count() - tied.parameter_count() == 61 * 15
    assert repr(tied).startswith(f"Decoder(\n  {tied.parameter_count():,} parameters\n")
    half = copy.deepcopy(tied).to(torch.bfloat16)
    assert half.head.weight is half.embedding.token.weight and half.new_cache().keys.dtype == torch.bfloat16


def test_dropout_is_set_everywhere_at_once_and_works_in_training_only():
    model, ids = toy_model(), toy_ids(1, 7)
    still = model(ids)
    model.set_dropout(0.5)
    assert {m.dropout for m in model.modules() if hasattr(m, "dropout")} == {0.5}
    assert {m.weight_dropout for m in model.modules() if hasattr(m, "weight_dropout")} == {0.5}
    assert torch.equal(model(ids), still)
    assert not torch.equal(model.train()(ids), still)
    for attention, expected in (
        (None, 0.5),
        (0.0, 0.0),
        (0.25, 0.25),
    ):  # attention weights may have a rate of their own
        model = Decoder(toy_config(), dropout=0.5, attention_dropout=attention)
        assert [(b.attention.dropout, b.attention.weight_dropout) for b in model.blocks] == [(0.5, expected)] * 2


def test_token_dropout_reads_other_tokens_of_the_batch_in_training_only():
    """Of 4,800 tokens 0.3 are drawn again: 0.3 * (1 - 1/7 that are the same) = 0.257 differ, +- 6 deviations of 0.0063,
    one false alarm in 5e8 (the seed is set). Only tokens of the batch come in."""
    torch.manual_seed(0)
    model, heard = Decoder(toy_config(), dropout=0.0, token_dropout=0.3), []
    with torch.no_grad():
        model.embedding.token.weight[:, 0] = torch.arange(61.0)
    ids = 8 * torch.randint(7, (400, 12))
    with listening(model, "embedding.token", lambda name, x: heard.append(x[..., 0])):
        model.train()(ids)
        model.eval()(ids)
    assert abs(float((heard[0] != ids).float().mean()) - 0.3 * 6 / 7) < 6 * 0.0063
    assert set(heard[0].flatten().tolist()) == {8.0 * i for i in range(7)}
    assert torch.equal(heard[1], ids.float())


def test_a_new_cache_fits_the_model():
    model = toy_model("modern")
    assert model.new_cache(batch_size=3).keys.shape == (2, 3, 2, 13, 10)
    assert model.new_cache(capacity=5).capacity == 5
    assert model.new_cache(capacity=99).capacity == 13  # there are no positions beyond
