"""GGUF files: what we write reads the same, to the last bit or within what rounding explains, or is not kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf_standins import MODELS, TEXT, logits, toy
from toys import toy_ids, toy_model

from glassformer.errors import MissingExtraError, ModelFolderError, UsageError
from glassformer.hub import save_gguf
from glassformer.hub.gguf import writing as gguf_writing
from glassformer.hub.gguf.file import read_gguf
from glassformer.hub.gguf.reading import load_gguf
from glassformer.models import EncoderConfig, build_model
from glassformer.processors.tokenizers import TOKENIZERS

# Read again


@pytest.mark.parametrize("kind", ["bpe", "characters", "bytes"])
@pytest.mark.parametrize("case", MODELS)
def test_there_and_back_to_the_last_bit(case: str, kind: str, tokenizers, tmp_path: Path):
    tokenizer = tokenizers[kind]
    model = toy(case, tokenizer)
    verified = save_gguf(tmp_path / "toy.gguf", model, tokenizer)
    exactly = 1e-6 if case == "gemma3" else 0  # which keeps the scales of norms one more than they are
    assert verified.difference <= exactly
    again, its = load_gguf(tmp_path / "toy.gguf")
    ids = toy_ids(2, 13, vocab_size=tokenizer.vocab_size)
    theirs, ours = logits(again, ids)[..., : tokenizer.vocab_size], logits(model, ids)
    assert (ours - theirs).abs().max() <= exactly * ours.abs().max() and ours.std() > 0.5
    assert its.kind == kind and its.encode(TEXT) == tokenizer.encode(TEXT) and its.decode(its.encode(TEXT)) == TEXT
    if kind == "characters":
        assert again.config.vocab_size == its.vocab_size == tokenizer.vocab_size + 1
    else:
        zeros = {"bias": True}  # a gpt2 always has biases
        assert again.config.model_dump() == model.config.model_dump() | (zeros if "gpt2" in case else {})
        assert its == tokenizer and its.end_of_text == tokenizer.end_of_text
    assert [path.name for path in tmp_path.iterdir()] == ["toy.gguf"]


@pytest.mark.parametrize("number_format", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("case", ["gpt2", "qwen3", "llama, own head"])
def test_narrower_numbers_stay_near(case: str, number_format: str, tokenizers, tmp_path: Path):
    tokenizer = tokenizers["bpe"]
    model = toy(case, tokenizer, n_embd=96, n_hidden=160)
    for parameter in model.parameters():
        parameter.data *= 0.5 if parameter.dim() > 1 else 1.0  # or attention is all or nothing, and errors grow
    verified = save_gguf(tmp_path / "toy.gguf", model, tokenizer, type=number_format)
    again, _ = load_gguf(tmp_path / "toy.gguf")
    ids = toy_ids(2, 13, vocab_size=293)
    ours, theirs = logits(model, ids), logits(again, ids)
    bound = {"f16": 3e-3, "bf16": 2e-2, "q8_0": 8e-2}[number_format]  # measured: 0.0016, 0.011, 0.045 at the most
    assert 0 < verified.difference < bound and 0 < (ours - theirs).abs().max() / ours.abs().max() < bound
    kinds = {name: tensor.kind.name for name, tensor in read_gguf(tmp_path / "toy.gguf").tensors.items()}
    assert {kind for name, kind in kinds.items() if "norm" in name or "bias" in name} == {"F32"}
    assert kinds["blk.1.ffn_up.weight"] == kinds["token_embd.weight"] == number_format.upper()


def test_rows_that_are_no_multiple_of_a_block_become_f16(tokenizers, tmp_path: Path):
    save_gguf(tmp_path / "toy.gguf", toy("qwen3", tokenizers["bpe"], n_embd=42, n_hidden=64), tokenizers["bpe"],
              type="q8_0")  # fmt: skip
    kinds = {name: tensor.kind.name for name, tensor in read_gguf(tmp_path / "toy.gguf").tensors.items()}
    assert (kinds["blk.0.ffn_up.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")  # rows of 42, of 64


def test_the_made_up_end_of_text_never_wins(tokenizers, tmp_path: Path):
    """Its row is a copy of a character's, so its logit is that one's, and the first of two equal ones is taken."""
    tokenizer = tokenizers["characters"]
    V = tokenizer.vocab_size
    for case in ("gpt2", "llama, own head"):
        save_gguf(tmp_path / "toy.gguf", toy(case, tokenizer), tokenizer)
        again, its = load_gguf(tmp_path / "toy.gguf")
        assert its.end_of_text == V and its.token_text(V) == "<|endoftext|>"
        logits_BTV = logits(again, torch.arange(V)[:, None])
        twin = (logits_BTV[..., :V] == logits_BTV[..., V:]).all(dim=(0, 1)).nonzero()
        assert len(twin) == 1 and (logits_BTV.argmax(dim=-1) != V).all()
        save_gguf(tmp_path / "again.gguf", again, its)  # it has an end now, and needs no other
        assert load_gguf(tmp_path / "again.gguf")[0].config.vocab_size == V + 1


def test_a_model_with_spare_rows_takes_one_of_them_as_its_end(tokenizers, tmp_path: Path):
    tokenizer = tokenizers["characters"]
    save_gguf(tmp_path / "toy.gguf", toy("gpt2", tokenizer, vocab_size=tokenizer.vocab_size + 5), tokenizer)
    again, its = load_gguf(tmp_path / "toy.gguf")
    assert again.config.vocab_size == tokenizer.vocab_size + 5
    assert its.vocab_size == tokenizer.vocab_size + 1 and its.encode(TEXT) == tokenizer.encode(TEXT)


# A verification that fails


def multiplied(factor: float):
    def plant(monkeypatch):
        quantize = gguf.quants.quantize
        monkeypatch.setattr(gguf.quants, "quantize", lambda data, kind: quantize(data * factor, kind))

    return plant


def wrong_order(monkeypatch):
    tensors = gguf_writing._tensors

    def rolled(*args: Any) -> dict[str, torch.Tensor]:
        return {n: t.roll(1, 0) if "attn_q" in n or "attn_qkv" in n else t for n, t in tensors(*args).items()}

    monkeypatch.setattr(gguf_writing, "_tensors", rolled)


def wrong_logits(monkeypatch):
    """As if a field of the header was another: the numbers are right, what is done with them is not."""

    def scaled(path: Any) -> tuple[Any, Any]:
        model, tokenizer = load_gguf(path)
        model.register_forward_hook(lambda module, inputs, output: output * 1.0001)
        return model, tokenizer

    monkeypatch.setattr(gguf_writing, "load_gguf", scaled)


def wrong_tokens(monkeypatch):
    fields = gguf_writing.tokenizer_to_gguf

    def swapped(*args: Any) -> dict[str, Any]:
        shown = fields(*args)
        tokens = shown["tokenizer.ggml.tokens"]
        tokens[3], tokens[5] = tokens[5], tokens[3]
        return shown

    monkeypatch.setattr(gguf_writing, "tokenizer_to_gguf", swapped)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (multiplied(1.01), "read again, embedding.token.weight is off by 0.0"),
        (wrong_order, "read again, blocks.0.attention.qkv."),
        (multiplied(float("nan")), "read again, embedding.token.weight is off by nan"),
        (wrong_logits, "read again, its logits are off by "),
        (wrong_tokens, "its tokenizer gives other ids; please report this"),
    ],
)
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_what_reads_otherwise_is_never_kept(case: str, plant, message: str, tokenizers, tmp_path: Path, monkeypatch):
    tokenizer, path = tokenizers["characters"], tmp_path / "toy.gguf"
    model = toy(case, tokenizer)
    for older in (None, b"older"):
        if older:
            path.write_bytes(older)
        with monkeypatch.context() as patch, pytest.raises(ModelFolderError) as error:
            plant(patch)
            save_gguf(path, model, tokenizer)
        assert str(error.value).startswith(f"{path}: {message}")
        assert [file.read_bytes() for file in tmp_path.iterdir()] == ([older] if older else [])
    save_gguf(path, model, tokenizer)


@pytest.mark.parametrize("number_format", ["f32", "f16", "bf16", "q8_0"])
def test_one_number_off_by_one_step_is_noticed(number_format: str, tokenizers, tmp_path: Path, monkeypatch):
    """One step of the number format more than rounding explains, in one number of one matrix."""
    tokenizer = tokenizers["bpe"]
    model = toy("llama", tokenizer, n_embd=96, n_hidden=160)
    step = {"f32": 2**-20, "f16": 2**-10, "bf16": 2**-7, "q8_0": 1 / 127}[number_format]
    tensors = gguf_writing._tensors

    def nudged(*args: Any) -> dict[str, torch.Tensor]:
        found = tensors(*args)
        found["blk.1.ffn_up.weight"] = nearly = found["blk.1.ffn_up.weight"].clone()
        nearly[7, nearly[7].abs().argmax()] *= 1 + step
        return found

    monkeypatch.setattr(gguf_writing, "_tensors", nudged)
    with pytest.raises(ModelFolderError, match=r"blocks\.1\.feedforward\.gate_up\.weight is off by"):
        save_gguf(tmp_path / "toy.gguf", model, tokenizer, type=number_format)


# What is refused

YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 7}
REFUSED = [
    ("classic", {"activation": "relu"}, "gpt2 gelu_new relu"),
    ("modern", {"activation": "gelu"}, "qwen3 silu gelu"),
    ("modern", {"rotary_scaling": YARN}, "'yarn' linear"),
    ("classic", {"positions": "alibi"}, "glassformer llama qwen2 qwen3 gemma3_text gpt2 can"),
    ("modern", {"patterns": ("window(5)",)}, "qwen3 use_sliding_window --to hf"),
    ("modern", {"qk_norm": False, "qkv_bias": True, "out_bias": True}, "llama attention_bias --to hf"),
    ("classic", {"vocab_size": 17}, "257 tokens 17 logits"),
]


@pytest.mark.parametrize(("family", "changes", "words"), REFUSED)
def test_what_gguf_cannot_express(family: str, changes, words: str, tokenizers, tmp_path: Path):
    with pytest.raises(ModelFolderError) as error:
        save_gguf(tmp_path / "toy.gguf", toy_model(family, **{"vocab_size": 257, **changes}), tokenizers["bytes"])
    assert all(word in str(error.value) for word in words.split()) and not [*tmp_path.iterdir()]


def test_other_models_tokenizers_and_types(tokenizers, tmp_path: Path, monkeypatch):
    path = tmp_path / "toy.gguf"
    encoder = build_model(EncoderConfig.make(vocab_size=61, block_size=13, n_layer=1, n_head=3, n_embd=18))
    with pytest.raises(ModelFolderError, match="cannot be written as GGUF"):
        save_gguf(path, encoder, tokenizers["characters"])
    words = TOKENIZERS["words"](["to be or not to be"], specials=("<|endoftext|>",))
    with pytest.raises(ModelFolderError, match="a words tokenizer is not written to GGUF"):
        save_gguf(path, toy("gpt2", words), words)
    with pytest.raises(UsageError, match=r"type='q4_0' is unknown; use f32, f16"):
        save_gguf(path, toy("gpt2", tokenizers["bpe"]), tokenizers["bpe"], type="q4_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[gguf\]'"):
        save_gguf(path, toy("gpt2", tokenizers["bpe"]), tokenizers["bpe"])
    assert not [*tmp_path.iterdir()]
