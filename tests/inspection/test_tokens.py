"""Tokens and their merges: equal to the tokenizer's ids at the end, equal to the readable BPE on the way."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import tokenizers
from play import PLAY

from glassformer.errors import DataError
from glassformer.inspection import tokens
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, bpe_twin, kinds, stepwise

TEXTS = ("Unbelievable tokenization", " naïve 🙂! ", "a\n\n  b 12345", "it's the king's", "\x00é€")


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return TOKENIZERS["bpe"]([PLAY], vocab_size=500)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    try:
        return TOKENIZERS["gpt2"]()
    except DataError as error:
        pytest.skip(f"GPT-2's vocabulary cannot be had: {error}")


@pytest.mark.parametrize("which", ["bpe", "gpt2"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_merges_end_at_the_tokenizer_s_ids(which: str, text: str, request: pytest.FixtureRequest):
    tokenizer: Tokenizer = request.getfixturevalue(which)
    view = tokens(tokenizer, text, chunks=32)
    assert view.ids == tokenizer.encode(text) and view.chunks is not None
    assert [i for chunk in view.chunks for i in chunk.ids] == view.ids
    assert "".join(bytes.fromhex(raw).decode("latin-1") for raw in view.bytes) == text.encode().decode("latin-1")
    for chunk in view.chunks:
        last = chunk.merges[-1].state if chunk.merges else chunk.symbols
        assert last == [tokenizer.token_text(i) for i in chunk.ids]
        assert all(len(a.state) > len(b.state) for a, b in zip(chunk.merges, chunk.merges[1:], strict=False))


def test_each_step_is_that_of_the_readable_twin(bpe: Tokenizer):
    """Replay the twin's loop by hand: the pair with the lowest rank, everywhere in the chunk."""
    model = json.loads(bpe.to_json())["model"]
    merges = [(model["vocab"][a], model["vocab"][b]) for a, b in kinds.merge_pairs(model)]
    for chunk in tokens(bpe, "the theatre theatre").chunks or []:
        ids = bpe_twin.bytes_to_ids(chunk.text)
        for step in chunk.merges:
            assert step.rank == min(merges.index(pair) for pair in pairwise(ids) if pair in merges)
            ids = bpe_twin.merge(ids, merges[step.rank], 256 + step.rank)
            assert step.state == [bpe.token_text(i) for i in ids]
            assert step.result == step.left + step.right


def test_where_tokens_begin(bpe: Tokenizer):
    view = tokens(bpe, "né🙂é")
    text = "né🙂é".encode()
    at = 0
    for start, raw in zip(view.starts, view.bytes, strict=True):
        assert len("né🙂é"[:start].encode()) <= at < len("né🙂é"[: start + 1].encode())
        at += len(bytes.fromhex(raw))
    assert at == len(text) and (view.n_bytes, view.n_characters) == (len(text), 4)
    assert view.bytes_per_token == pytest.approx(len(text) / len(view.ids))


def test_other_kinds_say_how_they_cut():
    characters = TOKENIZERS["characters"](["hello"])
    view = tokens(characters, "hole")
    assert (view.ids, view.starts, view.chunks) == ([1, 3, 2, 0], [0, 1, 2, 3], None)
    assert "Nothing is merged" in view.how
    with pytest.warns(UserWarning) as shown:
        assert tokens(characters, "h!é").n_tokens == 3
    assert len(shown) == 1, "unknown characters are listed once"
    assert tokens(TOKENIZERS["bytes"](), "é").bytes == ["c3", "a9"]


def test_merges_of_a_sentencepiece_bpe():
    """Llama 2's kind: no cut before the merges, a mark for spaces, bytes for what the vocabulary lacks."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": 1 + byte for byte in range(256)}}
    for token in ("\u2581", "t", "h", "e", "\u2581t", "\u2581th", "\u2581the"):
        vocabulary[token] = len(vocabulary)
    pairs = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e")]
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    normal = tokenizers.normalizers
    library.normalizer = normal.Sequence([normal.Prepend("\u2581"), normal.Replace(" ", "\u2581")])
    decode = tokenizers.decoders
    library.decoder = decode.Sequence([decode.Replace("\u2581", " "), decode.ByteFallback(), decode.Fuse()])
    llama = Tokenizer(library)
    view = tokens(llama, "the é")
    assert llama.kind == "sentencepiece" and view.chunks is not None
    (chunk,) = view.chunks
    assert chunk.ids == view.ids == llama.encode("the é")
    assert [(m.rank, m.result) for m in chunk.merges] == [(0, " t"), (1, " th"), (2, " the")]
    assert "Unigram" not in view.how


def test_a_tokenizer_that_does_more_than_merge_has_no_steps(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    """The steps are checked against the ids: when these differ, none are shown."""
    assert stepwise.merge_by_merge(bpe, PLAY[:200]) is not None
    monkeypatch.setattr(stepwise, "merge_pairs", lambda model: kinds.merge_pairs(model)[::-1])  # the wrong order
    assert stepwise.merge_by_merge(bpe, PLAY[:200]) is None
    assert "does more than merge" in tokens(bpe, PLAY[:200], chunks=32).how


def test_a_long_text_is_bounded(bpe: Tokenizer):
    text = PLAY * 20
    view = tokens(bpe, text, chunks=3)
    whole = bpe.encode(text)
    assert view.n_tokens == len(whole) > 1000 == len(view.ids) == len(view.starts) and view.ids == whole[:1000]
    assert view.chunks is not None and len(view.chunks) == 3
    assert tokens(bpe, "x" * 5000).chunks is None
