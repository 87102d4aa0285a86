"""A prompt and what is generated behind it are one text: what `decode` makes of all ids at once, in every family.

Any ids may follow any others (a model draws what it likes), cut anywhere: between the bytes of a character too.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, llama
from tokenizer_texts import AWKWARD, SPOKEN

from glassformer.processors.tokenizers import Tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def any_tokenizer(request):
    return FAMILIES[request.param]()


def test_half_an_emoji_is_held_back_and_a_broken_one_comes_out_marked(bytes_tokenizer):
    stream = bytes_tokenizer.stream_decoder()
    assert [stream.push(i) for i in "a🎉é".encode()] == ["a", "", "", "", "🎉", "", "é"]
    assert stream.push(0xF0) + stream.push(0x9F) == "" and stream.finish() == "\ufffd"
    ids = [0xC3, 0x41, 0xFF, 0xE2, 0x82, 0x42]  # a broken one does not take the next with it
    stream = bytes_tokenizer.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.finish() == bytes_tokenizer.decode(ids) == "\ufffdA\ufffd\ufffdB"


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
@pytest.mark.parametrize("text", [SPOKEN, *AWKWARD])
def test_whole_characters_of_texts_too(tokenizer, text):
    _, pieces = joined(tokenizer, [], tokenizer.encode(text))
    assert "".join(pieces) == tokenizer.decode(tokenizer.encode(text))
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_every_family_is_here():
    found = {make().kind for make in FAMILIES.values()}
    assert found >= {
        "characters",
        "bytes",
        "bpe",
        "words",
        "plain-words",
        "smiles",
        "sentencepiece",
        "wordpiece",
        "huggingface",
    }


def joined(tokenizer: Tokenizer, before: list[int], new: list[int]) -> tuple[str, list[str]]:
    decoder = tokenizer.stream_decoder(after=before)
    pieces = [*map(decoder.push, new), decoder.finish()]
    return decoder.before, pieces


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_ids_cut_anywhere_are_one_text(any_tokenizer, data):
    ids = st.integers(0, any_tokenizer.vocab_size - 1)
    before, new = data.draw(st.lists(ids, max_size=13)), data.draw(st.lists(ids, max_size=13))
    text, pieces = joined(any_tokenizer, before, new)
    assert text + "".join(pieces) == any_tokenizer.decode(before + new)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_characters_out_of_bytes_are_shown_whole(data):
    """Bytes of real characters, which random ids rarely are; the cut is anywhere, also inside of one."""
    tokenizer = data.draw(st.sampled_from([LLAMA, GEMMA]))
    text = data.draw(st.text("aé—東🎉 ", max_size=9))
    ids = [tokenizer._library.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]
    cut = data.draw(st.integers(0, len(ids)))
    before, pieces = joined(tokenizer, ids[:cut], ids[cut:])
    assert before + "".join(pieces) == tokenizer.decode(ids) == (text.removeprefix(" ") if tokenizer is LLAMA else text)
    assert not any("\ufffd" in piece for piece in pieces)


LLAMA, GEMMA = llama(), llama(strip=False)


@pytest.mark.parametrize("family", ["llama", "gemma", "metaspace", "bpe"])
def test_the_space_before_a_generated_word_is_there(family):
    """Else a prompt would continue as `First CitizenCitizen`."""
    tokenizer = FAMILIES[family]()
    ids = tokenizer.encode("First Citizen speak")
    for cut in range(1, len(ids)):
        before, pieces = joined(tokenizer, ids[:cut], ids[cut:])
        assert before + "".join(pieces) == "First Citizen speak"
    start, pieces = joined(tokenizer, [], ids)
    assert start == "" and "".join(pieces) == "First Citizen speak"  # and none at the start of a text


def test_bytes_that_are_no_character_spoil_no_other():
    """The library gives up the whole run of bytes, so that what was shown already would change."""
    ids = [LLAMA._library.token_to_id(f"<0x{byte:02X}>") for byte in (0xC3, 0xA9, 0xE2, 0x82)]
    assert LLAMA.decode(ids) == "é\ufffd"
    assert LLAMA.decode([*ids, *LLAMA.encode("a")[-1:]]) == "é\ufffda"
