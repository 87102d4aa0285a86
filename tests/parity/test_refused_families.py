"""What a folder of another family asks for and our models cannot do is one line, and never computed wrongly; what older
files have beside what is needed is put aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassformer.errors import GlassformerWarning, ModelFolderError, UsageError
from glassformer.hub import load_model, save
from glassformer.hub.configuration import read_config

LINEAR, DYNAMIC = {"rope_type": "linear", "factor": 2.5}, {"rope_type": "dynamic", "factor": 2.0}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens"]}
# case, what is changed in config.json, and words of the refusal
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_parameters": {**DYNAMIC, "rope_theta": 1e4}}, "'dynamic' not supported"),
    ("llama", {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' not supported"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attention scores"),
    ("gpt2", {"activation_function": "tanh"}, "activation='tanh' unknown"),
    ("bert, masked tokens", {"is_decoder": True}, "is_decoder"),
    ("bert, masked tokens", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    (
        "bert, masked tokens",
        {"architectures": ["BertForQuestionAnswering"]},
        "'BertForQuestionAnswering' known BertModel",
    ),
    ("bert, masked tokens", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("bert, classes", {"problem_type": "multi_label_classification"}, "problem_type=multi_label_classification"),
    ("bert, classes", {"problem_type": "regression"}, "problem_type=regression"),
    ("bert, classes", {"id2label": {"0": "score"}}, "problem_type=regression"),
    ("vit", {"qkv_bias": False}, "qkv_bias"),
    ("vit", {"patch_size": 3}, "image_size=8 patch_size=3"),
    ("decision_transformer", {"layer_norm_epsilon": 0.1}, "layer_norm_epsilon=0.1"),
    ("decision_transformer", {"n_positions": 2}, "block_size=0"),
    ("whisper", {"scale_embedding": True}, "scale_embedding"),
    ("whisper", {"d_model": 19}, "n_embd=19 n_head=3"),
    ("marian", {"eos_token_id": 61}, "end_token=61"),
    ("bart", {"eos_token_id": None}, "end_token=None"),
    ("t5", {"feed_forward_proj": "gated-tanh"}, "activation='tanh'"),
    ("gpt_oss", {"quantization_config": MXFP4}, "mxfp4 bf16"),
    ("gpt_oss", {"swiglu_alpha": 1.5}, "swiglu_alpha=1.5 1.702"),
    ("qwen3_moe", {"mlp_only_layers": [1]}, "mlp_only_layers=[1]"),
    ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers 1 layer num_hidden_layers=5"),
    ("smollm3", {"layer_types": ["sliding_attention"] * 5}, "sliding_window=None"),
    ("gpt_neo", {"attention_layers": ["local"]}, "1 layer num_layers=4"),
    ("gpt_neo", {"attention_layers": ["sparse"] * 4}, "'sparse' not supported"),
    ("phi3", {"rope_parameters": DYNAMIC}, "'dynamic' longrope"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma3", {"vision_config": {"hidden_size": 8}}, "vision_config"),
    ("gemma3", {"model_type": "gemma3", "vision_config": {"hidden_size": 8}}, "'gemma3' images text model"),
    ("gemma3", {"attention_bias": True}, "attention_bias"),
    ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping null"),
    ("gemma3", {"layer_types": ["chunked_attention"] * 3}, "'chunked_attention' not supported"),
    ("gemma3", {"layer_types": ["full_attention"]}, "layer_types 1 layer num_hidden_layers=3"),
    ("gemma3", {"sliding_window": None}, "sliding_window=None"),
    ("gemma3", {"rope_parameters": {"rope_theta": 5.0}}, "full_attention sliding_attention"),
    ("gemma3", {"rope_parameters": {"sliding_attention": LINEAR}}, "'linear' sliding_attention not supported"),
    ("gemma3", {"rope_parameters": {"full_attention": DYNAMIC}}, "'dynamic' not supported"),
    ("gemma3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("gemma3", {"num_hidden_layers": 10**12, "layer_types": None}, "n_layer=1000000000000 1000 or less"),
]


@pytest.mark.parametrize(("case", "changes", "words"), REFUSED, ids=str)
def test_what_our_models_cannot_do_is_refused(case: str, changes: dict[str, Any], words: str, tmp_path: Path):
    given = {**CASES[case].config.to_dict(), "architectures": [CASES[case].model.__name__], **changes}
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path)
    line = str(error.value)
    assert line.startswith(str(tmp_path)) and "\n" not in line and all(word in line for word in words.split())


def test_whisper_with_other_positions_is_refused(tmp_path: Path):
    theirs = CASES["whisper"].build()
    with torch.no_grad():
        theirs.model.encoder.embed_positions.weight[3, 5] += 0.1
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match="sines and cosines"):
        load_model(tmp_path)


def aside(theirs: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    """The same weights as older programs wrote them."""
    if case == "bert, masked tokens":  # bert-base-uncased as Google's converted file has it
        theirs = {n.replace("LayerNorm.weight", "LayerNorm.gamma"): t for n, t in theirs.items()}
        theirs = {n.replace("LayerNorm.bias", "LayerNorm.beta"): t for n, t in theirs.items()}
        return {
            **theirs,
            "bert.embeddings.position_ids": torch.arange(13)[None],
            "bert.pooler.dense.weight": torch.ones(15, 15),
            "bert.pooler.dense.bias": torch.ones(15),
            "cls.seq_relationship.weight": torch.ones(2, 15),
            "cls.seq_relationship.bias": torch.ones(2),
            "cls.predictions.decoder.weight": theirs["bert.embeddings.word_embeddings.weight"].clone(),
        }
    if case == "t5":
        theirs = dict(theirs)
        shared = theirs.pop("shared.weight")
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        return {
            **theirs,
            "encoder.embed_tokens.weight": shared,
            "decoder.embed_tokens.weight": shared.clone(),
            "lm_head.weight": shared.clone(),
            unused: torch.ones(6, 3),
        }
    waves = {f"model.{side}.embed_positions.weight": torch.ones(13, 18) for side in ("encoder", "decoder")}
    return {**theirs, **waves, "model.decoder.embed_tokens.weight": theirs["model.shared.weight"].clone()}


@pytest.mark.parametrize("case", ["bert, masked tokens", "t5", "marian"])
@torch.no_grad()
def test_older_files_are_read_too(case: str, tmp_path: Path):
    theirs = CASES[case].build()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(aside(load_file(file), case), file)
    torch.testing.assert_close(CASES[case].ours(load_model(tmp_path)), CASES[case].theirs(theirs), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_a_file_leaves_out_is_filled_in(tmp_path: Path):
    """A bias of logits that is zero; a head that is not tied by the configuration and is the embedding all the same."""
    theirs = CASES["marian"].build()
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["final_logits_bias"]
    save_file(weights, file)
    ours = load_model(tmp_path)
    torch.testing.assert_close(CASES["marian"].ours(ours), CASES["marian"].theirs(theirs), rtol=1e-4, atol=1e-4)

    theirs = CASES["gpt2"].build()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    ours = load_model(tmp_path)
    assert ours.head.weight.data_ptr() != ours.embedding.token.weight.data_ptr()
    torch.testing.assert_close(CASES["gpt2"].ours(ours), CASES["gpt2"].theirs(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["mistral", "gpt2, own head", "gemma2, own head, uncapped"])
def test_a_head_of_its_own_in_a_folder_that_calls_it_tied_is_refused(case: str, tmp_path: Path):
    """transformers 4 would drop it, transformers 5 keeps it."""
    CASES[case].build().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    with pytest.raises(ModelFolderError, match=r"lm_head\.weight differ.*set tie_word_embeddings to false"):
        load_model(tmp_path)


def test_longrope_is_read_up_to_the_length_of_its_training_with_a_warning(tmp_path: Path):
    CASES["phi3, longrope, in part"].build().save_pretrained(tmp_path / "theirs")
    with pytest.warns(GlassformerWarning, match="texts of up to 13 tokens are read, of the 52"):
        ours = load_model(tmp_path / "theirs")
    assert ours.config.block_size == 13
    save(tmp_path / "ours", ours)
    given = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (given["max_position_embeddings"], given["original_max_position_embeddings"]) == (52, 13)
    assert set(given["rope_scaling"]) == {"type", "short_factor", "long_factor"}  # all that transformers 4 allows
    with pytest.raises(UsageError, match=r"block_size=14 .*use block_size=13 or less"):
        type(ours.config).make(**{**ours.config.model_dump(), "block_size": 14})
