"""Bytes and byte-level BPE: nothing is unknown, nothing is lost, and the fast path gives the ids of the slow one."""

import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import AWKWARD, SPOKEN, random_strings
from tokenizers import models, pre_tokenizers

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, bulk, kinds
from glassformer.processors.tokenizers.alphabet import BYTE_ORDER, spell, unspell, whole_characters

small_bpe = TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=400)
bytes_ = TOKENIZERS["bytes"]()
any_text = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too


@given(any_text | st.text(" \n\t'sdmtlver 12a", max_size=40))
@settings(max_examples=200, deadline=None)
def test_decode_undoes_encode_and_bulk_equals_single(text):
    for tokenizer in (bytes_, small_bpe):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == whole_characters(text)
        assert tokenizer.encode_to_array(text).tolist() == ids
        assert tokenizer.end_of_text not in ids


def test_ten_thousand_random_strings_bulk_equals_single():
    texts = random_strings(10_000) + AWKWARD
    for text, ids in zip(texts, small_bpe.encode_documents(texts), strict=True):
        assert ids.tolist() == small_bpe.encode(text), repr(text)


def test_bytes_are_their_own_ids():
    assert (bytes_.vocab_size, bytes_.end_of_text, bytes_.kind) == (257, 256, "bytes")
    assert bytes_.encode("hé\n") == [0x68, 0xC3, 0xA9, 0x0A]
    every = bytes(range(256))
    ids = bytes_.encode_to_array(every)  # not UTF-8, and not touched
    assert ids.dtype == np.uint16 and ids.tolist() == list(range(256))
    assert b"".join(map(bytes_.token_bytes, ids.tolist())) == every


def test_bpe_ids_are_laid_out_as_gpt2s():
    assert small_bpe.kind == "bpe" and small_bpe.end_of_text == small_bpe.vocab_size - 1
    assert [small_bpe.token_bytes(i)[0] for i in range(256)] == BYTE_ORDER
    assert small_bpe.encode("!") == [0] and small_bpe.encode("\x00") == [188]
    assert small_bpe.special_tokens == {"<|endoftext|>": small_bpe.end_of_text}
    assert len(small_bpe.encode("<|endoftext|>")) > 1 and small_bpe.decode([small_bpe.end_of_text]) == "<|endoftext|>"


def test_learning_shortens_text_and_is_the_same_every_time():
    assert len(small_bpe.encode(SPOKEN)) < 0.6 * len(SPOKEN.encode())
    again = TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=400)
    assert again.hash == small_bpe.hash and again == small_bpe and hash(again) == hash(small_bpe)
    assert TOKENIZERS["bpe"]([SPOKEN * 3], vocab_size=399) != small_bpe


@pytest.mark.parametrize("pattern", ["ours", "gpt2's"])
def test_a_long_text_is_cut_only_where_that_changes_nothing(pattern, monkeypatch):
    blanks = "a\nb \nc\n\nd\n e.\n\n'f \n \n.\n" * 20  # every way for a line to end, learned as tokens
    tokenizer = TOKENIZERS["bpe"]([blanks + SPOKEN], vocab_size=400)
    if pattern == "gpt2's":
        tokenizer._library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = blanks + "".join(random_strings(300, seed=1)) + SPOKEN
    whole = tokenizer.encode(text)
    monkeypatch.setattr(bulk, "_SEGMENT", 1)  # cut at every chance
    assert len(list(bulk.MergesEncoder._segments(None, text))) > 100
    assert tokenizer.encode_to_array(text).tolist() == whole
    several = tokenizer.encode_documents([text, "", "short", text])
    assert [ids.tolist() for ids in several] == [whole, [], tokenizer.encode("short"), whole]


def test_when_tiktoken_gives_up_the_library_takes_over():
    text = " " * 1_000_000 + "x"  # too long a run for its regex engine
    encoder = bulk.merges_encoder(small_bpe._library, small_bpe._spec(), np.dtype(np.uint16))
    with pytest.raises(ValueError, match="Regex"):
        encoder._encoding.encode_to_numpy(text)
    assert small_bpe.decode(small_bpe.encode_to_array(text)) == text


def _by_hand(merges: list[tuple[str, str]], extra: tuple[str, ...] = ()) -> Tokenizer:
    tokens = [spell(bytes([byte])) for byte in BYTE_ORDER] + [a + b for a, b in merges] + list(extra)
    library = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(library)


@pytest.mark.parametrize(
    ("why", "tokenizer", "text"),
    [
        ("a token that no merge makes", _by_hand([("a", "b")], extra=("abc",)), "abc"),
        ("a token that its own bytes never reach", _by_hand([("b", "c"), ("a", "b"), ("ab", "c")]), "abc abcabc"),
    ],
)
def test_vocabularies_that_tiktoken_reads_otherwise_go_through_the_library(why, tokenizer, text):
    ranks = {unspell(token): i for token, i in tokenizer._vocabulary.items()}
    tempting = tiktoken.Encoding("x", pat_str=kinds.GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert tempting.encode_ordinary(text) != tokenizer.encode(text), "else this test shows nothing"
    assert tokenizer.encode_to_array(text).tolist() == tokenizer.encode(text)


@pytest.mark.parametrize("character_class", [r"\p{L}", r"\p{N}", r"\s"])
def test_both_regex_engines_know_the_same_unicode(character_class):
    """Bulk ids equal single ids on *every* string only if both libraries call the same code points letters, digits and
    white space. If this fails after an upgrade, one of the two has moved to another Unicode version."""
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    cut = pre_tokenizers.Split(tokenizers.Regex(character_class), "removed", invert=True)
    one = "".join(piece for piece, _ in cut.pre_tokenize_str(everything))
    ranks = {bytes([i]): i for i in range(256)}
    other = tiktoken.Encoding("x", pat_str=character_class, mergeable_ranks=ranks, special_tokens={})
    assert other.decode(other.encode_ordinary(everything)) == one


def test_equal_lengths_make_a_batch():
    batch = bytes_.encode_batch(["abc", "dé"])
    assert batch.tolist() == [[97, 98, 99], [100, 195, 169]] and str(batch.dtype) == "torch.int64"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: bytes_.decode([97, 257]), r"token id 257 is not in the vocabulary \(0 to 256\)"),
        (lambda: bytes_.token_text(-1), "-1"),
        (lambda: bytes_.decode(bytes_.encode_batch(["ab"])), "pick a row"),
        (lambda: bytes_.encode_batch(["a", "bc"]), "equal length"),
        (lambda: bytes_.encode_batch([]), "equal length"),
        (lambda: TOKENIZERS["bpe"]([SPOKEN], vocab_size=256), "at least 257"),
        (lambda: TOKENIZERS["bytes"](vocab_size=300), "has 257 entries, not 300"),
    ],
)
def test_wrong_ids_and_wrong_options_are_one_line(wrong, named: str):
    with pytest.raises(UsageError, match=named):
        wrong()


def test_tokens_to_look_at():
    with pytest.raises(TokenizerError, match="there is no text"):
        TOKENIZERS["bpe"](iter([]))
    texts = [small_bpe.token_text(i) for i in small_bpe.encode("é\n")]
    assert "".join(texts) in ("é\\n", "\\xc3\\xa9\\n")
    assert bytes_.token_text(0xE2) == "\\xe2" and bytes_.token_text(9) == "\\t" and bytes_.token_text(32) == " "
    assert repr(bytes_).startswith("Tokenizer(bytes, vocab_size=257, end_of_text=256")
