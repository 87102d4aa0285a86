"""Examples to ids and back: joint vocabularies, two vocabularies, labels, pieces; nothing typed becomes special."""

from __future__ import annotations

import numpy as np
import pytest

from glassformer.data.encoding import encode_examples, encode_labelled, encode_sources, label_names, tokenizer_from
from glassformer.data.examples import Example
from glassformer.errors import DataError, TokenizerError, UsageError
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS, SENTENCE_SPECIALS, span_specials

PAIRS = [Example("Press the key.", "Appuyez sur la touche."), Example("the key </s>", "la touche <mask> <s>")] * 20
SOUNDS = [Example("abuse", "AH B Y UW S"), Example("a", "AH"), Example("bus", "B AH S")]


def test_pairs_share_a_vocabulary_and_come_back_as_they_were():
    tokenizer = tokenizer_from(PAIRS, "bpe", vocab_size=300, specials=MASKED_SPECIALS)
    encoded = encode_examples(PAIRS, tokenizer, max_source=99, max_target=99)
    assert [(tokenizer.decode(s), tokenizer.decode(t)) for s, t in encoded.rows] == [tuple(e) for e in PAIRS]
    assert (encoded.cut_sources, encoded.cut_targets) == (0, 0)
    assert all(ids.dtype == np.uint16 for row in encoded.rows for ids in row)
    assert [s.tolist() for s, _ in encoded.rows] == [tokenizer.encode(e.source) for e in PAIRS]


def test_no_text_becomes_a_special_token():
    tokenizer = tokenizer_from(PAIRS, "bpe", vocab_size=400, specials=span_specials(3))
    special = set(tokenizer.special_tokens.values())
    assert len(special) == 6 and max(special) == tokenizer.vocab_size - 1
    typed = [Example("".join(tokenizer.special_tokens) + " and " + token, token) for token in tokenizer.special_tokens]
    for source, target in encode_examples(typed, tokenizer, max_source=500, max_target=500).rows:
        assert not special & {*source.tolist(), *target.tolist()}


def test_what_is_longer_loses_its_end_and_is_counted():
    tokenizer = tokenizer_from(PAIRS, "bytes")
    encoded = encode_examples(PAIRS[:2], tokenizer, max_source=12, max_target=20)
    assert [[len(ids) for ids in row] for row in encoded.rows] == [[12, 20], [12, 20]]
    assert (encoded.cut_sources, encoded.cut_targets) == (1, 1)  # 14 and 12 bytes; 22 and 20
    assert tokenizer.decode(encoded.rows[0][0]) == "Press the ke"


def test_letters_are_read_and_sounds_are_said():
    letters = tokenizer_from(SOUNDS, "characters", side="source")
    sounds = tokenizer_from(SOUNDS, "words", side="target")
    assert (letters.vocab_size, sounds.vocab_size) == (5, 5 + 4)
    rows = encode_examples(SOUNDS, letters, sounds, max_source=20, max_target=20).rows
    assert [(letters.decode(s), sounds.decode(t)) for s, t in rows] == [tuple(e) for e in SOUNDS]
    assert [len(t) for _, t in rows] == [5, 1, 3]


def test_labels_are_numbered_in_sorted_order():
    examples = [Example("good", "positive"), Example("bad", "negative")]
    labels = label_names(examples)
    rows = encode_labelled(examples, tokenizer_from(examples, "characters", side="source"), labels, max_source=3).rows
    assert labels == ["negative", "positive"] and [label for _, label in rows] == [1, 0]
    assert [len(ids) for ids, _ in rows] == [3, 3]
    for wrong, why in (
        ([Example("a", "x")] * 2, "all examples have 'x'"),
        ([Example("a", "x"), Example("b")], "has none"),
        ([], "no examples"),
    ):
        with pytest.raises(DataError, match=why):
            label_names(wrong)
    with pytest.raises(DataError, match="the label 'positve' is not one that was learned; did you mean positive"):
        encode_labelled([Example("a", "positve")], tokenizer_from(examples), labels, max_source=3)


def test_long_texts_give_their_beginning_or_all_of_it_in_pieces():
    examples = [Example("abcdefg"), Example("hi"), Example("jkl")]
    tokenizer = tokenizer_from(examples, "characters")
    beginning = encode_sources(examples, tokenizer, max_source=3)
    assert [tokenizer.decode(ids) for ids in beginning.rows] == ["abc", "hi", "jkl"] and beginning.cut_sources == 1
    pieces = encode_sources(examples, tokenizer, max_source=3, pieces=True)
    assert [tokenizer.decode(ids) for ids in pieces.rows] == ["abc", "def", "g", "hi", "jkl"]
    assert pieces.cut_sources == 0


def test_what_makes_no_sense_is_one_line():
    words = tokenizer_from(SOUNDS, "words", side="target")
    with pytest.raises(DataError, match=r"example 1, ' ', is empty in this vocabulary"):
        encode_sources([Example("AH"), Example(" ")], words, max_source=5)
    with pytest.raises(UsageError, match="max_target=0 is less than 1"):
        encode_examples(SOUNDS, words, max_source=5, max_target=0)
    with pytest.raises(UsageError, match="side='traget' is unknown; did you mean target"):
        tokenizer_from(SOUNDS, "words", side="traget")
    with pytest.raises(TokenizerError, match="there is no text to take words from"):
        tokenizer_from([Example("text alone")], "words", side="target")
    with pytest.raises(UsageError, match=r"specials=.*different tokens"):
        tokenizer_from(PAIRS, "bpe", specials=[*SENTENCE_SPECIALS, "<s>"])
