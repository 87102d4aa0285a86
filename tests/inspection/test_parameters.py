"""The tally: equal to numel() exactly for every shape of this house, and to the lecture's for GPT-3."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from toys import GEMMA3, MODERN, toy_config, toy_model

from glassformer.errors import UsageError
from glassformer.inspection import ParametersView, parameters
from glassformer.models import (
    SIZES,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    build_model,
    make_config,
    parameter_count,
)
from glassformer.models.parts import pieces

TEXT: dict[str, Any] = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
PAIR: dict[str, Any] = {**TEXT, "n_decoder_layer": 5, "start_token": 1, "end_token": 2}
IMAGES = {"stem": "patches", "image_size": 6, "patch_size": 3, "n_channels": 2, "block_size": 5, "vocab_size": 1}
SOUND = {"stem": "frames", "n_mels": 7, "vocab_size": 1, "positions": "sinusoidal", "sinusoid_layout": "whisper"}
SHAPES: dict[str, Any] = {
    "classic": toy_config("classic"),
    "untied": toy_config("classic", tied_head=False, head_bias=True),
    "modern": toy_config("modern"),
    "gemma3": ModelConfig.make(**{**MODERN, **GEMMA3}),
    "sinks": toy_config("modern", attention_sinks=True),
    "experts": toy_config("modern", n_expert=5, router_bias=True),
    "norms over all heads": toy_config("modern", qk_norm_over="all"),
    "n-grams": toy_config("modern", n_gram=3, n_gram_rows=59),
    "t5 positions": toy_config("classic", positions="relative"),
    "bert": EncoderConfig.make(
        **TEXT, family="original", positions="learned", n_segments=2, embedding_norm=True, pooler=True, n_classes=4,
        token_head="vocabulary", token_transform=True, head_bias=True,
    ),
    "tagger": EncoderConfig.make(**TEXT, token_head="classes", n_classes=7),
    "vit": EncoderConfig.make(**{**TEXT, **IMAGES}, n_classes=3),
    "sound": EncoderConfig.make(**{**TEXT, **SOUND}),
    "translator": EncoderDecoderConfig.make(**PAIR, family="original"),
    "two vocabularies": EncoderDecoderConfig.make(**PAIR, family="classic", source_vocab_size=47),
    "whisper": EncoderDecoderConfig.make(
        encoder=EncoderConfig.make(**{**TEXT, **SOUND}), decoder=ModelConfig.make(**{**TEXT, "n_layer": 5}),
        start_token=1, end_token=2, shared_embedding=False,
    ),
}  # fmt: skip


def worth(product: str) -> int:
    """A sum of products, as it stands in the table."""
    total = 0
    for term in product.replace(",", "").replace("(", "").replace(")", "").split(" + "):
        made = 1
        for factor in term.split(" * "):
            made *= int(factor)
        total += made
    return total


@pytest.mark.parametrize("name", SHAPES)
def test_the_tally_is_every_number_there_is(name: str):
    config = SHAPES[name]
    model = build_model(config)
    view = parameters(model)
    assert view.total == sum(p.numel() for p in model.parameters()) == sum(part.counted for part in view.parts)
    assert {**parameters(config).to_dict(), "name": ""} == {**view.to_dict(), "name": ""}, "counted without being built"
    assert "other" not in {piece.part for piece in pieces(model)}
    for part in view.parts:
        assert worth(part.numbers) == part.parameters, part
    assert max(map(len, str(view).splitlines())) <= 80
    json.dumps(view.to_dict(), allow_nan=False)


def test_gpt_3_as_the_lecture_counts_it():
    view = parameters("gpt3")
    assert (view.lecture_total, view.lecture_matrices) == (175_181_291_520, 27_938)
    parts = {part.part: part for part in view.parts}
    assert list(parts)[:8] == ["embedding", "key", "query", "value", "output", "up", "down", "unembedding"]
    assert parts["embedding"].parameters == parts["unembedding"].parameters == 617_558_016
    assert {parts[p].parameters for p in ("key", "query", "value", "output")} == {14_495_514_624}
    assert parts["up"].parameters == parts["down"].parameters == 57_982_058_496
    assert parts["query"].formula == "d_query * d_embed * n_heads * n_layers"
    assert parts["query"].numbers == "128 * 12,288 * 96 * 96"
    assert parts["output"].formula == "d_embed * d_value * n_heads * n_layers"
    assert (parts["embedding"].formula, parts["embedding"].numbers) == ("d_embed * n_vocab", "12,288 * 50,257")
    assert [parts[p].matrices for p in ("query", "key", "value", "output", "up", "down")] == [9216] * 3 + [96] * 3


def test_how_the_lecture_s_count_and_the_tied_head_relate():
    """What stands beyond the eight kinds comes on top, and the table that is used twice goes off once."""
    view = parameters("gpt3")
    parts = {part.part: part for part in view.parts}
    assert parts["unembedding"].shared_with == "embedding.token.weight" and parts["unembedding"].counted == 0
    beyond = sum(parts[part].parameters for part in ("positions", "norms", "biases"))
    assert view.total == view.lecture_total - 617_558_016 + beyond == parameter_count(ModelConfig.make(**SIZES["gpt3"]))
    untied = parameters(ModelConfig.make(**SIZES["gpt3"], tied_head=False, bias=False, positions="none"))
    assert untied.lecture_total == 175_181_291_520
    assert untied.total - untied.lecture_total == (2 * 96 + 1) * 12_288, "norms alone"


def test_grouped_heads_have_fewer_keys_than_queries():
    parts = {part.part: part for part in parameters(toy_config("modern")).parts}
    assert (parts["query"].matrices, parts["key"].matrices, parts["value"].matrices) == (2 * 6, 2 * 2, 2 * 2)
    assert parts["key"].formula == "d_query * d_embed * n_kv_heads * n_layers"
    assert not parts["gate"].in_lecture


def test_pieces_of_a_fused_matrix_are_the_rows_that_the_layer_cuts():
    model = toy_model("modern")
    attention = model.blocks[1].attention
    found = {p.part: p for p in pieces(model) if p.name == "blocks.1.attention.qkv.weight"}
    q, k, v = attention.qkv.weight.split(attention.qkv_rows)
    for part, rows in (("query", q), ("key", k), ("value", v)):
        start, end = found[part].rows
        assert attention.qkv.weight[start:end].equal(rows)
    gate = next(p for p in pieces(model) if p.name == "blocks.0.feedforward.gate_up.weight" and p.part == "gate")
    assert gate.rows == (0, 29), "the gate lies first"


def test_an_older_model_has_its_own_names():
    view = parameters(build_model(make_config("mlp", vocab_size=61, block_size=8, n_embd=5, n_hidden=7)))
    assert view.total == sum(part.counted for part in view.parts) and not view.lecture_total
    assert all(not part.in_lecture for part in view.parts)
    with pytest.raises(UsageError, match="Identity: there are no parameters"):
        parameters(torch.nn.Identity())


def test_what_is_shared_is_shown_and_taken_off():
    text = str(parameters(EncoderDecoderConfig.make(**PAIR, family="original")))
    assert "shared, and so counted once" in text and f"-{2 * 61 * 18:,}" in text
    assert isinstance(parameters("gpt2"), ParametersView)
