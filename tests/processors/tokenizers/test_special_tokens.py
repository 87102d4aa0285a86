"""Tokenizers with special tokens for other shapes: where their ids lie, what a saved one keeps, what text cannot do."""

from __future__ import annotations

import pytest

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, build_tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import (
    MASKED_SPECIALS,
    SENTENCE_SPECIALS,
    named_specials,
    span_specials,
)

TEXT = "Press the key, then the other key. Appuyez sur la touche. " * 5


def test_special_tokens_lie_behind_the_merges_in_their_order():
    plain = TOKENIZERS["bpe"]([TEXT], vocab_size=271)
    tokenizer = TOKENIZERS["bpe"]([TEXT], vocab_size=270 + 4, specials=MASKED_SPECIALS)
    assert tokenizer.special_tokens == {"<pad>": 270, "<s>": 271, "</s>": 272, "<mask>": 273}
    assert tokenizer.vocab_size == 274 and tokenizer.end_of_text == 272
    assert tokenizer.encode(TEXT) == plain.encode(TEXT)  # the same merges
    assert max(tokenizer.encode("<mask> " + "".join(MASKED_SPECIALS))) < 270  # typed, they are text
    with pytest.raises(UsageError, match="vocab_size=258 is too small; it takes at least 259"):
        TOKENIZERS["bpe"]([TEXT], vocab_size=258, specials=SENTENCE_SPECIALS)


def test_sentinels_have_t5s_names():
    assert span_specials()[-1] == "<extra_id_99>" and len(span_specials()) == 103
    assert named_specials(span_specials(2))["additional_special_tokens"] == ["<extra_id_0>", "<extra_id_1>"]
    with pytest.raises(UsageError, match="sentinels=0 is less than 1"):
        span_specials(0)


@pytest.mark.parametrize(
    ("kind", "specials"),
    [
        *(("bpe", MASKED_SPECIALS), ("bpe", span_specials(2)), ("words", SENTENCE_SPECIALS)),
        *(("characters", span_specials(2)), ("bytes", MASKED_SPECIALS)),
    ],
)
def test_a_saved_one_keeps_them_and_transformers_knows_their_parts(kind, specials, tmp_path):
    tokenizer = TOKENIZERS[kind]([TEXT], specials=specials)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded == tokenizer and loaded.kind == kind and loaded.end_of_text == tokenizer.special_tokens["</s>"]
    assert loaded.settings == tokenizer.settings and loaded.special_tokens == tokenizer.special_tokens
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for part, token in (("pad", "<pad>"), ("bos", "<s>"), ("eos", "</s>")):
        assert getattr(theirs, f"{part}_token_id") == tokenizer.special_tokens[token]
    assert theirs.mask_token == ("<mask>" if "<mask>" in specials else None)
    assert theirs.encode("the key", add_special_tokens=False) == tokenizer.encode("the key")


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.tokenizer.UnknownCharacterWarning")
@pytest.mark.parametrize(("kind", "n"), [("characters", len(set(TEXT))), ("bytes", 256)])
def test_characters_and_bytes_have_them_behind(kind, n):
    tokenizer = TOKENIZERS[kind]([TEXT], specials=SENTENCE_SPECIALS)
    assert tokenizer.special_tokens == {"<pad>": n, "<s>": n + 1, "</s>": n + 2}
    assert tokenizer.vocab_size == n + 3 and tokenizer.kind == kind
    typed = f"key</s> the <s>{TEXT}"
    for ids in (tokenizer.encode(typed), tokenizer.encode_to_array(typed).tolist()):
        assert max(ids) < n and len(ids) == len(typed)  # typed, they are text
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    with pytest.raises(UsageError, match=r"vocab_size=3 is too small|259 entries, not 3"):
        TOKENIZERS[kind]([TEXT], vocab_size=3, specials=SENTENCE_SPECIALS)


def test_those_that_are_only_read_take_none():
    with pytest.raises(
        UsageError, match=r"a gpt2 tokenizer takes no special tokens.*; use one of characters, bytes, bpe"
    ):
        build_tokenizer("gpt2", specials=SENTENCE_SPECIALS)


def test_words_are_what_stands_between_spaces():
    words = TOKENIZERS["words"](["HH AH0  L\tOW1", "AH0"])
    assert words.kind == "words" and words.vocab_size == 4 + 4
    assert words.special_tokens == {"<unk>": 4, "<pad>": 5, "<s>": 6, "</s>": 7}
    assert words.encode(" OW1 AH0\nHH ") == [3, 0, 1] and words.decode([3, 0, 1]) == "OW1 AH0 HH"
    assert words.decode([6, 3, 7]) == "<s> OW1 </s>"
    assert [ids.tolist() for ids in words.encode_documents(["HH OW1", "", "L"])] == [[1, 3], [], [2]]


@pytest.mark.parametrize("text", ["<s>", "</s> HH", "<pad>", "HH</s>", "QQ"])
def test_a_word_that_is_not_there_or_looks_special_is_unknown(text):
    words = TOKENIZERS["words"](["HH AH0 </s>"])
    assert "</s>" in words.special_tokens and words.vocab_size == 2 + 4
    unknown = words.special_tokens["<unk>"]
    for ids in (words.encode(text), words.encode_to_array(text).tolist()):
        assert set(ids) <= {words.encode("HH")[0], unknown} and unknown in ids


def test_the_most_frequent_words_are_kept():
    words = TOKENIZERS["words"](["b b b a a c"], vocab_size=6)
    assert words.decode(words.encode("a b c")) == "a b <unk>"
    with pytest.raises(TokenizerError, match="no text to take words from"):
        TOKENIZERS["words"]([" "])
    with pytest.raises(UsageError, match="specials="):
        TOKENIZERS["words"](["a"], specials="<s>")
