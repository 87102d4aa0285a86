"""Models of other programs, imported: the same logits, in one file or many, or one clear line and nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nano_gpt import NanoGPT, save_checkpoint
from refusals import refused
from safetensors.torch import load_file, save_file
from test_what_families_represent import BASES
from toys import shaken, toy_ids, toy_model

import glassformer as gf
from glassformer.errors import GlassformerError, TokenizerError, UsageError
from glassformer.hub import import_model, load_model, save, save_gguf
from glassformer.models import build_model
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

SIZES = {"vocab_size": 257, "num_hidden_layers": 2, "max_position_embeddings": 13, "intermediate_size": 29}
MODERN = {**SIZES, "hidden_size": 42, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
THEIRS = {
    "llama": transformers.LlamaConfig(**MODERN),
    "qwen3": transformers.Qwen3Config(**MODERN, tie_word_embeddings=True),
    "gpt2": transformers.GPT2Config(vocab_size=257, n_positions=13, n_embd=15, n_layer=2, n_head=3),
}


@pytest.fixture(scope="module")
def bytes_() -> Tokenizer:
    return TOKENIZERS["bytes"]([])


def published(folder: Path, family: str, tokenizer: Tokenizer, dtype: Any = torch.float32, **how: Any) -> Any:
    """A model as its maker publishes it: written by transformers, in this number format."""
    model = shaken(transformers.AutoModelForCausalLM.from_config(THEIRS[family])).to(dtype).eval()
    model.save_pretrained(folder, **how)
    tokenizer.save(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# Folders of Hugging Face


@pytest.mark.parametrize("shard", [None, "9KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", THEIRS)
@torch.inference_mode()
def test_a_folder_of_transformers(family: str, dtype: Any, shard: str | None, bytes_, tmp_path: Path):
    how = {"max_shard_size": shard} if shard else {}
    theirs = published(tmp_path / "theirs", family, bytes_, dtype, **how)
    assert len([*(tmp_path / "theirs").glob("*.safetensors")]) == (1 if shard is None else pytest.approx(9, abs=6))
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert (imported.model_type, imported.folder) == (family, tmp_path / "ours")
    assert imported.n_parameters == theirs.num_parameters()
    assert imported.n_bytes == imported.n_parameters * dtype.itemsize
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["torch_dtype"] == str(dtype)[6:]
    ids = toy_ids(2, 13, vocab_size=257)
    for path in ("theirs", "ours"):  # a folder of theirs opens as it is, too
        for asked, bound in {"fp32": 1e-4, "bf16": 0.3, "int8": 0.6}.items():
            model, tokenizer = gf.load(tmp_path / path, dtype=asked)
            ours, expected = model(ids).float(), theirs(ids).logits
            assert ours.std() > 0.5 and (ours - expected).abs().mean() < bound / 3, asked
            torch.testing.assert_close(ours, expected, rtol=bound, atol=bound) if asked == "fp32" else None
            assert tokenizer == bytes_ and len([*gf.stream(model, tokenizer, "to", max_new_tokens=3)]) == 3


@pytest.mark.parametrize("family", BASES)
def test_every_family_comes_in(family: str, tmp_path: Path):
    """What writes, translates, classifies, sees or hears; only what neither reads nor writes text has no tokenizer."""
    no_text = family in ("vit", "deit", "clip", "decision_transformer")
    tokenizer = None if no_text else TOKENIZERS["characters"](["to be"], specials=("<s>", "</s>"))
    save(tmp_path / "theirs", shaken(build_model(BASES[family])), tokenizer)
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["model_type"] == family
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert imported.model_type == family and imported.config == BASES[family]
    ours, theirs = load_model(tmp_path / "ours").state_dict(), load_model(tmp_path / "theirs").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "ours" / "tokenizer.json").exists() == (not no_text)


def test_shards_that_are_damaged(bytes_, tmp_path: Path):
    folder = tmp_path / "theirs"
    published(folder, "llama", bytes_, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    whole = json.loads(index.read_text())

    def shown(**places: Any) -> str:
        index.write_text(json.dumps({**whole, "weight_map": {**whole["weight_map"], **places}}))
        return refused(lambda: import_model(folder, tmp_path / "ours"), tmp_path)

    first = min(whole["weight_map"].values())
    for outside in ("../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors"):
        line = shown(x=outside)
        assert line.startswith(f"{index}: ") and repr(outside) in line and "outside" in line
    assert "model.norm.weigth" in shown(**{"model.norm.weigth": first})
    assert "gone.safetensors: the weights are missing" in shown(x="gone.safetensors")
    for text in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": NaN}', "[" * 100_000):
        index.write_text(text)
        assert refused(lambda: import_model(folder, tmp_path / "ours"), tmp_path).startswith(f"{index}: not an index")
    index.write_text(json.dumps(whole))
    (folder / first).write_bytes((folder / first).read_bytes()[:-9])
    assert "damaged or truncated" in refused(lambda: import_model(folder, tmp_path / "ours"), tmp_path)


def test_a_pickle_is_not_opened(bytes_, tmp_path: Path, monkeypatch):
    folder = tmp_path / "theirs"
    model = published(folder, "gpt2", bytes_)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("opened"))
    line = refused(lambda: import_model(folder, tmp_path / "ours"), tmp_path)
    assert line.startswith(f"{folder}/pytorch_model.bin: a pickle") and "save_pretrained" in line


def test_a_tokenizer_in_place_of_its_own_or_none(bytes_, tmp_path: Path):
    published(tmp_path / "theirs", "llama", bytes_)
    other = TOKENIZERS["characters"](["hello"])
    import_model(tmp_path / "theirs", tmp_path / "ours", tokenizer=other)
    assert gf.load(tmp_path / "ours")[1] == other
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    line = refused(lambda: import_model(tmp_path / "theirs", tmp_path / "new"), tmp_path, TokenizerError)
    assert "holds no tokenizer.json" in line


def test_a_tokenizer_larger_than_the_model(tmp_path: Path):
    many = TOKENIZERS["characters"](["".join(map(chr, range(33, 33 + 300)))])
    published(tmp_path / "theirs", "llama", many)
    line = refused(lambda: import_model(tmp_path / "theirs", tmp_path / "ours"), tmp_path)
    assert line.startswith(f"{tmp_path}/theirs: ") and all(
        word in line for word in ("300", "257", "take the tokenizer")
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "blocks.1.feedforward.gate_up.weight not finite"),
        (float("-inf"), "blocks.1.feedforward.gate_up.weight not finite"),
        (1e38, "forward pass not finite"),
    ],
)
def test_numbers_that_are_none_are_refused_and_the_old_folder_stays(value: float, words: str, bytes_, tmp_path: Path):
    save(tmp_path / "ours", toy_model(vocab_size=257), bytes_)
    published(tmp_path / "theirs", "qwen3", bytes_)
    path = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][7, 5:7] = value
    if "pass" in words:
        tensors["model.layers.1.mlp.gate_proj.weight"][7] = tensors["model.layers.1.mlp.down_proj.weight"][:, 7] = 1e30
    save_file(tensors, path, metadata={"format": "pt"})
    for into in ("ours", "new"):
        line = refused(lambda into=into: import_model(tmp_path / "theirs", tmp_path / into), tmp_path)
        assert line.startswith(f"{tmp_path}/theirs: ") and all(word in line for word in words.split())


def test_a_gguf_file_whatever_it_is_called(bytes_, tmp_path: Path):
    model = toy_model("modern", vocab_size=257)
    save_gguf(tmp_path / "toy.gguf", model, bytes_)
    (tmp_path / "blob-1234").write_bytes((tmp_path / "toy.gguf").read_bytes())  # as caches call them
    for name in ("toy.gguf", "blob-1234"):
        assert import_model(tmp_path / name, tmp_path / "ours").model_type == "qwen3"
        again, tokenizer = gf.load(tmp_path / "ours")
        assert torch.equal(again(toy_ids(2, 7)), model(toy_ids(2, 7))) and tokenizer == bytes_


def test_paths_that_are_nothing_of_the_kind(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    for name, word in (("notes.txt", "ckpt.pt"), ("nothing", "there is no such file or folder")):
        line = refused(lambda name=name: import_model(tmp_path / name, tmp_path / "ours"), tmp_path, UsageError)
        assert line.startswith(f"{tmp_path / name}: ") and word in line
    assert "config.json: missing" in refused(lambda: import_model(tmp_path, tmp_path / "ours"), tmp_path)


# nanoGPT

ARGUMENTS = {"vocab_size": 65, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 15, "bias": True}
LETTERS = "\n !$&',-.3:;?" + "".join(map(chr, [*range(65, 91), *range(97, 123)]))  # Tiny Shakespeare's 65


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module."])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_checkpoint_of_nanogpt(bias: bool, prefix: str, tmp_path: Path):
    arguments = {**ARGUMENTS, "bias": bias}
    with torch.inference_mode(False):
        theirs = shaken(NanoGPT(**arguments))
        path = save_checkpoint(tmp_path / "ckpt.pt", theirs, {**arguments, "dropout": 0.2}, prefix)
    tokenizer = TOKENIZERS["characters"]([LETTERS])
    imported = import_model(path, tmp_path / "ours", tokenizer=tokenizer)
    model, again = gf.load(tmp_path / "ours")
    ids = toy_ids(2, 13, vocab_size=65)
    expected = theirs(ids)
    assert expected.std() > 0.5
    torch.testing.assert_close(model(ids), expected, rtol=1e-5, atol=1e-5)
    assert again == tokenizer and again.vocab_size == 65 and (imported.model_type, model.config.bias) == ("gpt2", bias)
    assert imported.n_parameters == sum(p.numel() for p in theirs.parameters())
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(other(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_older_checkpoint_without_a_word_on_biases_and_with_masks(tmp_path: Path):
    theirs = shaken(NanoGPT(**ARGUMENTS))
    masks = {f"transformer.h.{n}.attn.bias": torch.ones(1, 1, 13, 13).tril() for n in range(2)}
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "bias"}
    path = save_checkpoint(tmp_path / "ckpt.pt", theirs, arguments, model={**theirs.state_dict(), **masks})
    import_model(path, tmp_path / "ours")
    ids = toy_ids(1, 9, vocab_size=65)
    torch.testing.assert_close(load_model(tmp_path / "ours")(ids), theirs(ids), rtol=1e-5, atol=1e-5)


class Rogue:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_checkpoint_that_holds_more_than_numbers_runs_nothing(tmp_path: Path):
    path = save_checkpoint(tmp_path / "ckpt.pt", NanoGPT(**ARGUMENTS), ARGUMENTS, config=Rogue(tmp_path / "ran"))
    line = refused(lambda: import_model(path, tmp_path / "ours"), tmp_path)
    assert line.startswith(f"{path}: not read")
    assert not (tmp_path / "ran").exists()


STATE = NanoGPT(**ARGUMENTS).state_dict()
OTHER_CHECKPOINTS = [
    ([1], "not a checkpoint of nanoGPT"),
    (STATE, "not a checkpoint of nanoGPT"),
    ({"model": STATE, "model_args": {"n_layer": 2}}, "model_args has no vocab_size"),
    ({"model": STATE, "model_args": {**ARGUMENTS, "n_head": "three"}}, "n_head"),
    ({"model": STATE, "model_args": {**ARGUMENTS, "n_embd": 30}}, "of shape (65, 30)"),
    ({"model": {**STATE, "lm_head.weight": 3}, "model_args": ARGUMENTS}, "lm_head.weight is no tensor"),
    ({"model": {**STATE, "x.weight": torch.zeros(3)}, "model_args": ARGUMENTS}, "x.weight"),
    (
        {"model": {n: t for n, t in STATE.items() if n != "transformer.ln_f.weight"}, "model_args": ARGUMENTS},
        "tensor transformer.ln_f.weight is missing",
    ),
]


@pytest.mark.parametrize(("checkpoint", "message"), OTHER_CHECKPOINTS, ids=range(8))
def test_checkpoints_that_are_not_nanogpts(checkpoint: Any, message: str, tmp_path: Path):
    path = tmp_path / "ckpt.pt"
    torch.save(checkpoint, path)
    assert message in refused(lambda: import_model(path, tmp_path / "ours"), tmp_path, GlassformerError)
    path.write_bytes(path.read_bytes()[:100])
    assert "damaged" in refused(lambda: import_model(path, tmp_path / "ours"), tmp_path)
