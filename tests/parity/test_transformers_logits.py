"""Decoders beside what every family is tested for: scaled rotary positions under both keys, older files, formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from families import GPT2, LLAMA
from safetensors.torch import load_file, save_file
from toys import shaken, toy_ids, toy_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from glassformer.hub import load_model, save
from glassformer.models import Decoder


@torch.no_grad()
def assert_same_logits(ours: Decoder, theirs: transformers.PreTrainedModel, n: int = 13) -> None:
    ids = toy_ids(2, n, vocab_size=ours.config.vocab_size)
    logits = ours(ids)
    assert logits.std() > 0.5  # something is at stake
    torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 5, "beta_fast": 3.0},
    "yarn, attention as stated": {
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 7, "attention_factor": 1.3,
    },
    "llama3": {
        "rope_type": "llama3", "factor": 3.0, "original_max_position_embeddings": 11, "low_freq_factor": 0.5,
        "high_freq_factor": 1.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("qk_norm", [True, False])
def test_scaled_rotary_positions_are_the_same_there_and_back(kind: str, qk_norm: bool, tmp_path: Path):
    ours = toy_model("modern", qk_norm=qk_norm, rotary_scaling=SCALED[kind], rotary_base=500.0)
    save(tmp_path / "ours", ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert theirs.config.model_type == ("qwen3" if qk_norm else "llama")
    assert_same_logits(ours, theirs)
    plain = toy_model("modern", qk_norm=qk_norm, rotary_base=500.0)
    assert (plain(toy_ids(2, 13)) - ours(toy_ids(2, 13))).abs().max() > 0.01  # the scaling matters
    theirs.save_pretrained(tmp_path / "theirs")
    assert load_model(tmp_path / "theirs").config == load_model(tmp_path / "ours").config == ours.config
    # transformers 4 reads and writes the other keys
    path = tmp_path / "ours" / "config.json"
    config = json.loads(path.read_text())
    assert config["rope_scaling"] == SCALED[kind] and config["rope_theta"] == 500.0
    assert config["rope_parameters"] == {**SCALED[kind], "rope_theta": 500.0}
    assert config["glassformer"] == {"tokenizer": None}  # their words tell all of it
    del config["rope_parameters"]
    path.write_text(json.dumps(config))
    assert load_model(tmp_path / "ours").config == ours.config


def test_older_files_are_read_too(tmp_path: Path):
    """transformers 4 wrote `rope_theta` beside the others and no `rope_parameters`; the very first GPT-2 files had no
    `transformer.` in front of their names and kept the causal mask among the weights."""
    another_base = LlamaConfig(**LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    theirs = shaken(AutoModelForCausalLM.from_config(another_base)).eval()
    theirs.save_pretrained(tmp_path / "llama")
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config))
    assert_same_logits(load_model(tmp_path / "llama"), theirs)

    theirs = shaken(AutoModelForCausalLM.from_config(GPT2Config(**GPT2))).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2" / "model.safetensors")
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 13, 13).tril()
    save_file(weights, tmp_path / "gpt2" / "model.safetensors")
    assert_same_logits(load_model(tmp_path / "gpt2"), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_number_format_is_kept(dtype: torch.dtype, tmp_path: Path):
    ours = toy_model().to(dtype)
    save(tmp_path, ours)
    assert load_model(tmp_path).head.weight.dtype == dtype
    assert AutoModelForCausalLM.from_pretrained(tmp_path).lm_head.weight.dtype == dtype
