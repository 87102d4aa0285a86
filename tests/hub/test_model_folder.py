"""Model folders: bit for bit there and back, and every damage is one line that says what to do."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import everything, refused
from safetensors.torch import load_file, save_file
from test_what_families_represent import BASES, POST_NORM, SHAPE
from toys import GEMMA3, toy_config, toy_ids, toy_model

import glassformer as gf
from glassformer import files
from glassformer.errors import GlassformerError, UsageError
from glassformer.generation import answer, classify, generate
from glassformer.generation.encoders import embed
from glassformer.generation.engine import Engine
from glassformer.generation.requests import Request
from glassformer.hub import (
    FAMILIES,
    family_for,
    load_labels,
    load_model,
    load_weights,
    model_folder_of,
    save,
    save_weights,
)
from glassformer.hub.configuration import MAX_JSON_BYTES
from glassformer.inspection.reading import read
from glassformer.models import EncoderConfig, EncoderDecoderConfig, build_model
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer


def edit(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; `...` takes one out."""
    changed = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not ...}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model", toy_model())
    return tmp_path / "model"


LINEAR = {"rope_type": "linear", "factor": 2.0}
# What no Hugging Face family can say
INEXPRESSIBLE = {
    "classic with rotary positions": ("classic", {"positions": "rotary", "head_width": 6}),
    "classic with grouped heads": ("classic", {"n_kv_head": 1}),
    "classic with QK-norm": ("classic", {"qk_norm": True}),
    "classic, squared ReLU": ("classic", {"activation": "relu2"}),
    "modern with biases": ("modern", {"bias": True}),
    "modern with n-grams": ("modern", {"n_gram": 3, "n_gram_rows": 101}),
    "classic with n-grams": ("classic", {"n_gram": 2}),
    "modern without positions": ("modern", {"positions": "none"}),
    "modern, plain feed-forward": ("modern", {"feedforward": "plain"}),
    "windows of two widths": ("modern", {"qk_norm": False, "patterns": ("window(3)", "window(5)")}),
    "another rotary scaling": ("modern", {"rotary_scaling": {"rope_type": "ntk", "factor": 2.0}}),
    "gemma with capped scores": ("modern", {**GEMMA3, "attention_softcap": 5.0}),
    "gemma with windows of two widths": ("modern", {**GEMMA3, "patterns": ("window(3)", "window(5)")}),
    "gemma with sinks": ("modern", {**GEMMA3, "patterns": ("window(3) | sinks(1)", "causal")}),
    "gemma with one scaled base": ("modern", {**GEMMA3, "rotary_scaling": LINEAR, "rotary_base_local": None}),
    "gemma with plain norms": ("modern", {**GEMMA3, "norm": "rmsnorm"}),
    "gemma without a scaled embedding": ("modern", {**GEMMA3, "embedding_scale": 1.0}),
    "gemma with heads of no whole width": ("modern", {**GEMMA3, "n_embd": 44, "embedding_scale": 44**0.5}),
    "gemma with hardly any scores": ("modern", {**GEMMA3, "attention_scale": 1e-200}),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_no_family_expresses_is_kept_under_our_own_name(case: str, tmp_path: Path):
    family, changes = INEXPRESSIBLE[case]
    model = toy_model(family, **changes, tied_head=False)
    save(tmp_path, model)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "glassformer"
    again = load_model(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(toy_ids(2, 7)), model(toy_ids(2, 7)))


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [("classic", {}, "gpt2"), ("modern", {}, "qwen3"), ("modern", {"qk_norm": False}, "llama")],
)
def test_the_fields_choose_the_family_and_not_its_name(family: str, changes: dict, expected: str):
    fields = toy_config(family, **changes).model_dump()
    other = {"classic": "modern", "modern": "classic"}[family]
    for config in (toy_config(**fields), toy_config(**{**fields, "family": other})):
        assert family_for(config).model_type == expected


@pytest.mark.parametrize("tied_head", [True, False])
@pytest.mark.parametrize("family", ["classic", "modern"])
def test_there_and_back_is_the_same_to_the_last_bit(family: str, tied_head: bool, tmp_path: Path):
    tokenizer = TOKENIZERS["characters"](["hello world"])
    model = toy_model(family, tied_head=tied_head)
    gf.save(tmp_path / "a", model, tokenizer)
    again, tokenizer_again = gf.load(tmp_path / "a")
    assert torch.equal(again(toy_ids(2, 7)), model(toy_ids(2, 7)))
    assert tokenizer_again == tokenizer
    gf.save(tmp_path / "b", again, tokenizer_again)
    assert everything(tmp_path / "b") == everything(tmp_path / "a")


def test_a_folder_holds_these_files_and_tied_weights_once(tmp_path: Path):
    gf.save(tmp_path, toy_model(), TOKENIZERS["characters"](["hello"]))
    names = "config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json"
    assert sorted(everything(tmp_path)) == names.split()
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_run_folders_and_checkpoints_open_by_their_name(tmp_path: Path):
    for name in ("runs/first/model", "runs/second/model"):
        save(tmp_path / name, toy_model())
    (tmp_path / "runs" / "young").mkdir()
    runs = tmp_path / "runs"
    assert model_folder_of(runs / "first") == model_folder_of(runs / "first" / "model") == runs / "first" / "model"
    assert f"did you mean {runs}/first?" in refused(lambda: model_folder_of(runs / "frist"))
    assert refused(lambda: model_folder_of(tmp_path / "nowhere" / "x")).endswith("glassformer train shakespeare-fast")
    assert "config.json" in refused(lambda: model_folder_of(runs / "young"))


# Damage: the error names the file or field, says what is wrong with it, and where it helps what to do


def change_weights(change):
    """A function that rewrites the tensors of a folder."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(change(weights), folder / "model.safetensors")

    return damage


def without(name: str):
    return change_weights(lambda weights: {n: t for n, t in weights.items() if n != name})


SURPRISE = change_weights(lambda weights: {**weights, "surprise.weight": torch.ones(3)})
DAMAGE = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors missing copy train"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json missing"),
    "a header that promises too much": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
        "model.safetensors damaged truncated",
    ),
    "a pickle": (lambda f: torch.save({"a": torch.zeros(3)}, f / "model.safetensors"), "damaged truncated"),
    "another encoding": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{\x00}"), "config.json byte damaged"),
    "too large, a hole": (lambda f: os.truncate(f / "config.json", MAX_JSON_BYTES + 1), "config.json 64 MiB"),
    "an unknown family": (lambda f: edit(f / "config.json", model_type="qwen4"), " ".join(["'qwen4'", *FAMILIES])),
    "no n_embd": (lambda f: edit(f / "config.json", n_embd=...), "config.json n_embd missing"),
    "another shape": (
        lambda f: edit(f / "config.json", n_inner=29),
        "blocks.0.feedforward.up.weight (29, (23,",
    ),
    "a tensor too many": (SURPRISE, "surprise.weight place"),
    "a tensor too few": (without("transformer.h.1.ln_2.weight"), "transformer.h.1.ln_2.weight missing copy"),
    "whole numbers": (change_weights(lambda weights: {n: t.to(torch.int8) for n, t in weights.items()}), "torch.int8"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_refused(folder: Path, what: str):
    damage, words = DAMAGE[what]
    damage(folder)
    line = refused(lambda: load_model(folder))
    assert line.startswith(str(folder)) and "did you mean" not in line
    assert all(word in line for word in words.split())


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.05, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(len(data) * share)])
    line = refused(lambda: load_model(folder))
    assert line.startswith(f"{folder}/model.safetensors: ") and "copy it again" in line


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", '"gpt2"', "\ufeff[]", "[" * 100_000, '{"model_type": "gpt2"'),
        '{"n_layer": 1' + "0" * 5000 + "}",
    ],
)
def test_a_config_that_is_no_json_object(folder: Path, text: str):
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert refused(lambda: load_model(folder)).startswith(f"{folder}/config.json: ")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_with_a_byte_order_mark(folder: Path, encoding: str):
    """PowerShell and Notepad write them."""
    plain = load_model(folder)
    for name in ("config.json", "generation_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding=encoding)
    assert load_model(folder).config == plain.config


@pytest.mark.parametrize(
    ("damage", "words"),
    [(SURPRISE, ("surprise.weight", "None", "(3,)")), (without("final_norm.weight"), ("final_norm.weight", "(15,)"))],
)
def test_a_tensor_is_missing_or_left_over_in_our_own_form(damage, words, tmp_path: Path):
    save(tmp_path, toy_model(qk_norm=True))
    damage(tmp_path)
    line = refused(lambda: load_model(tmp_path))
    assert all(word in line for word in words)


def test_biases_that_a_bias_free_model_should_not_have(tmp_path: Path):
    """They are stored as zeros for transformers' sake; biases that were trained there may not just vanish."""
    save(tmp_path, toy_model(bias=False))
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.bias"][7] = 0.5
    save_file(weights, tmp_path / "model.safetensors")
    assert "blocks.1.feedforward.up.bias" in refused(lambda: load_model(tmp_path))


QWEN3 = toy_config("modern", rotary_scaling=LINEAR)
BERT = EncoderConfig.make(**SHAPE, **POST_NORM, n_classes=4, pooler=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.just(10**30) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["rope_type", "bias", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> dict[str, Path]:
    configs = {**BASES, "glassformer": toy_config(qk_norm=True), "bert": BERT, "qwen3": QWEN3}
    folders = {name: tmp_path_factory.mktemp("fuzz") / name for name in configs}
    for name, config in configs.items():
        save(folders[name], build_model(config))
        assert json.loads((folders[name] / "config.json").read_text())["model_type"] == name
    return folders


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_in_a_config_is_one_line_or_a_model(families: dict[str, Path], data):
    """Any field of config.json replaced by any value: it loads, or it is our own error; never a traceback."""
    path = families[data.draw(st.sampled_from(sorted(families)))] / "config.json"
    good = path.read_text()
    given = json.loads(good)
    target = given.get("config", given) if data.draw(st.booleans()) else given
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    path.write_text(json.dumps(given))
    try:
        load_model(path.parent)
        load_labels(path.parent)
    except GlassformerError as error:
        assert "\n" not in str(error)
    finally:
        path.write_text(good)


# Failed writes


def test_a_failed_save_leaves_the_old_folder(folder: Path, monkeypatch):
    """The disk is full when the new weights are flushed; the old model still loads and nothing lies about."""
    before, beside = everything(folder), sorted(folder.parent.iterdir())

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fsync)
    line = refused(lambda: save(folder, toy_model(seed=1)))
    assert "no space left" in line and "nothing was replaced" in line
    assert everything(folder) == before and sorted(folder.parent.iterdir()) == beside


def test_weights_larger_than_the_disk_allows(tmp_path: Path):
    """safetensors writes from Rust and wraps the system's refusal in a text; a limit of 4 KiB a file shows it."""
    program = (
        "import resource, sys, torch; from glassformer.errors import GlassformerError\n"
        "from glassformer.hub import save_weights\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_weights(sys.argv[1], {'a': torch.zeros(10_000)})\n"
        "except GlassformerError as error: print(error)"
    )
    save_weights(tmp_path / "a.safetensors", {"a": torch.ones(3)})
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.safetensors"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{tmp_path}/a.safetensors: ") and "nothing was replaced" in done.stdout
    assert list(everything(tmp_path)) == ["a.safetensors"]
    assert load_weights(tmp_path / "a.safetensors")["a"].tolist() == [1, 1, 1]


def test_a_folder_with_other_things_in_it_is_not_replaced(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    assert "choose an empty or a new folder" in refused(lambda: save(tmp_path, toy_model()))
    assert everything(tmp_path) == {"thesis.txt": b"three years of work"}


def test_a_file_where_the_folder_should_go_stays(tmp_path: Path):
    (tmp_path / "model").write_text("notes")
    assert "this is a file" in refused(lambda: save(tmp_path / "model", toy_model()))
    assert (tmp_path / "model").read_text() == "notes"


@pytest.fixture
def one_more(tmp_path: Path) -> Path:
    """A folder like those of Gemma 3's text models: the tokenizer has a mark for images, the table no row for it."""
    tokenizer = TOKENIZERS["bytes"](specials=("<end>", "<image>"))
    gf.save(tmp_path / "model", toy_model(vocab_size=257), tokenizer)
    return tmp_path / "model"


def test_an_added_token_beyond_the_table_is_never_drawn(one_more: Path):
    model, tokenizer = gf.load(one_more)
    assert (tokenizer.vocab_size, model.config.vocab_size) == (258, 257)
    drawn = generate(model, tokenizer, "a", max_new_tokens=50, samples=3, temperature=100.0, alternatives=300, seed=1)
    assert {piece.token for sample in drawn for piece in sample.pieces} <= set(range(257))
    assert {len(piece.alternatives) for sample in drawn for piece in sample.pieces} == {257}


def test_an_added_token_beyond_the_table_is_refused_in_a_prompt(one_more: Path):
    model, tokenizer = gf.load(one_more)
    engine = Engine(model, tokenizer)
    with pytest.raises(UsageError, match="token 257"):
        engine.submit(Request(ids=tuple(tokenizer.encode_parts(["a", tokenizer.special_tokens["<image>"]]))))


NO_TABLE_ROW = {
    "embed": lambda model, tokenizer: embed(model, tokenizer, ["a<image>"]),
    "classify": lambda model, tokenizer: classify(model, tokenizer, ["a<image>"]),
    "translate": lambda model, tokenizer: answer(model, tokenizer, ["a<image>"]),
    "look": lambda model, tokenizer: read(model, tokenizer, "a<image>"),
    "look into a translator": lambda model, tokenizer: read(model, tokenizer, "a<image>", target="a"),
    "generate": lambda model, tokenizer: generate(model, tokenizer, "a<image>"),
}


@pytest.mark.parametrize("what", NO_TABLE_ROW)
def test_no_reader_takes_an_added_token_beyond_the_table(what: str):
    """Tokens that are added and not special come out of text (`<image>` typed by a person)."""
    library = tokenizers.Tokenizer.from_str(TOKENIZERS["bytes"](specials=("</s>",)).to_json())
    library.add_tokens(["<image>"])
    tokenizer = Tokenizer(library, end_of_text="</s>")
    shape = {"vocab_size": 257, "block_size": 13, "n_layer": 1, "n_head": 3, "n_embd": 18, "n_hidden": 23}
    config = toy_config(**shape)
    if "translat" in what:
        config = EncoderDecoderConfig.make(**shape, start_token=1, end_token=2)
    elif what in ("embed", "classify"):
        config = EncoderConfig.make(**shape, n_classes=3)
    assert 257 in tokenizer.encode("a<image>")
    with pytest.raises(UsageError, match=r"token 257 \(<image>\)"):
        NO_TABLE_ROW[what](build_model(config), tokenizer)


def test_a_text_token_beyond_the_table_belongs_to_another_model(tmp_path: Path):
    gf.save(tmp_path, toy_model(vocab_size=255), TOKENIZERS["bytes"]())
    line = refused(lambda: gf.load(tmp_path))
    assert line.startswith(f"{tmp_path}: ") and all(word in line for word in ("257", "255", "take the tokenizer"))
