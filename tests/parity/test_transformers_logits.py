"""What we save, transformers loads, and the other way round: same logits at toy size with random weights.

An independent implementation reads the same files, so a swapped axis, a transposed matrix, a forgotten bias or another
activation cannot pass. Observed differences are below 1e-5 on logits of size 10; the bound is 1e-4.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from toys import GEMMA3, shaken, toy_ids, toy_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from glassformer.hub import load_model, save
from glassformer.models import Decoder

transformers.logging.set_verbosity_error()


@torch.no_grad()
def assert_same_logits(ours: Decoder, theirs: transformers.PreTrainedModel, n: int = 13) -> None:
    ids = toy_ids(2, n, vocab_size=ours.config.vocab_size)
    logits = ours(ids)
    assert logits.std() > 0.5  # something is at stake
    torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


# Every way in which a field can change the tensors or the numbers, and the family that must hold it.
OURS = {
    "gpt2": ("classic", {}),
    "gpt2, no biases": ("classic", {"bias": False}),
    "gpt2, own head": ("classic", {"tied_head": False}),
    "gpt2, no biases, own head": ("classic", {"bias": False, "tied_head": False}),
    "gpt2, exact gelu": ("classic", {"activation": "gelu"}),
    "gpt2, relu, large eps": ("classic", {"activation": "relu", "norm_eps": 0.1}),
    "gpt2, silu": ("classic", {"activation": "silu"}),
    "qwen3": ("modern", {}),
    "qwen3, own head": ("modern", {"tied_head": False}),
    "qwen3, one key-value head": ("modern", {"n_kv_head": 1}),
    "qwen3, no groups, derived width": ("modern", {"n_kv_head": 6, "n_head": 6, "head_width": 14, "n_embd": 84}),
    "qwen3, another base": ("modern", {"rotary_base": 1_000_000.0, "norm_eps": 0.1}),
    "qwen3, relu2": ("modern", {"activation": "relu2"}),
    "llama": ("modern", {"qk_norm": False}),
    "llama, own head": ("modern", {"qk_norm": False, "tied_head": False}),
    "llama, another base and gelu": ("modern", {"qk_norm": False, "rotary_base": 500.0, "activation": "gelu_new"}),
    "gemma3_text": ("modern", GEMMA3),
    "gemma3_text, own head": ("modern", {**GEMMA3, "tied_head": False, "logit_softcap": 3.0}),
    "gemma3_text, scores by another number": ("modern", {**GEMMA3, "attention_scale": 7**-0.5, "activation": "silu"}),
    "gemma3_text, one base": ("modern", {**GEMMA3, "rotary_base_local": None}),
    "gemma3_text, layers in no order": ("modern", {**GEMMA3, "n_layer": 3, "patterns": ("causal", "window(3)")}),
    "gemma3_text, no windows": ("modern", {**GEMMA3, "patterns": None}),
}


@pytest.mark.parametrize("case", OURS)
def test_our_model_loads_in_transformers(case: str, tmp_path: Path):
    family, changes = OURS[case]
    ours = toy_model(family, **changes)
    save(tmp_path, ours)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert theirs.config.model_type == case.split(",")[0]
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_logits(ours, theirs)
    again = load_model(tmp_path)
    assert again.config == ours.config
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))
    assert not again.training and again.parameter_count() == ours.parameter_count()


SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 5, "beta_fast": 3.0},
    "yarn, attention as told": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 7,
        "attention_factor": 1.3,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 3.0,
        "original_max_position_embeddings": 11,
        "low_freq_factor": 0.5,
        "high_freq_factor": 1.5,
    },
}


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


def test_ntk_scaling_which_transformers_lacks_stays_ours(tmp_path: Path):
    ours = toy_model("modern", rotary_scaling={"rope_type": "ntk", "factor": 2.0})
    save(tmp_path, ours)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "glassformer"
    assert load_model(tmp_path).config == ours.config


GPT2_SHAPE = {"vocab_size": 61, "n_positions": 13, "n_embd": 15, "n_layer": 2, "n_head": 3}
MODERN_SHAPE = {
    "vocab_size": 61,
    "max_position_embeddings": 13,
    "hidden_size": 84,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 29,
}


def test_older_files_are_read_too(tmp_path: Path):
    """transformers 4 wrote `rope_theta` beside the others and no `rope_parameters`; the very first GPT-2 files had no
    `transformer.` in front of their names and kept the causal mask among the weights."""
    from safetensors.torch import save_file

    another_base = LlamaConfig(**MODERN_SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    theirs = shaken(AutoModelForCausalLM.from_config(another_base)).eval()
    theirs.save_pretrained(tmp_path / "llama")
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config))
    assert_same_logits(load_model(tmp_path / "llama"), theirs)

    theirs = shaken(AutoModelForCausalLM.from_config(GPT2Config(**GPT2_SHAPE))).eval()
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


REFUSED = {
    "llama with positions that are scaled as the text grows": (
        LlamaConfig(**MODERN_SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
        {},
        "rotary scaling 'dynamic' is not supported",
    ),
    "llama with scaled positions, as written long ago": (
        LlamaConfig(**MODERN_SHAPE),
        {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "rotary scaling 'dynamic' is not supported",
    ),
    "llama that turns half of each head": (
        LlamaConfig(**MODERN_SHAPE),
        {"partial_rotary_factor": 0.5},
        "turns a part of each head only",
    ),
    "gpt2 with scores scaled by the layer": (
        GPT2Config(**GPT2_SHAPE, scale_attn_by_inverse_layer_idx=True),
        {},
        "scales attention scores in a way",
    ),
    "gpt2 with an unknown activation": (
        GPT2Config(**GPT2_SHAPE, activation_function="tanh"),
        {},
        "activation='tanh' is unknown",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_we_cannot_express_is_refused_and_never_computed_wrongly(case: str, tmp_path: Path):
    from glassformer.errors import ModelFolderError

    config, changes, text = REFUSED[case]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelFolderError, match=text):
        load_model(tmp_path)
