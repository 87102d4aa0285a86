"""generation_config.json: read field by field, refused in one line where it asks for what is not done, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from toys import toy_model

import glassformer as gf
from glassformer.errors import ModelFolderError, UsageError
from glassformer.generation import Engine, Request, from_the_folder
from glassformer.hub import import_model, save_gguf
from glassformer.hub.generation_config import APPLIED, NEUTRAL, parsed
from glassformer.processors.tokenizers import TOKENIZERS

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 3


@pytest.fixture
def folder(tmp_path) -> Path:
    tokenizer = TOKENIZERS["bpe"]([TEXT], vocab_size=277)
    gf.save(tmp_path / "m", toy_model(vocab_size=277, block_size=31), tokenizer)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config.pop("glassformer")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    return tmp_path / "m"


def publish(folder: Path, **fields: Any) -> None:
    """Write what a folder's maker says about generating."""
    (folder / "generation_config.json").write_text(json.dumps({"transformers_version": "5.1.0", **fields}))


def test_every_field_of_transformers_has_been_thought_of():
    """Applied, refused, or named here because it changes no text."""
    harmless = {
        *("use_mtp", "use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory"),
        *("renormalize_logits", "remove_invalid_values", "output_attentions", "output_hidden_states", "output_scores"),
        *("output_logits", "return_dict_in_generate", "is_assistant", "num_assistant_tokens", "speculation_type"),
        *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens"),
        *("max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind"),
        *("assistant_ensemble_weight", "compile_config", "disable_compile", "continuous_batching_config"),
        *("prefill_chunk_size", "_from_model_config", "transformers_version", "return_timestamps"),
    }
    known = {name for name in vars(transformers.GenerationConfig()) if not name.startswith("_original")}
    assert known - harmless - set(APPLIED) - set(NEUTRAL) == set()
    assert not set(APPLIED) & set(NEUTRAL) and not harmless & {*APPLIED, *NEUTRAL}


REFUSED = {
    "typical_p": 0.9, "top_h": 0.3, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-4, "guidance_scale": 1.5,
    "sequence_bias": [[[3], 2.0]], "penalty_alpha": 0.6, "num_beams": 4, "num_return_sequences": 2, "max_time": 1.0,
    "exponential_decay_length_penalty": [3, 1.1], "watermarking_config": {"bias": 2.0}, "token_healing": True,
    "force_words_ids": [[3]], "diversity_penalty": 0.5, "dola_layers": "high", "num_beam_groups": 2,
    "constraints": [1],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_text_and_is_not_done_is_refused(name, folder):
    publish(folder, do_sample=True, **{name: REFUSED[name]})
    model, tokenizer = gf.load(folder)  # to look inside, or to train on
    with pytest.raises(UsageError, match=rf"{name}=.*take it out"):
        list(gf.stream(model, tokenizer, "hear", max_new_tokens=2))
    with pytest.raises(UsageError, match=name):
        Engine(model, tokenizer).submit(Request((1,), 2))
    publish(folder, do_sample=True, **{name: NEUTRAL.get(name, (1,))[-1]})
    list(gf.stream(*gf.load(folder), "hear", max_new_tokens=2))


def test_what_matters_to_others_alone_is_no_reason_to_refuse():
    """Filters of draws where nothing is drawn; rules about a source where there is none."""
    assert not parsed({"typical_p": 0.9}, where="").refused
    assert not parsed({"encoder_repetition_penalty": 1.3}, where="").refused
    assert parsed({"encoder_repetition_penalty": 1.3}, where="", answers=True).refused
    assert not parsed({"num_beams": 4}, where="", answers=True).refused
    assert parsed({"num_beams": 4, "do_sample": True}, where="", answers=True).refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eos_token_id", "two"), ("eos_token_id", [1, 2.5]), ("temperature", -1), ("top_p", 1.5), ("min_length", -3),
        ("bad_words_ids", [3]), ("suppress_tokens", {"a": 1}), ("do_sample", "yes"), ("max_new_tokens", 0),
        ("stop_strings", [1]), ("repetition_penalty", 0), ("num_beams", True), ("forced_decoder_ids", [[1]]),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_one_line(name, value, folder):
    publish(folder, **{name: value})
    with pytest.raises(ModelFolderError, match=rf"generation_config.json: {name} is .*take the field out") as caught:
        gf.load(folder)
    assert "\n" not in str(caught.value)


def test_ids_that_are_not_there_end_nothing_and_force_nothing(folder):
    publish(folder, eos_token_id=[-1, 4, 50256], suppress_tokens=[300], pad_token_id=-1)
    model, tokenizer = gf.load(folder)
    assert tokenizer.ends == {4, tokenizer.end_of_text} and model.generation_settings.pad_token_id is None
    list(gf.stream(model, tokenizer, "hear", max_new_tokens=3))
    publish(folder, forced_eos_token_id=300)
    with pytest.raises(UsageError, match=r"token 300.*vocabulary"):
        list(gf.stream(*gf.load(folder), "hear", max_new_tokens=3))


# Defaults


def test_defaults_hold_unless_something_else_is_given(folder):
    publish(folder, do_sample=True, temperature=0.6, top_k=5, max_new_tokens=7)
    model, tokenizer = gf.load(folder)

    def tokens(**settings: Any) -> list[int]:
        return [piece.token for piece in gf.stream(model, tokenizer, "hear", seed=3, **settings)]

    assert tokens() == tokens(temperature=0.6, top_k=5, max_new_tokens=7) != tokens(top_k=0, temperature=1.0)
    assert len(tokens(max_new_tokens=3)) == 3
    assert tokens(temperature=2.0) == tokens(temperature=2.0, top_k=5)  # each field by itself
    assert from_the_folder(model, {"temperature": 1.0, "top_k": None}) == {"top_k": 5, "max_new_tokens": 7}


def test_a_folder_that_does_not_sample_is_greedy_until_a_temperature_is_given(folder):
    publish(folder, do_sample=False, temperature=0.6)
    model, tokenizer = gf.load(folder)
    text = [piece.token for piece in gf.stream(model, tokenizer, "hear", max_new_tokens=9)]
    assert text == [p.token for p in gf.stream(model, tokenizer, "hear", max_new_tokens=9, temperature=0)]
    assert text != [p.token for p in gf.stream(model, tokenizer, "hear", max_new_tokens=9, temperature=1.5, seed=1)]


def test_max_length_bounds_the_default_and_not_what_is_asked_for(folder):
    publish(folder, max_length=9)
    model, tokenizer = gf.load(folder)
    n = len(tokenizer.encode("hear me"))
    assert n < 9
    assert len(list(gf.stream(model, tokenizer, "hear me"))) == 9 - n
    assert len(list(gf.stream(model, tokenizer, "hear me", max_new_tokens=11))) == 11


def test_an_empty_prompt_is_the_folders_first_token(folder):
    publish(folder, bos_token_id=11)
    model, tokenizer = gf.load(folder)
    (piece,) = gf.stream(model, tokenizer, "", max_new_tokens=1, temperature=0)
    assert piece.token == int(model(torch.tensor([[11]]))[0, -1].argmax())
    assert piece.token != int(model(torch.tensor([[tokenizer.end_of_text]]))[0, -1].argmax())


# There and back

PUBLISHED = {
    "bos_token_id": 5, "eos_token_id": [276, 4, 9], "pad_token_id": 6, "do_sample": True, "temperature": 0.6,
    "top_p": 0.9, "suppress_tokens": [17, 19], "max_length": 29, "cache_implementation": "hybrid",
    "lang_to_id": {"<|en|>": 3}, "transformers_version": "5.1.0",
}  # fmt: skip


def kept(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "generation_config.json").read_text())
    content.pop("glassformer", None)
    return content


def test_what_a_folder_declares_survives_import_load_and_save(folder, tmp_path):
    publish(folder, **PUBLISHED)
    import_model(folder, tmp_path / "imported")
    gf.save(tmp_path / "saved", *gf.load(tmp_path / "imported"))
    for path in (tmp_path / "imported", tmp_path / "saved"):
        assert kept(path) == PUBLISHED
        config = json.loads((path / "config.json").read_text())
        assert [config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")] == [5, [276, 4, 9], 6]
        theirs = transformers.AutoModelForCausalLM.from_pretrained(path)
        assert theirs.generation_config.eos_token_id == [276, 4, 9] and theirs.generation_config.top_p == 0.9
        model, tokenizer = gf.load(path)
        assert model.generation_settings == gf.load(folder)[0].generation_settings
        assert tokenizer.ends == {276, 4, 9, tokenizer.end_of_text}


def test_older_places_move_to_where_they_are_read_now(folder, tmp_path):
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    old = {"eos_token_id": [4, 9], "no_repeat_ngram_size": 3, "repetition_penalty": 1.2}
    (folder / "config.json").write_text(json.dumps({**config, **old}))
    gf.save(tmp_path / "saved", *gf.load(folder))
    assert kept(tmp_path / "saved").items() >= old.items()


def test_what_is_not_declared_is_no_default_of_ours(tmp_path):
    """Our own folders say `do_sample` for transformers; it is no wish of anybody's, also in folders of the first
    edition, which also said temperature 1."""
    tokenizer = TOKENIZERS["bpe"]([TEXT], vocab_size=277)
    gf.save(tmp_path / "m", toy_model(vocab_size=277, block_size=31), tokenizer)
    file = tmp_path / "m" / "generation_config.json"
    first = json.loads(file.read_text())
    assert first["do_sample"] is True and first["eos_token_id"] == tokenizer.end_of_text
    gf.save(tmp_path / "again", *gf.load(tmp_path / "m"))
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == first
    old = {"do_sample": True, "temperature": 1.0, "bos_token_id": 276, "eos_token_id": 276, "pad_token_id": None}
    file.write_text(json.dumps(old))
    model, _ = gf.load(tmp_path / "m")
    assert from_the_folder(model, {}) == {} and model.generation_settings.do_sample is None
    gf.save(tmp_path / "migrated", *gf.load(tmp_path / "m"))
    assert kept(tmp_path / "migrated") == old


SAMPLING = {"temperature": 0.6, "top_k": 7, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}
SEVERAL_ENDS = {"eos_token_id": [276, 4, 9], "bos_token_id": 5}


@pytest.mark.parametrize("declared", [{"do_sample": True, **SEVERAL_ENDS, **SAMPLING}, {}], ids=["all", "nothing"])
def test_gguf_keeps_what_it_has_a_place_for(declared: dict[str, Any], folder, tmp_path):
    """Three ends, the first token, the defaults of sampling; there and back, and out as a folder."""
    pytest.importorskip("gguf")
    publish(folder, **declared)
    model, tokenizer = gf.load(folder)
    save_gguf(tmp_path / "m.gguf", model, tokenizer)
    import_model(tmp_path / "m.gguf", tmp_path / "back")
    again, its = gf.load(tmp_path / "back")
    assert its.ends == tokenizer.ends == ({276, 4, 9} if declared else {tokenizer.end_of_text})
    assert again.generation_settings.sampling_defaults() == (SAMPLING if declared else {})
    wanted = {**SAMPLING, **SEVERAL_ENDS} if declared else {"eos_token_id": tokenizer.end_of_text}
    assert kept(tmp_path / "back").items() >= wanted.items()
