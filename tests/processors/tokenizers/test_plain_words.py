"""The vocabulary of word vectors: words in lower case, the most frequent first, and nothing else."""

from __future__ import annotations

import pytest

from glassformer.errors import TokenizerError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer

TEXT = "The cat's whiskers -- the CAT (aged 9) didn't; the\nend. " * 5 + "Rare, rare, rare, rare."


def test_words_without_marks_numbers_and_cases_most_frequent_first():
    tokenizer = TOKENIZERS["plain-words"]([TEXT])
    words = [tokenizer.token_text(i) for i in range(tokenizer.vocab_size)]
    assert words[0] == "the" and words[-1] == "<unk>"
    assert set(words) == {"the", "cat's", "whiskers", "cat", "aged", "didn't", "end", "<unk>"}  # `rare` occurs 4 times
    assert tokenizer.decode(tokenizer.encode("THE end: 12 Élan didn't")) == "the end <unk> didn't"
    assert tokenizer.kind == "plain-words" and tokenizer.end_of_text is None


def test_a_size_keeps_the_most_frequent_however_rare():
    tokenizer = TOKENIZERS["plain-words"](["b b b a a c"], vocab_size=3)
    assert [tokenizer.token_text(i) for i in range(3)] == ["b", "a", "<unk>"]
    assert TOKENIZERS["plain-words"](["b b b a a c"], vocab_size=9).vocab_size == 4


def test_it_is_saved_as_a_word_level_tokenizer(tmp_path):
    tokenizer = TOKENIZERS["plain-words"]([TEXT], specials=["</s>"])
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again == tokenizer and again.kind == "plain-words" and "WordLevel" in again.to_json()
    assert again.encode_documents(["The end </s>"])[0].tolist() == again.encode("the end s")
    assert again.special_tokens.keys() == {"<unk>", "</s>"}
    again._library.pre_tokenizer = TOKENIZERS["words"](["a"])._library.pre_tokenizer  # another cut is another kind
    assert Tokenizer(again._library).kind == "huggingface"


def test_too_little_text_is_one_line():
    with pytest.raises(TokenizerError, match="no word occurs 5 times"):
        TOKENIZERS["plain-words"](["once upon a time"])
    with pytest.raises(TokenizerError, match="there is no text to take words from"):
        TOKENIZERS["plain-words"]([""])
