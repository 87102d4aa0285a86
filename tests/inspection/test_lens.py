"""The lens against models that really end after a layer, which are built here by cutting the rest off."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stacks import FAMILIES, TEXT, TOKENIZER, asked, encoder, looked_at, stack
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.inspection import lens
from glassformer.layers import int8_copy

FAMILY = pytest.mark.parametrize("family", FAMILIES)


def cut_off(model: Any, layers: int) -> Any:
    """The model with so many blocks and no more."""
    short = copy.deepcopy(model)
    stack(short).blocks = stack(short).blocks[:layers]
    stack(short).masks = stack(short).masks[:layers]
    return short


@FAMILY
def test_each_row_is_the_output_of_a_model_that_ends_there(family: str):
    model, seen = looked_at(family)
    view = lens(model, TOKENIZER, TEXT, position=3, pin="C", top=4, **asked(model))
    ids, V = torch.tensor([seen.ids]), TOKENIZER.vocab_size
    rows = []
    for layers in range(len(stack(model).blocks) + 1):
        short = cut_off(model, layers)
        with torch.no_grad():
            logits = short(ids) if not seen.source_ids else short(torch.tensor([seen.source_ids]), ids)
            logits = logits if not hasattr(model, "token_logits") else short.token_logits(logits)
        rows.append(logits[0, :, :V].softmax(dim=-1).numpy())
    p_LTV = np.stack(rows)
    assert len(seen.labels) == p_LTV.shape[1] == len(view.tokens)
    np.testing.assert_allclose(view.grid_probabilities, p_LTV.max(axis=-1), atol=1e-5)
    assert (view.grid_ids == p_LTV.argmax(axis=-1)).all()
    p_LV, pinned = p_LTV[:, 3], TOKENIZER.encode("C")[0]
    np.testing.assert_allclose(view.top_probabilities, -np.sort(-p_LV, axis=-1)[:, :4], atol=1e-5)
    assert (view.top_ids[:, 0] == p_LV.argmax(axis=-1)).all()
    assert view.top_tokens == [[TOKENIZER.token_text(i) for i in row] for row in view.top_ids.tolist()]
    np.testing.assert_allclose(view.pinned_probability, p_LV[:, pinned], atol=1e-5)
    places = [sorted(row.tolist(), reverse=True).index(row[pinned]) + 1 for row in p_LV]
    assert view.pinned_rank.tolist() == places and max(places) > 1
    np.testing.assert_allclose(view.entropy, -(p_LV * np.log2(p_LV)).sum(axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        view.divergence, (p_LV[-1] * np.log2(p_LV[-1] / p_LV)).sum(axis=-1), rtol=1e-4, atol=1e-5
    )


@FAMILY
def test_the_last_row_is_the_models_own_output_to_the_bit(family: str):
    model, seen = looked_at(family)
    own = seen.logits().log_softmax(dim=-1).exp()  # the way to probabilities is part of the bits
    view = lens(model, TOKENIZER, TEXT, top=9999, **asked(model))
    assert view.top_probabilities.shape[1] == TOKENIZER.vocab_size < 61
    assert np.array_equal(view.top_probabilities[-1][np.argsort(view.top_ids[-1])], own[view.position].numpy())
    assert view.pinned_id == int(own[view.position].argmax()) and view.pinned_rank[-1] == 1
    assert view.divergence[-1] == 0


def test_many_layers_and_places_are_drawn_in_part():
    model = toy_model(n_layer=41, block_size=37)
    view = lens(model, TOKENIZER, "A" * 31)
    lines = str(view).splitlines()
    assert len(view.entropy) == 42 and len(lines) < 80 and max(map(len, lines)) <= 80
    assert any(line.startswith("block 40") for line in lines)


def test_an_encoder_is_asked_at_its_mask():
    model = encoder()
    text = "AB<mask>E"
    view = lens(model, TOKENIZER, text)
    assert view.position == 2 and view.tokens[2] == "<mask>" and view.where == "at '<mask>'"
    ids = torch.tensor([[*TOKENIZER.encode("AB"), TOKENIZER.special_tokens["<mask>"], *TOKENIZER.encode("E")]])
    with torch.no_grad():
        p_V = model.token_logits(model(ids))[0, 2, : TOKENIZER.vocab_size].softmax(dim=-1)
    np.testing.assert_allclose(view.top_probabilities[-1, 0], p_V.max(), atol=1e-6)
    assert lens(model, TOKENIZER, text, position=-1).position == 3
    assert lens(toy_model(), TOKENIZER, "AB").position == 1


def test_matrices_in_few_bits_and_other_formats_can_be_read_so():
    model = toy_model()
    for other in (int8_copy(model), copy.deepcopy(model).bfloat16()):
        view = lens(other, TOKENIZER, TEXT)
        assert view.entropy.dtype == np.float32 and view.top_probabilities[-1, 0] > 0


def test_a_word_that_is_one_token_behind_a_space_is_hinted_at():
    from glassformer.processors.tokenizers import build_tokenizer

    tokenizer = build_tokenizer("bpe", ["in Paris and in Paris or Paris"] * 3, vocab_size=264)
    assert len(tokenizer.encode(" Paris")) == 1
    with pytest.raises(UsageError, match="try ' Paris'"):
        lens(toy_model(vocab_size=264), tokenizer, "in", pin="Paris")
    assert lens(toy_model(vocab_size=264), tokenizer, "in", pin=" Paris").pinned == " Paris"


@pytest.mark.parametrize(("family", "without"), [("translator of 2017", True), ("classic", False)])
def test_a_model_without_a_final_norm_is_named(family: str, without: bool):
    model, _ = looked_at(family)
    assert ("no final norm" in str(lens(model, TOKENIZER, TEXT, **asked(model)))) == without
