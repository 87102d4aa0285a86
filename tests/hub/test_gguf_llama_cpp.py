"""llama.cpp, which our GGUF files are for: the same logits, tokens and ids. It has no wheel and takes minutes to build
(`pip install llama-cpp-python`), so most of this is skipped where it is not; how it is asked is tested with a stand-in.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_standins import MODELS, logits, toy
from tokenizer_texts import AWKWARD, SPOKEN, random_strings
from toys import toy_ids, toy_model

from glassformer.errors import ModelFolderError
from glassformer.hub import save_gguf
from glassformer.hub.gguf import writing as gguf_writing
from glassformer.hub.gguf.reading import load_gguf
from glassformer.processors.tokenizers import TOKENIZERS

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="needs the package llama-cpp-python"
)


def opened(path: Path, **options: Any) -> Any:
    """The file in llama.cpp, its cache in fp32 as ours is."""
    import llama_cpp

    return llama_cpp.Llama(str(path), n_ctx=64, verbose=False, logits_all=True, type_k=0, type_v=0, **options)


def calm(model: Any) -> Any:
    """With smaller matrices, so that attention is not all or nothing and rounding stays small."""
    for parameter in model.parameters():
        parameter.data *= 0.5 if parameter.dim() > 1 else 1.0
    return model


@needs_llama_cpp
@pytest.mark.parametrize("number_format", ["f32", "q8_0"])
@pytest.mark.parametrize("kind", ["bpe", "characters"])
@pytest.mark.parametrize("case", MODELS)
def test_the_same_logits_and_greedy_tokens(case: str, kind: str, number_format: str, tokenizers, tmp_path: Path):
    model = calm(toy(case, tokenizers[kind], block_size=64))
    same, asked = save_gguf(tmp_path / "toy.gguf", model, tokenizers[kind], type=number_format).tokens
    assert asked == 32 and (same == asked or number_format != "f32")
    ids = toy_ids(1, 32, vocab_size=tokenizers[kind].vocab_size)
    again, _ = load_gguf(tmp_path / "toy.gguf")
    llama = opened(tmp_path / "toy.gguf")
    llama.eval(ids[0].tolist())
    ours, theirs = logits(again, ids)[0], torch.from_numpy(np.array(llama.scores[:32]))
    # measured: 1e-6 with SiLU, and 2e-3 with GELU, which llama.cpp looks up in a table; 1e-2 with 8 bits, which it
    # gives the vectors too
    bound = 2e-2 if number_format == "q8_0" else 1e-5 if "llama" in case or "qwen3" in case else 5e-3
    assert (ours - theirs).abs().max() < bound * ours.abs().max() and ours.std() > 0.2


@needs_llama_cpp
@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_the_same_ids_for_any_text(kind: str, tmp_path: Path):
    tokenizer = TOKENIZERS[kind]([SPOKEN] * 3, **({"vocab_size": 400} if kind == "bpe" else {}))
    save_gguf(tmp_path / "toy.gguf", toy_model(vocab_size=tokenizer.vocab_size), tokenizer)
    llama = opened(tmp_path / "toy.gguf", vocab_only=True)
    texts = [text for text in [SPOKEN, *AWKWARD, *random_strings(300, seed=5)] if "\x00" not in text]
    if kind == "characters":  # what is not there becomes a space here and nothing there
        texts = ["".join(c for c in text if c in SPOKEN) for text in texts]
    for text in texts:
        ids = tokenizer.encode(text)
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == ids, repr(text)
        assert llama.detokenize(ids).decode() == text
    assert llama.token_eos() == (tokenizer.vocab_size if kind == "characters" else tokenizer.end_of_text)
    assert tokenizer.vocab_size + (kind == "characters") == llama.n_vocab()


# How it is asked, with a stand-in


class LikeLlama:
    """llama-cpp-python as far as we use it: greedy tokens out of a file. off: from which token on they are others, the
    rank-th best ones."""

    off, rank = 1_000, 7

    def __init__(self, path: str, *, type_k: int, type_v: int, **options: Any):
        assert type_k == type_v == gguf.GGMLQuantizationType.F32
        self.model, _ = load_gguf(path)

    def generate(self, tokens: list[int], *, temp: float, repeat_penalty: float):
        assert temp == 0 and repeat_penalty == 1
        tokens = list(tokens)
        while True:
            best_V = logits(self.model, torch.tensor([tokens]))[0, -1].argsort(descending=True)
            tokens.append(int(best_V[self.rank if len(tokens) >= self.off else 0]))
            yield tokens[-1]


def test_llama_cpp_is_asked_where_it_is_installed(tokenizers, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", types.SimpleNamespace(Llama=LikeLlama))
    tokenizer, path = tokenizers["characters"], tmp_path / "toy.gguf"
    model = toy("llama", tokenizer, block_size=23)
    assert save_gguf(path, model, tokenizer).tokens == (12, 12)  # half of the block is the prompt
    assert save_gguf(path, toy("llama", tokenizer, block_size=1), tokenizer).tokens is None  # no room to go on
    kept = path.read_bytes()
    monkeypatch.setattr(LikeLlama, "off", 14)
    with pytest.raises(ModelFolderError, match=r"llama\.cpp gives other tokens from token 4 of 12 on; please report"):
        save_gguf(path, model, tokenizer)
    assert path.read_bytes() == kept and [*tmp_path.iterdir()] == [path]
    assert save_gguf(path, model, tokenizer, type="f16").tokens == (3, 12)  # rounded: reported, and no error
    monkeypatch.setattr(gguf_writing, "TIE", 10.0)
    assert save_gguf(path, model, tokenizer).tokens == (3, 12)  # as good as equal: the same


class Ends(LikeLlama):
    """It gives the end of text that was made up for a model without one."""

    def generate(self, tokens: list[int], **options: Any):
        yield from [self.model.config.vocab_size - 1] * 7


class Refuses:
    def __init__(self, *args: Any, **options: Any):
        raise ValueError("Failed to load model from file: somewhere")


@pytest.mark.parametrize(
    ("llama", "message"), [(Ends, "from token 1 of 7 on"), (Refuses, r"does not load it \(Failed to load")]
)
def test_a_file_that_llama_cpp_reads_otherwise_is_not_kept(
    llama, message: str, tokenizers, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "llama_cpp", types.SimpleNamespace(Llama=llama))
    with pytest.raises(ModelFolderError, match=rf"llama\.cpp .*{message}"):
        save_gguf(tmp_path / "toy.gguf", toy("llama", tokenizers["characters"]), tokenizers["characters"])
    assert not [*tmp_path.iterdir()]
