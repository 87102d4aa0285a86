"""Gemma 3 beside what every family is tested for: both spellings of its config.json, long texts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, GEMMA3
from toys import GEMMA3 as OURS
from toys import shaken, toy_ids, toy_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from glassformer.hub import load_model, save
from glassformer.hub.configuration import read_config
from glassformer.models import parameter_count

LINEAR = {"rope_type": "linear", "factor": 2.5}


def rewrite(folder: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    path = folder / "config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name not in drop}
    path.write_text(json.dumps({**config, **changes}))


def their_model(folder: Path, **fields: Any) -> Gemma3ForCausalLM:
    model = shaken(Gemma3ForCausalLM(Gemma3TextConfig(**{**GEMMA3, **fields}))).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def same(ours: Any, theirs: Any, ids: torch.Tensor) -> None:
    expected = theirs(ids).logits
    assert expected.std() > 0.5  # something is at stake
    torch.testing.assert_close(ours(ids), expected, rtol=1e-4, atol=1e-4)


# Both spellings


def test_the_spelling_of_transformers_4_is_read(tmp_path: Path):
    """Three keys for rotary positions, and every third layer sees all: as Google's first files have it."""
    rope = {
        "full_attention": {**LINEAR, "rope_theta": 50.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
    }
    theirs = their_model(tmp_path, num_hidden_layers=4, sliding_window_pattern=3, rope_parameters=rope)
    assert theirs.config.layer_types[2] == "full_attention" and theirs.config.layer_types.count("full_attention") == 1
    old = {"rope_theta": 50.0, "rope_local_base_freq": 7.0, "rope_scaling": LINEAR, "sliding_window_pattern": 3}
    rewrite(tmp_path, drop=("rope_parameters", "layer_types"), **old)
    same(load_model(tmp_path), theirs, toy_ids(2, 13))
    same(load_model(tmp_path), Gemma3ForCausalLM.from_pretrained(tmp_path), toy_ids(2, 13))


def test_what_no_file_states_is_as_in_transformers(tmp_path: Path):
    """Six layers to a turn, windows of 4,096, bases of a million and of ten thousand."""
    their_model(tmp_path, num_hidden_layers=7)
    rewrite(tmp_path, drop=("rope_parameters", "layer_types", "sliding_window", "query_pre_attn_scalar"))
    theirs = Gemma3ForCausalLM.from_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.patterns == ("window(4096)",) * 5 + ("causal",)
    assert (ours.config.rotary_base, ours.config.rotary_base_local) == (1e6, 1e4)
    same(ours, theirs, toy_ids(2, 13))


@pytest.mark.parametrize("scaling", [None, LINEAR], ids=str)
def test_we_write_what_both_read(scaling: dict[str, Any] | None, tmp_path: Path):
    ours = toy_model("modern", **OURS, n_layer=4, rotary_scaling=scaling)
    save(tmp_path, ours)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["glassformer"] == {"tokenizer": None}  # their words tell all of it
    for one_of_both in (("rope_parameters", "layer_types"), ("rope_theta", "rope_local_base_freq", "rope_scaling")):
        rewrite(tmp_path, drop=one_of_both)
        assert load_model(tmp_path).config == ours.config
        same(ours, Gemma3ForCausalLM.from_pretrained(tmp_path), toy_ids(2, 13))
        (tmp_path / "config.json").write_text(json.dumps(config))


def test_layers_that_the_old_spelling_cannot_say_are_written_without_it(tmp_path: Path):
    for patterns, period in ((OURS["patterns"], 2), (("causal", "window(3)"), None), (("window(3)",), 4), (None, 1)):
        save(tmp_path, toy_model("modern", **{**OURS, "patterns": patterns}, n_layer=3))
        assert json.loads((tmp_path / "config.json").read_text()).get("sliding_window_pattern") == period


def test_gemma_3_1b_is_counted_as_in_the_report(tmp_path: Path):
    """The config.json of google/gemma-3-1b-pt, as far as it decides the shape; 302 M embedding and 698 M other
    parameters are in table 1 of the report (https://arxiv.org/abs/2503.19786)."""
    words = {
        "model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None, "head_dim": 256,
        "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
        "sliding_window_pattern": 6, "vocab_size": 262144,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(words))
    _, config = read_config(tmp_path)
    assert config.patterns == ("window(512)",) * 5 + ("causal",) and config.attention_scale is None
    embedding = 262144 * 1152
    assert round(embedding / 1e6) == 302 and round((parameter_count(config) - embedding) / 1e6) == 698


# Texts longer than windows


@pytest.mark.parametrize("width", [1, 2, 5, 97])
def test_a_long_text_in_windows_of_any_width(width: int, tmp_path: Path):
    """97 tokens, so that windows go in chunks and the rest to the fused kernel; in pieces with a cache as at once."""
    theirs = their_model(tmp_path, max_position_embeddings=101, sliding_window=width, sliding_window_pattern=2)
    ours, ids = load_model(tmp_path), toy_ids(2, 97)
    assert ours.config.patterns == (f"window({width})", "causal")
    same(ours, theirs, ids)
    with torch.no_grad():
        cache = ours.new_cache(batch_size=2)
        pieces = [ours(piece, cache=cache) for piece in ids.split([83, 1, 7, 1, 5], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), ours(ids), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_nothing_is_lost_of_norms_in_bf16(tmp_path: Path):
    """They are kept as they are stored: ours, made wider after loading, is theirs made wider while loading."""
    CASES["gemma3"].build().bfloat16().save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.final_norm.weight.dtype == torch.bfloat16
    theirs = Gemma3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    same(ours.float(), theirs, toy_ids(2, 11))
