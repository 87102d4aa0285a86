"""`look tokenizers`: one text by several tokenizers, against counts by hand."""

from __future__ import annotations

import importlib
import math

import pytest
from published import published
from stacks import FAMILIES, TOKENIZER

from glassformer.errors import UsageError
from glassformer.fetch import fetch
from glassformer.inspection import surprise
from glassformer.inspection.look import Subject, show
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.gpt2 import SOURCE

CORPUS = ["the quick brown fox jumps over the lazy dog. " * 9, "ABCDEF there, hii! 😀"]
TEXT = "ABE hii there 😀"


def seen(text: str = TEXT, **options):
    model = FAMILIES["classic"]()
    subject = Subject("toy", model, TOKENIZER, open_model=lambda name: Subject(name, model, TOKENIZER))
    return model, show("tokenizers", subject, {"text": text, "corpus": CORPUS} | options)


def test_counts_and_costs_are_those_by_hand():
    model, found = seen(others=["characters", "bytes", "bpe", "another"], vocab_size=280)
    own, characters, raw, bpe, another = found.tokenizations
    C = model.config.n_embd
    size = len(TEXT.encode())
    alphabet = sorted(set("".join(CORPUS)))
    assert characters.ids == [alphabet.index(c) for c in TEXT]
    assert characters.vocab_size == len(alphabet) and characters.embedding == len(alphabet) * C
    assert characters.uniform_bits_per_byte == pytest.approx(len(TEXT) * math.log2(len(alphabet)) / size)
    assert raw.ids == list(TEXT.encode()) and raw.n_bytes == [1] * size and raw.bytes_per_token == 1
    learned = build_tokenizer("bpe", CORPUS, vocab_size=280)
    assert bpe.ids == learned.encode(TEXT) and bpe.vocab_size == 280 and sum(bpe.n_bytes) == size
    assert len(bpe.ids) < len(raw.ids) and bpe.model_bits_per_byte is None
    assert another.ids == own.ids and another.model_bits_per_byte == own.model_bits_per_byte
    assert own.model_bits_per_byte == surprise(model, TOKENIZER, TEXT).bits_per_byte
    assert not any("\ufffd" in text for t in found.tokenizations for text in t.texts)  # a part of 😀 shows its bytes


def test_the_lectures_trade_beside_gpt2(tmp_path_factory):
    with published(tmp_path_factory):
        fetch(SOURCE)
        _, found = seen("hii there")
    *_, gpt2 = found.tokenizations
    assert gpt2.ids == [71, 4178, 612] and gpt2.vocab_size == 50_257  # as in "Let's build GPT"


def test_what_is_not_here_is_said(monkeypatch):
    module = importlib.import_module("glassformer.inspection.tokenizers")  # the package has a function of this name
    monkeypatch.setattr(module, "cached", lambda source: None)
    _, found = seen(corpus=CORPUS * 5)
    assert [t.name for t in found.tokenizations] == ["its own (characters)", "characters", "bpe"]
    assert "--tokenizer gpt2" in found.left_out and found.left_out in str(found).replace("\n", " ")
    _, found = seen()  # from a short text nothing is learned
    assert [t.name for t in found.tokenizations] == ["its own (characters)", "characters"]
    assert "2,000 characters" in found.left_out
    for options, said in (({"others": ["gpt2"]}, "--tokenizer gpt2"), ({"text": ""}, "no text")):
        with pytest.raises(UsageError, match=said):
            seen(**options)
