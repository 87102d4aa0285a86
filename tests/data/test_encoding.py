"""Labels of examples, and tokenizers that are learned from one side of them or both; no text becomes special."""

from __future__ import annotations

import pytest

from glassformer.data.encoding import label_names, tokenizer_from
from glassformer.data.examples import Example
from glassformer.errors import DataError, TokenizerError, UsageError
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS, SENTENCE_SPECIALS, span_specials

PAIRS = [Example("Press the key.", "Appuyez sur la touche."), Example("the key </s>", "la touche <mask> <s>")] * 20
SOUNDS = [Example("abuse", "AH B Y UW S"), Example("a", "AH"), Example("bus", "B AH S")]


def test_pairs_share_a_vocabulary_and_come_back_as_they_were():
    tokenizer = tokenizer_from(PAIRS, "bpe", vocab_size=300, specials=MASKED_SPECIALS)
    for text in (text for pair in PAIRS for text in pair):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_text_becomes_a_special_token():
    tokenizer = tokenizer_from(PAIRS, "bpe", vocab_size=400, specials=span_specials(3))
    special = set(tokenizer.special_tokens.values())
    assert len(special) == 6 and max(special) == tokenizer.vocab_size - 1
    for token in tokenizer.special_tokens:
        for ids in tokenizer.encode_documents(["".join(tokenizer.special_tokens) + " and " + token, token]):
            assert not special & {*ids.tolist()}


def test_each_side_has_its_own_symbols():
    letters = tokenizer_from(SOUNDS, "characters", side="source")
    sounds = tokenizer_from(SOUNDS, "words", side="target")
    assert (letters.vocab_size, sounds.vocab_size) == (5, 5 + 4)
    for source, target in SOUNDS:
        assert letters.decode(letters.encode(source)) == source and sounds.decode(sounds.encode(target)) == target


def test_labels_are_sorted_and_two_at_the_least():
    assert label_names([Example("good", "positive"), Example("bad", "negative")]) == ["negative", "positive"]
    for wrong, why in (
        ([Example("a", "x")] * 2, "all examples have 'x'"),
        ([Example("a", "x"), Example("b")], "has none"),
        ([], "no examples"),
    ):
        with pytest.raises(DataError, match=why):
            label_names(wrong)


def test_mistakes_are_one_line():
    with pytest.raises(UsageError, match="side='traget' is unknown; did you mean target"):
        tokenizer_from(SOUNDS, "words", side="traget")
    with pytest.raises(TokenizerError, match="there is no text to take words from"):
        tokenizer_from([Example("text alone")], "words", side="target")
    with pytest.raises(UsageError, match=r"specials=.*different tokens"):
        tokenizer_from(PAIRS, "bpe", specials=[*SENTENCE_SPECIALS, "<s>"])
