"""The lecture's tokenizer: sorted characters, and a whole answer to "what about a character it has never seen?"."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, UnknownCharacterWarning
from glassformer.processors.tokenizers.alphabet import whole_characters

hello = TOKENIZERS["characters"](["hello world\n"])  # \n, space, d e h l o r w: ids 0 to 8


def test_the_lectures_ids(shakespeare):
    text = shakespeare.read_text(encoding="utf-8")
    tokenizer = TOKENIZERS["characters"]([text])
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert tokenizer.encode(text[:9]) == [18, 47, 56, 57, 58, 1, 15, 47, 58]
    assert (tokenizer.encode("\n "), tokenizer.decode([64])) == ([0, 1], "z")
    ids = tokenizer.encode_to_array(text)
    assert len(ids) == 1_115_394 and ids.dtype == np.uint16
    assert tokenizer.decode(ids) == text


def test_ids_follow_the_sorted_set_and_there_is_no_logit_for_the_unknown():
    assert hello.vocab_size == 9
    assert hello.encode("\n dehlorw") == list(range(9))
    assert hello.special_tokens == {} and hello.end_of_text is None and hello.kind == "characters"


def test_an_unknown_character_becomes_a_space_with_one_warning_that_names_it():
    with pytest.warns(UnknownCharacterWarning) as seen:
        ids = hello.encode("held\u00e9 \u00e9\u4e16\U0001f389")
    assert hello.decode(ids) == "held" + " " * 5
    assert len(seen) == 1
    message = str(seen[0].message)
    assert all(name in message for name in (r"'\xe9'", r"'\u4e16'", r"'\U0001f389'")), message
    assert message.startswith("3 characters not in the vocabulary")
    assert seen[0].filename == __file__, "the warning points at the line that called"


@pytest.mark.parametrize("encode", [hello.encode_documents, hello.encode_batch])
def test_one_warning_a_call_also_for_many_texts(encode):
    with pytest.warns(UnknownCharacterWarning) as seen:
        encode(["x", "y"])
    assert len(seen) == 1
    assert hello.unknown_characters("zebra hello") == "abz"  # without a warning


def test_without_a_space_the_first_character_stands_in():
    with pytest.warns(UnknownCharacterWarning, match="became 'a'"):
        assert TOKENIZERS["characters"](["cab"]).encode("b!c") == [1, 0, 2]


@given(st.text(st.characters(), max_size=30) | st.text("hello world\n\u00e9", max_size=30))
@settings(max_examples=150, deadline=None)
def test_the_table_agrees_with_the_library_on_any_string(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownCharacterWarning)
        ids = hello.encode(text)
        whole = whole_characters(text)  # the library takes no lone surrogates
        assert ids == hello._library.encode(whole).ids
        assert ids == hello.encode_to_array(whole.encode("utf-8")).tolist()


def test_the_most_frequent_are_kept_and_wide_alphabets_keep_their_ids_apart():
    assert TOKENIZERS["characters"](["aaabbc  \n"], vocab_size=3).decode(range(3)) == " ab"
    alphabet = "".join(map(chr, [*range(0x4E00, 0x4E00 + 5000), 0x1F389]))
    tokenizer = TOKENIZERS["characters"]([alphabet])
    assert tokenizer.encode_to_array(alphabet).tolist() == list(range(5001))


def test_no_text_is_one_clear_line():
    with pytest.raises(TokenizerError, match="there is no text"):
        TOKENIZERS["characters"]([""])
    with pytest.raises(UsageError, match="reads no file"):
        TOKENIZERS["characters"](["a"], path="somewhere")
