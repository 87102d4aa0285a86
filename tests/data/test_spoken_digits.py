"""Spoken digits: who says what, held-out voices, the cache, and what espeak-ng does not take."""

from __future__ import annotations

import numpy as np
import pytest

from glassformer.data import espeak, spoken_digits
from glassformer.data.espeak import synthesize
from glassformer.data.recordings import load_recordings
from glassformer.data.spoken_digits import (
    DIGITS,
    LONGEST,
    RATE,
    TEST_VOICES,
    VOICES,
    load_spoken_digits,
    speakers,
    texts_of,
)
from glassformer.errors import UsageError

pytest.importorskip("espeakng_loader", reason="needs the package espeakng-loader")


def test_voices_of_the_test_split_are_in_no_other():
    variants = {voice.partition("+")[2] for voice in VOICES}
    assert not variants & {voice.partition("+")[2] for voice in TEST_VOICES} and not set(VOICES) & set(TEST_VOICES)
    assert {s.voice for s in speakers("train")} == {s.voice for s in speakers("validation")} == set(VOICES)
    assert len({s.words_a_minute for s in speakers("test")}) > 2 and len({s.pitch for s in speakers("test")}) > 2
    for voice in (*VOICES, *TEST_VOICES):
        espeak.check_voice(voice, 150)


def test_what_is_said_is_the_same_each_time_and_of_one_to_six_digits():
    texts = texts_of("train", 3, 2000)
    assert texts == texts_of("train", 3, 2000) and texts[:5] != texts_of("train", 4, 5) != texts_of("test", 4, 5)
    lengths = np.array([len(text.split()) for text in texts])
    assert {word for text in texts for word in text.split()} == set(DIGITS)
    assert lengths.min() == 1 and lengths.max() == LONGEST
    assert abs((lengths == 1).mean() - 0.2) < 5 * (0.16 / 2000) ** 0.5  # one draw in three million is farther off


@pytest.fixture
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(spoken_digits, "VOICES", VOICES[:1])
    monkeypatch.setattr(spoken_digits, "TEST_VOICES", TEST_VOICES[:1])
    monkeypatch.setattr(spoken_digits, "COUNTS", {"train": 3, "validation": 1, "test": 2})
    return tmp_path / "spoken-digits"


def test_sounds_come_from_the_cache_and_a_damaged_file_is_made_again(few, monkeypatch):
    first = load_spoken_digits()
    assert {split: len(rows) for split, rows in first.items()} == {"train": 6, "validation": 2, "test": 4}
    files = sorted(few.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    again = load_spoken_digits()
    monkeypatch.setattr(espeak, "synthesize", lambda *_: pytest.fail("it is in the cache"))
    for rows in (again, load_spoken_digits()):
        for split, sounds in first.items():
            assert [(s.text, s.key) for s in sounds] == [(s.text, s.key) for s in rows[split]]
            assert all(np.array_equal(a.samples_N, b.samples_N) for a, b in zip(sounds, rows[split], strict=True))


def test_they_are_recordings_of_some_seconds(few):
    clips = load_recordings("spoken-digits")
    for clip in (clip for rows in clips.values() for clip in rows):
        seconds = len(clip.sound) / RATE
        assert clip.sound.dtype == np.float32 and 0.05 < np.abs(clip.sound).max() <= 1
        assert 0.15 < seconds / len(clip.text.split()) < 1.2
    assert len({clip.key for rows in clips.values() for clip in rows}) == 12


def test_the_pitch_is_heard_and_bounded():
    low, again, high = (next(synthesize(["seven"], "en-us", 150, pitch)).samples_N for pitch in (10, 10, 90))
    assert np.array_equal(low, again) and not np.array_equal(low, high)
    with pytest.raises(UsageError, match="pitch=100"):
        next(synthesize(["seven"], "en-us", 150, 100))
