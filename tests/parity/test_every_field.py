"""Every field that transformers has for encoders and encoder-decoders is read, changes nothing that a model computes,
or is refused where it is not at the one value that ours know; packed weights and adapters are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from families import CASES
from safetensors.torch import load_file, save_file

from glassformer.errors import ModelFolderError
from glassformer.hub import FAMILIES, import_model, load_model, model_folder_of
from glassformer.hub.configuration import read_config

OF_EVERY_MODEL = {
    *("_name_or_path", "architectures", "dtype", "id2label", "label2id", "model_type", "transformers_version"),
    *("chunk_size_feed_forward", "output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    *("is_encoder_decoder", "problem_type"),  # read with the labels of classifiers alone
}
OF_TRAINING = {
    *("attention_dropout", "activation_dropout", "attention_probs_dropout_prob", "classifier_dropout"),
    *("dropout", "dropout_rate", "encoder_layerdrop", "decoder_layerdrop", "hidden_dropout_prob"),
    *("init_std", "initializer_factor", "initializer_range", "apply_spec_augment", "mask_time_prob"),
    *("mask_time_length", "mask_time_min_masks", "mask_feature_prob", "mask_feature_length"),
    *("mask_feature_min_masks", "attn_pdrop", "embd_pdrop", "resid_pdrop"),
}
OF_GENERATION = {  # tokens and how they are drawn: `generation_settings`
    *("bos_token_id", "eos_token_id", "pad_token_id", "forced_eos_token_id", "suppress_tokens"),
    "begin_suppress_tokens",
}
OF_OTHER_HEADS = {  # models of the family that are refused by their architecture or their tensors
    *("use_weighted_layer_sum", "classifier_proj_size", "encoder_stride", "pooler_output_size", "pooler_act"),
    "median_filter_width",
}
SAME_NUMBERS = {  # other ways to compute the same
    "reorder_and_upcast_attn",
    *("dense_act_fn", "is_gated_act"),  # transformers takes both from feed_forward_proj
    "is_decoder",  # of an encoder-decoder: said of neither half
    "tie_word_embeddings",  # of fairseq's families: under_one_name compares the tensors
}
WITHOUT_EFFECT = OF_EVERY_MODEL | OF_TRAINING | OF_GENERATION | OF_OTHER_HEADS | SAME_NUMBERS


class Recorded(dict):
    """A dictionary that knows what it was asked for."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __or__(self, other: dict[str, Any]) -> Recorded:
        both = Recorded({**self, **other})
        both.asked = self.asked
        return both

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


# Of decoders `test_config_words.py` compares the logits for every value of every word.
ENCODERS = ("bert", "vit", "t5", "marian", "bart", "whisper", "decision_transformer")


@pytest.mark.parametrize("model_type", ENCODERS)
def test_every_field_is_read_without_effect_or_refused(model_type: str):
    name = next(name for name in CASES if CASES[name].config.model_type == model_type)
    case = CASES[name]
    family = FAMILIES[case.config.model_type]
    given = Recorded({**case.config.to_dict(), "architectures": [case.model.__name__]})
    family.read_config(given)
    passed_over = {*case.config.to_dict()} - given.asked - WITHOUT_EFFECT - family.fixed_keys.keys()
    tokens = {"vocab_size"} if model_type == "decision_transformer" else set()  # it has a table that nothing reads
    assert not passed_over - tokens


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_another_value_of_a_fixed_field_is_refused(family: Any, tmp_path: Path):
    for field, only in family.fixed_keys.items():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type, field: "another"}))
        with pytest.raises(ModelFolderError) as error:
            read_config(tmp_path)
        assert f"{field}='another'" in str(error.value) and repr(only) in str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CASES["llama"].build().save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def refused(act: Any) -> str:
    with pytest.raises(ModelFolderError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_packed_weights_are_refused(folder: Path):
    path = folder / "config.json"
    given = json.loads(path.read_text())
    for method in ("bitsandbytes", "gptq", "fp8"):
        path.write_text(json.dumps({**given, "quantization_config": {"quant_method": method, "bits": 4}}))
        line = refused(lambda: load_model(folder))
        assert line.startswith(f"{path}: ") and method in line and "bf16" in line


def test_an_adapter_is_refused(folder: Path, tmp_path: Path):
    alone = tmp_path / "adapter"
    alone.mkdir()
    for place in (folder, alone):
        (place / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    for act in (lambda: load_model(folder), lambda: model_folder_of(alone)):
        line = refused(act)
        assert "adapter" in line and "--adapter" in line
    assert "--adapter" in refused(lambda: import_model(folder, tmp_path / "ours"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("pytorch_model.bin", "a pickle"),
        ("consolidated.00.pth", "a pickle"),
        ("tf_model.h5", "TensorFlow"),
        ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        ("diffusion.safetensors", "another name"),
    ],
)
def test_weights_in_another_form_are_refused(name: str, shown: str, folder: Path):
    shutil.move(folder / "model.safetensors", folder / name)
    (folder / "training_args.bin").write_bytes(b"")
    line = refused(lambda: load_model(folder))
    assert line.startswith(f"{folder / name}: ") and shown in line and "model.safetensors" in line


TIED = {
    "marian": "lm_head.weight",
    "whisper": "proj_out.weight",
    "t5": "encoder.embed_tokens.weight",
    "bert, masked tokens": "cls.predictions.decoder.weight",
}


@pytest.mark.parametrize("name", TIED)
def test_a_tied_tensor_that_is_there_twice_and_differs_is_refused(name: str, tmp_path: Path):
    CASES[name].build().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    first = next(key for key in ("model.shared.weight", "shared.weight", "model.decoder.embed_tokens.weight",
                                 "bert.embeddings.word_embeddings.weight") if key in weights)  # fmt: skip
    save_file({**weights, TIED[name]: weights[first].clone()}, file)
    load_model(tmp_path)
    changed = weights[first].clone()
    changed[3, 2] += 0.1
    save_file({**weights, TIED[name]: changed}, file)
    line = refused(lambda: load_model(tmp_path))
    assert TIED[name] in line and first in line and "differ" in line
