"""Times of words: the path against all paths, words against their tokens, and where they lie in a sound."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_whisper import folder_of, sounds, tokenizer

import glassformer as gf
from glassformer.errors import UsageError
from glassformer.generation import TranscriptionSettings, transcribe
from glassformer.generation.speech_attention import speech_attention
from glassformer.generation.word_times import Word, _shortened, _with_punctuation, _words, cheapest_path
from glassformer.inspection import look

GREEDY = TranscriptionSettings(temperatures=(0.0,), silence=1.0, words=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    folder_of(folder)
    return gf.load(folder)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_no_other_path_costs_less(T: int, S: int, seed: int):
    """Against the recursion over all paths; the path is one, from corner to corner."""
    cost = np.random.default_rng(seed).normal(size=(T, S))

    @cache
    def least(i: int, j: int) -> float:
        ways = [least(a, b) for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
        return cost[i, j] + min(ways, default=0.0)

    rows, columns = cheapest_path(cost)
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, T - 1, S - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert cost[rows, columns].sum() == pytest.approx(least(T - 1, S - 1))


def test_words_hold_all_tokens_and_whole_characters():
    toy = tokenizer()
    text = " Hello there, na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve one."
    ids = toy.encode(text)
    words = _words(toy, ids, spaced=True)
    assert [i for word in words for i in word] == list(ids)
    assert [toy.decode(word) for word in words] == [" Hello", " there", ",", " na\xefve", " one", "."]
    assert [toy.decode(word) for word in _words(toy, ids, spaced=False)] == list(text)
    timed = [Word(toy.decode(word), n, n + 1, 0.5) for n, word in enumerate(words)]
    joined = _with_punctuation(timed)
    assert [word.word for word in joined] == [" Hello", " there,", " na\xefve", " one."]
    assert (joined[1].start, joined[1].end) == (1, 2)


def test_a_pause_after_a_sentence_is_no_part_of_its_last_word():
    words = tuple(Word(f" {w}", a, b, 1.0) for w, a, b in (("one", 0, 0.4), ("two.", 0.4, 4), ("three", 4, 4.4)))
    (found,) = _shortened([words])
    assert [(w.start, w.end) for w in found] == [(0, 0.4), (0.4, pytest.approx(1.2)), (4, 4.4)]


def test_words_lie_in_their_sound_and_in_order(bundle):
    """Of several sounds together, of one of four windows; the words are the segments' text."""
    parts = bundle.model, bundle.tokenizer, bundle.source_processor
    given_sounds = [*sounds(3), np.tile(sounds(1, most=2001)[0], 30)]
    for found in transcribe(*parts, given_sounds, GREEDY):
        assert found.segments
        for segment in found.segments:
            assert "".join(word.word for word in segment.words) == segment.text
            assert all(
                0 <= w.start <= w.end <= found.duration + 0.02 and 0 <= w.probability <= 1 for w in segment.words
            )
        words = found.to_dict()["words"]
        assert words and {"word", "start", "end", "probability"} == set(words[0])
        assert "words" not in found.to_dict()["segments"][0]
    plain = transcribe(*parts, given_sounds[:1], replace(GREEDY, words=False))[0]
    assert plain.segments[0].words == () and "words" not in plain.to_dict()


def test_the_view_draws_what_speech_attention_measures(bundle, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="needs the package soundfile")
    path = tmp_path / "a.wav"
    soundfile.write(path, sounds(1)[0], 16_000)
    from glassformer.inspection.speech import speech

    parts = bundle.model, bundle.tokenizer, bundle.source_processor
    found, expected = speech(*parts, str(path)), speech_attention(*parts, str(path))
    assert np.array_equal(found.weights, expected.weights_TS) and found.tokens == expected.tokens
    spectrogram, attention, table = found.figures()
    assert attention.rows == expected.tokens and spectrogram.columns == attention.columns
    np.testing.assert_allclose(attention.values.sum(axis=1), expected.weights_TS.sum(axis=1), rtol=1e-5)
    assert [row[0] for row in table.rows] == [word.word.strip() for word in expected.words]
    one = speech(*parts, str(path), layer=1, head=2)
    assert one.heads == [(1, 2)] and not np.array_equal(one.weights, found.weights)
    with pytest.raises(UsageError, match="layers 0 to 1, heads 0 to 2"):
        speech(*parts, str(path), layer=2, head=0)
    with pytest.raises(UsageError, match="layer and head belong together"):
        speech(*parts, str(path), layer=1)
    with pytest.raises(UsageError, match="transcribes no sound"):
        from toys import toy_model

        look("speech", toy_model(), None, str(path))
