"""A stream of tokens shows whole characters only, and all of it together is what `decode` says."""

import pytest
from tokenizer_texts import AWKWARD, SPOKEN

from glassformer.processors.tokenizers import TOKENIZERS


def test_half_an_emoji_is_held_back(bytes_tokenizer):
    stream = bytes_tokenizer.stream_decoder()
    assert [stream.push(i) for i in "a🎉é".encode()] == ["a", "", "", "", "🎉", "", "é"]
    assert stream.finish() == ""


def test_what_never_becomes_whole_comes_out_marked_at_the_end(bytes_tokenizer):
    stream = bytes_tokenizer.stream_decoder()
    assert stream.push(0xF0) + stream.push(0x9F) == ""
    assert stream.finish() == "\ufffd"


def test_a_broken_character_does_not_swallow_the_next(bytes_tokenizer):
    ids = [0xC3, 0x41, 0xFF, 0xE2, 0x82, 0x42]
    stream = bytes_tokenizer.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.finish() == bytes_tokenizer.decode(ids) == "\ufffdA\ufffd\ufffdB"


@pytest.mark.filterwarnings("ignore::glassformer.processors.tokenizers.UnknownCharacterWarning")
@pytest.mark.parametrize("text", [SPOKEN, *AWKWARD])
def test_pushes_and_finish_add_up_to_decode(tokenizer, text):
    ids = tokenizer.encode(text)
    stream = tokenizer.stream_decoder()
    pieces = [*map(stream.push, ids), stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", [SPOKEN, *AWKWARD])
def test_also_where_a_tokens_text_depends_on_its_neighbours(text):
    pytest.importorskip("sentencepiece")
    tokenizer = TOKENIZERS["sentencepiece"]([SPOKEN * 5], vocab_size=420)
    ids = tokenizer.encode(text)
    stream = tokenizer.stream_decoder()
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)
