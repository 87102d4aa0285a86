"""GGUF files and others: transformers and llama.cpp read ours, and we read what the `gguf` package writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf_standins import MODELS, llama_tensors, logits, random_blocks, toy, write_llama
from refusals import refused
from toys import toy_ids
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from glassformer.errors import MissingExtraError, ModelFolderError
from glassformer.hub import save_gguf
from glassformer.hub.gguf.file import read_gguf
from glassformer.hub.gguf.reading import load_gguf

# Ours, read by others


@pytest.mark.parametrize("kind", ["bpe", "characters"])
@pytest.mark.parametrize("case", MODELS)
def test_transformers_reads_the_same_model(case: str, kind: str, tokenizers, tmp_path: Path):
    """The steps of `from_pretrained(folder, gguf_file=...)`, one by one: it wants the package accelerate, and does not
    take over from the header what is set here."""
    model = toy(case, tokenizers[kind])
    save_gguf(tmp_path / "toy.gguf", model, tokenizers[kind])
    config = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file="toy.gguf")
    assert config.model_type.removesuffix("_text") == case.split(",")[0]
    if config.model_type == "gpt2":
        config.n_positions, config.n_inner = 13, 23
    else:
        config.head_dim = 10
    if case == "gemma3":
        config.query_pre_attn_scalar = 10
    if "linear" in case:
        config.rope_parameters = {"rope_type": "linear", "factor": 2.5, "rope_theta": 10_000.0}
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    tensors = load_gguf_checkpoint(str(tmp_path / "toy.gguf"), return_tensors=True, model_to_load=theirs)["tensors"]
    lost = theirs.load_state_dict(tensors, strict=False)
    assert not lost.unexpected_keys and lost.missing_keys == ([] if "own head" in case else ["lm_head.weight"])
    theirs.tie_weights()
    ids = toy_ids(2, 13, vocab_size=tokenizers[kind].vocab_size)
    expected = logits(model, ids)
    assert expected.std() > 0.5
    torch.testing.assert_close(theirs(ids).logits[..., : expected.shape[-1]], expected, rtol=1e-4, atol=1e-4)


# Theirs, read by us


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_package_writes_is_read_as_it_reads_it(kind: str, tmp_path: Path):
    """The logits are those of an F32 file with the numbers that the package's own reader finds."""
    write_llama(tmp_path / "narrow.gguf", llama_tensors(), kind)
    shown = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in gguf.GGUFReader(tmp_path / "narrow.gguf").tensors
    }
    write_llama(tmp_path / "wide.gguf", shown)
    for name, tensor in read_gguf(tmp_path / "narrow.gguf").tensors.items():
        assert torch.equal(tensor.dequantised(), torch.from_numpy(shown[name])), name
    (narrow, its), (wide, _) = (load_gguf(tmp_path / f"{name}.gguf") for name in ("narrow", "wide"))
    ids = toy_ids(2, 13, vocab_size=260)
    assert torch.equal(logits(narrow, ids), logits(wide, ids)) and logits(wide, ids).std() > 0.1
    assert its.encode(" the") == [258] and its.end_of_text == 259


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_formats_that_the_package_reads_and_does_not_write(kind: str, tmp_path: Path):
    tensors = llama_tensors()
    blocks = {name: random_blocks(tensor.shape, kind) for name, tensor in tensors.items() if "ffn" in name
              and tensor.ndim == 2}  # fmt: skip
    write_llama(tmp_path / "k.gguf", {**tensors, **blocks}, kind)
    model, _ = load_gguf(tmp_path / "k.gguf")
    for number in range(2):
        expected = gguf.quants.dequantize(blocks[f"blk.{number}.ffn_down.weight"], gguf.GGMLQuantizationType[kind])
        assert np.array_equal(model.blocks[number].feedforward.down.weight.detach().numpy(), expected)
        assert expected.std() > 1e-4


def test_eight_bits_by_hand(tmp_path: Path):
    """Q8_0 is one 16-bit scale and 32 whole numbers, each to be multiplied with it."""
    tensors = llama_tensors()
    block = np.concatenate([np.array([0.5], np.float16).view(np.uint8), np.arange(-16, 16).astype(np.int8).view("u1")])
    tensors["blk.0.ffn_down.weight"] = np.tile(block, (256, 512 // 32))
    write_llama(tmp_path / "q.gguf", tensors, "Q8_0")
    row = load_gguf(tmp_path / "q.gguf")[0].blocks[0].feedforward.down.weight[255]
    assert row[32:37].tolist() == [-8.0, -7.5, -7.0, -6.5, -6.0]


@pytest.mark.parametrize("alignment", [1, 4, 64])
def test_tensors_may_lie_anywhere(alignment: int, tmp_path: Path):
    for kind in ("F16", "Q8_0"):
        write_llama(tmp_path / "askew.gguf", llama_tensors(), kind, alignment=alignment, general__name="x" * 13)
        write_llama(tmp_path / "plain.gguf", llama_tensors(), kind)
        ours, theirs = (read_gguf(tmp_path / f"{name}.gguf").tensors for name in ("askew", "plain"))
        assert all(torch.equal(ours[name].dequantised(), theirs[name].dequantised()) for name in theirs)


def test_fields_of_all_kinds_and_the_version_before(tmp_path: Path):
    path = write_llama(tmp_path / "toy.gguf", llama_tensors(), general__tags=["a", "é", ""], x__numbers=[1, -2, 3],
                       x__floats=[0.5, 2.0], x__flags=[True, False], x__large=1 << 31)  # fmt: skip
    fields = read_gguf(path).fields
    assert fields["general.tags"] == ["a", "é", ""] and fields["x.numbers"] == [1, -2, 3]
    assert fields["x.floats"] == [0.5, 2.0] and fields["x.flags"] == [True, False] and fields["x.large"] == 1 << 31
    data = bytearray(path.read_bytes())
    data[4] = 2  # laid out alike
    path.write_bytes(data)
    assert read_gguf(path).fields == fields


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"without": "blk.1.ffn_up.weight"}, "tensor blk.1.ffn_up.weight is missing"),
    ({"without": "token_embd.weight"}, "tensor token_embd.weight is missing"),
    ({"beside": {"blk.1.attn_q.bias": np.zeros(256, np.float32)}}, "the first is blk.1.attn_q.bias"),
    ({"beside": {"rope_freqs.weight": np.ones(32, np.float32)}}, "rotary positions"),
    ({"llama__rope__scaling__type": "yarn"}, "rotary positions"),
    ({"general__architecture": "lama"}, "architecture 'lama' known: gemma3"),
    ({"llama__block_count": "two"}, "llama.block_count is 'two' another file"),
    ({"llama__attention__head_count": 3}, "n_head=3 n_kv_head=2"),
    ({"llama__attention__layer_norm_rms_epsilon": [1]}, "llama.attention.layer_norm_rms_epsilon is"),
    ({"tokenizer__ggml__model": "t5"}, "'t5' known: gpt2, llama"),
    ({"tokenizer__ggml__pre": "qwen9"}, "cuts text 'qwen9' did you mean qwen2?"),
    ({"tokenizer__ggml__tokens": ["a", "a"]}, "a token twice another file"),
    ({"tokenizer__ggml__tokens": [1, 2]}, "no list of tokens another file"),
    ({"tokenizer__ggml__token_type": [1]}, "not one kind for every token another file"),
    ({"tokenizer__ggml__merges": ["th"]}, "no pair: 'th'"),
]


@pytest.mark.parametrize(("changes", "words"), DAMAGED)
def test_what_is_wrong_is_one_line(changes: dict[str, Any], words: str, tmp_path: Path):
    changes = dict(changes)
    lost, beside = changes.pop("without", None), changes.pop("beside", {})
    tensors = {name: tensor for name, tensor in llama_tensors().items() if name != lost}
    path = write_llama(tmp_path / "toy.gguf", {**tensors, **beside}, **changes)
    line = refused(lambda: load_gguf(path), kind=ModelFolderError)
    assert line.startswith(f"{path}: ") and all(word in line for word in words.split())


def test_what_is_no_such_file(tmp_path: Path, monkeypatch):
    path = write_llama(tmp_path / "toy.gguf", llama_tensors())
    whole = path.read_bytes()
    for data, message in [
        (b"", "empty; fetch it again"),
        (b"PK\3\4" + whole[4:], "not a GGUF file: it does not begin with GGUF"),
        (whole[:4] + (1).to_bytes(4, "little") + whole[8:], "a GGUF file of version 1"),
        (whole[:4] + (3).to_bytes(4, "big") + whole[8:], "a GGUF file big-endian cannot be read"),
        (whole[:1000], "cut short"),
        (whole[:-1], "cut short: the tensor 'blk.1.ffn_down.weight' ends at byte "),
    ]:
        path.write_bytes(data)
        assert refused(lambda: load_gguf(path)).startswith(f"{path}: {message}")
    with pytest.raises(ModelFolderError, match="there is no such file; give the path of a"):
        load_gguf(tmp_path / "toi.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[gguf\]'"):
        load_gguf(path)
