"""Text with special tokens between: one text, in which what is meant is meant and what is written is written."""

from __future__ import annotations

import json

import pytest
import tokenizers
from chat_examples import VOCABULARIES

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer


@pytest.mark.parametrize("name", VOCABULARIES)
def test_written_tokens_are_text_and_meant_ones_are_not(name):
    tokenizer = VOCABULARIES[name]
    for text, i in tokenizer.special_tokens.items():
        if text != "<unk>":
            assert tokenizer.encode_parts([f"the {text}", i, f"{text} the"]).count(i) == 1


def test_a_special_token_acts_on_what_stands_beside_it():
    tokenizer = VOCABULARIES["llama 2, a space before the first"]
    start, end = tokenizer.special_tokens["<s>"], tokenizer.special_tokens["</s>"]
    ids = tokenizer.encode_parts(["speak ", "the", start, "the </s>", end])
    assert ids[: ids.index(start)] == tokenizer.encode("speak the")
    assert (ids.count(start), ids.count(end), ids[-1]) == (1, 1, end)
    assert tokenizer.decode(ids) == "speak the<s>the </s></s>"
    assert tokenizer.encode_parts([]) == [] and tokenizer.encode_parts(["\ud83d", start])[-1] == start
    with pytest.raises(UsageError, match="token id 7 is not one of the vocabulary's special tokens"):
        tokenizer.encode_parts(["x", 7])


def test_a_token_beside_a_letter_is_meant_too():
    """`single_word` would have the library read it as text, and a normalizer may drop what stands for it."""
    library = TOKENIZERS["bpe"](["hello hello"], vocab_size=260)._library
    library.normalizer = tokenizers.normalizers.BertNormalizer(clean_text=True, lowercase=False)
    library.add_special_tokens([tokenizers.AddedToken("<s>", single_word=True, normalized=True, special=True)])
    tokenizer = Tokenizer(library)
    assert tokenizer.encode_parts([260, "hello<s>", 260]) == [260, *tokenizer.encode("hello<s>"), 260]


def test_ids_with_gaps_are_not_mistaken_for_special_tokens():
    """A second name would get the number 4 here, which is already the letter c's."""
    vocabulary = {"a": 0, "<s>": 1, "b": 2, "c": 4}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    library.add_special_tokens(["<s>"])
    assert Tokenizer(library).encode_parts([1, "abccab"]) == [1, 0, 2, 4, 4, 0, 2]
    spec = json.loads(library.to_str())
    spec["model"]["vocab"]["far"] = 10**6
    gaping = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)))
    with pytest.raises(TokenizerError, match="5 tokens and ids up to 1,000,000; is it damaged"):
        gaping.encode_parts(["a"])
    spec["model"]["vocab"]["far"] = 10**9  # refused before a billion unused ids are spelled out
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    with pytest.raises(TokenizerError, match="5 tokens and ids up to 1,000,000,000; is it damaged"):
        Tokenizer(library)
