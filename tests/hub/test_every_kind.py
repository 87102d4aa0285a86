"""Every kind of model that there is goes into a folder and comes out the same, in our own form where in no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from refusals import refused
from toys import shaken, toy_ids

import glassformer as gf
from glassformer import plugins
from glassformer.cli.options import open_for
from glassformer.errors import GlassformerError, ModelFolderError, TokenizerError
from glassformer.hub import load_labels, load_model, load_source_tokenizer, save
from glassformer.models import (
    MODELS,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    build_model,
    kind_of,
    make_config,
)
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.server.app import open_models

plugins.load_installed()  # the models of glassformer.history
SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
OURS_ALONE = {"positions": "alibi", "attention_softcap": 7.0}  # what no family elsewhere has


def translator(**changes: object) -> EncoderDecoderConfig:
    return EncoderDecoderConfig.make(**{**SHAPE, **OURS_ALONE, "start_token": 1, "end_token": 2, **changes})


CONFIGS = {
    "decoder": ModelConfig.make(**SHAPE, **OURS_ALONE),
    "decoder with every field": ModelConfig.make(
        **SHAPE,
        positions="rotary", rotary_fraction=0.4, rotary_scaling={"rope_type": "ntk", "factor": 2.0},
        patterns=["window(5)", "causal"], n_expert=3, head_bias=True, attention_sinks=True,
        embedding_norm=True, logit_softcap=9.0, n_gram=2, head_width=10, n_kv_head=1,
        norm="zero_centered_rmsnorm", norm_place="sandwich", rotary_base_local=7.0,
    ),
    "encoder of tokens": EncoderConfig.make(**SHAPE, **OURS_ALONE, token_head="vocabulary"),
    "encoder of classes": EncoderConfig.make(**SHAPE, **OURS_ALONE, n_classes=5, pooling="mean", n_segments=2),
    "encoder of patches": EncoderConfig.make(
        **{**SHAPE, "vocab_size": 1, "block_size": 5}, stem="patches", image_size=8, patch_size=4, n_classes=7,
        pooling="mean",
    ),
    "encoder of sets": EncoderConfig.make(**SHAPE, stem="set", n_inputs=5, n_classes=1, number_scale=3),
    "encoder of graphs": EncoderConfig.make(**SHAPE, stem="graph", patterns=["graph(1)", "full"], n_classes=3),
    "encoder of frames": EncoderConfig.make(**{**SHAPE, "vocab_size": 1}, stem="frames", n_mels=7),
    "encoder and decoder": translator(),
    "encoder and decoder, own tables": translator(shared_embedding=False, tied_head=False),
    "encoder and decoder, two vocabularies": translator(source_vocab_size=37, n_decoder_layer=1),
}  # fmt: skip
LANGUAGE_MODELS = {"vocab_size": 61, "block_size": 13}
SIZES = {"n_embd": 7, "n_hidden": 11}
TOKENS = {"start_token": 1, "end_token": 2}
HISTORY_FIELDS = {
    "n-gram": {"n_gram": 3},
    "bigram": {},
    "mlp": {**SIZES, "direct": True},
    "rnn": SIZES,
    "gru": {**SIZES, "n_layer": 2},
    "lstm": SIZES,
    "lstm-attention": SIZES,
    "skip-gram": {"n_embd": 7},
    "seq2seq": {**SIZES, **TOKENS, "cell": "lstm"},
    "seq2seq-attention": {**SIZES, **TOKENS, "source_vocab_size": 37},
}


def assert_same_model(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert a.config == b.config and type(a) is type(b) and not b.training
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]  # tied as before
    assert all(p.device.type == "cpu" and p.requires_grad == q.requires_grad
               for p, q in zip(b.parameters(), a.parameters(), strict=True))  # fmt: skip


@pytest.mark.parametrize("kind", sorted(HISTORY_FIELDS))
def test_there_and_back_for_the_models_that_came_before(kind: str, tmp_path: Path):
    config = make_config(kind, **LANGUAGE_MODELS, **HISTORY_FIELDS[kind])
    model = build_model(config).eval()
    ids = toy_ids(1, 40)[0]
    if kind == "n-gram":
        model.fit(ids)  # its tables are as long as what was counted
    else:
        shaken(model)
    save(tmp_path, model, TOKENIZERS["characters"](["hello"]))
    again, _ = gf.load(tmp_path)
    assert_same_model(model, again)
    inputs = [ids[None, :7]] if "seq2seq" not in kind else [ids[None, :9] % 37, ids[None, :7]]
    torch.testing.assert_close(again(*inputs), model(*inputs))  # memory elsewhere, sums in another order


@pytest.mark.parametrize("case", CONFIGS)
def test_what_save_writes_load_reads(case: str, tmp_path: Path):
    """With the tokenizer where there is text, and None where there is none."""
    model = shaken(build_model(CONFIGS[case])).eval()
    no_text = case in ("encoder of patches", "encoder of frames", "encoder of sets", "encoder of graphs")
    tokenizer = None if no_text else TOKENIZERS["characters"](["hello"])
    gf.save(tmp_path, model, tokenizer)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "glassformer"
    again, its_tokenizer = gf.load(tmp_path)
    assert_same_model(model, again)
    assert its_tokenizer == tokenizer and load_source_tokenizer(tmp_path) == tokenizer
    gf.save(tmp_path / "again", again, its_tokenizer)
    assert_same_model(model, gf.load(tmp_path / "again")[0])
    if not no_text:
        (tmp_path / "tokenizer.json").unlink()
        with pytest.raises(TokenizerError, match=r"holds no tokenizer\.json"):
            gf.load(tmp_path)


def test_every_kind_of_model_is_among_these():
    # tasks/test_preferences.py, test_linear_functions.py, test_decision.py, test_text_to_speech.py, test_image_text.py
    elsewhere = {"decoder_classifier", "vector_decoder", "trajectory_decoder", "speech_decoder", "dual_encoder"}
    kinds = {kind_of(config) for config in CONFIGS.values()} | HISTORY_FIELDS.keys() | elsewhere
    assert kinds == MODELS.keys()


@pytest.mark.parametrize("images", [True, False])
def test_a_vision_transformer_and_what_is_asked_of_it(images: bool, tmp_path: Path):
    """In the form of transformers; commands for texts refuse it in one line."""
    config = EncoderConfig.make(
        **{**SHAPE, "vocab_size": 1, "block_size": 5}, stem="patches", image_size=8, patch_size=4, n_classes=7
    )
    model = shaken(build_model(config)).eval()
    gf.save(tmp_path, model, labels=[f"digit {n}" for n in range(7)])
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vit"
    again, tokenizer = gf.load(tmp_path, dtype="bf16" if images else "fp32")
    assert tokenizer is None and again.config == config
    if not images:  # a server only looks into it
        (handle,) = open_models([str(tmp_path)], device="cpu", dtype="fp32").values()
        assert handle.use == "looking inside"
    with pytest.raises(GlassformerError) as error:
        open_for("generate", str(tmp_path), "cpu")
    assert "Encoder" in str(error.value) and "\n" not in str(error.value)


def test_a_loaded_translator_is_tied_and_can_be_trained_on(tmp_path: Path):
    save(tmp_path, shaken(build_model(CONFIGS["encoder and decoder"])))
    model = load_model(tmp_path).train()
    model(toy_ids(2, 7), toy_ids(2, 5)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.encoder.embedding.token.weight is model.decoder.embedding.token.weight is model.decoder.head.weight


def test_a_snapshot_is_written_in_place_of_the_model(tmp_path: Path):
    model = shaken(build_model(CONFIGS["encoder and decoder"])).eval()
    snapshot = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save(tmp_path, model, weights=snapshot)
    again = load_model(tmp_path).state_dict()
    assert all(torch.equal(again[name], snapshot[name]) for name in snapshot)


# Tokenizers, special tokens, names of classes


def test_two_tokenizers_lie_in_one_folder(tmp_path: Path):
    french, english = TOKENIZERS["characters"](["bonjour"]), TOKENIZERS["characters"](["good day"])
    model = build_model(CONFIGS["encoder and decoder, two vocabularies"])
    save(tmp_path / "two", model, french, english)
    assert gf.load(tmp_path / "two")[1] == french
    assert load_source_tokenizer(tmp_path / "two") == english
    for name, source in (("one", None), ("the same", french)):
        save(tmp_path / name, model, french, source)
        assert not (tmp_path / name / "source").exists()
        assert load_source_tokenizer(tmp_path / name) == french


def test_a_source_tokenizer_with_more_tokens_than_the_encoder_has_rows(tmp_path: Path):
    tokenizer = TOKENIZERS["characters"](["".join(map(chr, range(33, 33 + 40)))])
    save(tmp_path, build_model(CONFIGS["encoder and decoder, two vocabularies"]), tokenizer)
    for opened in (load_source_tokenizer, gf.load):
        with pytest.raises(ModelFolderError, match=r"40 tokens .* 37 rows"):
            opened(tmp_path)


def test_special_tokens_of_a_translator_stand_where_transformers_looks(tmp_path: Path):
    save(tmp_path, build_model(translator(start_token=5, end_token=3, pad_token=4)))
    wanted = {"decoder_start_token_id": 5, "eos_token_id": 3, "pad_token_id": 4, "forced_eos_token_id": None}
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / name).read_text()).items() >= wanted.items(), name


def test_an_encoder_generates_nothing(tmp_path: Path):
    save(tmp_path, build_model(CONFIGS["encoder of tokens"]))
    assert not (tmp_path / "generation_config.json").exists()


def test_the_names_of_classes_are_kept(tmp_path: Path):
    classifier = build_model(CONFIGS["encoder of classes"])
    names = ("worst", "bad", "fair", "good", "best")
    save(tmp_path / "named", classifier, labels=names)
    assert load_labels(tmp_path / "named") == names
    assert json.loads((tmp_path / "named" / "config.json").read_text())["label2id"]["good"] == 3
    save(tmp_path / "unnamed", classifier)
    assert load_labels(tmp_path / "unnamed") == tuple(f"LABEL_{n}" for n in range(5))
    save(tmp_path / "decoder", build_model(CONFIGS["decoder"]))
    assert load_labels(tmp_path / "decoder") == ()
    with pytest.raises(ModelFolderError, match=r"2 names .* 5"):
        save(tmp_path / "wrong", classifier, labels=("bad", "good"))


# Our own form, now and before


def test_a_folder_from_before_there_were_kinds_still_opens(tmp_path: Path):
    model = shaken(build_model(CONFIGS["decoder"])).eval()
    save(tmp_path, model)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("kind") == "decoder"
    path.write_text(json.dumps({**config, "decoder": config.pop("config"), "glassformer": {"bias": True}}))
    assert_same_model(model, load_model(tmp_path))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "encodr"}, "kind='encodr' is unknown; did you mean encoder?"),
        ({"kind": "encoder_decoder"}, "unknown key model.stem"),
        ({"config": {"vocab_size": 61}}, "model.block_size is missing"),
        ({"config": [1]}, "a field has a value of the wrong kind"),
        ({"glassformer": {"config": {"n_haed": 3}}}, "unknown key model.n_haed; did you mean n_head?"),
        ({"glassformer": {"config": {"n_head": "three"}}}, "model.n_head='three' is not a whole number"),
        ({"glassformer": {"config": 3}}, "a field has a value of the wrong kind"),
    ],
)
def test_what_is_wrong_with_our_own_form_is_one_line(changes: dict, text: str, tmp_path: Path):
    save(tmp_path, build_model(CONFIGS["encoder of tokens"]))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    line = refused(lambda: load_model(tmp_path))
    assert line.startswith(f"{path}: ") and text in line
