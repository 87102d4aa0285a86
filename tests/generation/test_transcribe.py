"""Speech to text on a toy Whisper: greedy answers equal transformers', windows, fallback, silence, subtitles."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_whisper import BEFORE, END, FIRST_TIME, NO_SPEECH, NO_TIMES, START, TOKENS, folder_of, sounds
from transformers import WhisperFeatureExtractor

import glassformer as gf
from glassformer.errors import UsageError
from glassformer.generation import Segment, TranscriptionSettings, beam_search, subtitles, transcribe
from glassformer.generation.speech_attention import speech_attention
from glassformer.generation.speech_tokens import PromptedDecoder, SpeechTokens, plain_ids
from glassformer.generation.transcribe import Decoded, cut
from glassformer.processors.audio import AudioProcessor

GREEDY = TranscriptionSettings(temperatures=(0.0,), silence=1.0, batch_size=3)


@pytest.fixture(scope="module", params=[0, 1])
def pair(request, tmp_path_factory):
    """The same weights twice."""
    folder = tmp_path_factory.mktemp("whisper")
    return folder_of(folder, request.param), gf.load(folder)


@pytest.mark.parametrize("times", [False, True])
def test_greedy_answers_are_those_of_transformers(pair, times: bool, monkeypatch):
    """Time stamp rules, suppressed tokens and the first token, on 20 sounds of each of two models."""
    model, bundle = pair
    settings = model.generation_config
    monkeypatch.setattr(settings, "suppress_tokens", settings.suppress_tokens)
    given, extractor = sounds(20), WhisperFeatureExtractor(feature_size=7, chunk_length=1)
    reader = bundle.source_processor
    tokens = SpeechTokens.of(bundle.model, bundle.tokenizer)
    decoder = PromptedDecoder(bundle.model, tokens, tokens.prompt(times=times), times=times)
    frames = np.stack([reader.encode(sound) for sound in given])
    vectors = bundle.model.encode(torch.from_numpy(frames)).vectors_BSC
    seen: set[int] = set()
    if not times:  # where we write none
        settings.suppress_tokens = [*settings.suppress_tokens, *range(FIRST_TIME, len(TOKENS))]
    for sound, row in zip(given, beam_search(decoder, vectors, beam=1, max_new_tokens=20), strict=True):
        features = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
        expected = model.generate(features, return_timestamps=times, max_new_tokens=20)[0].tolist()
        expected = [i for i in expected if i not in (START, NO_TIMES, END)]
        ours = [i for i in row[0].tokens[:19] if i != END]  # the last one is cut here, and there it is not
        if times:  # there, what follows the last closed segment is of the next window already
            ours = [i for piece in cut(ours, tokens, 0.02, 1.0)[0] for i in piece[2]]
        assert ours and ours == expected[: len(ours)]
        seen.update(ours)
    assert len(seen) > 8 and (len([i for i in seen if i >= FIRST_TIME]) > 4) == times


def test_one_by_one_or_together_is_the_same(pair):
    _, bundle = pair
    given = sounds(7)
    together = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, given, GREEDY)
    alone = [transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [sound], GREEDY)[0] for sound in given]
    assert [t.text for t in together] == [t.text for t in alone]
    assert [s.tokens for t in together for s in t.segments] == [s.tokens for t in alone for s in t.segments]


def test_long_sounds_go_on_from_where_a_segment_ended(pair):
    _, bundle = pair
    (sound,) = sounds(1, most=2001)
    long = np.tile(sound, 30)  # almost four windows
    found = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [long, sound], GREEDY)
    starts = [segment.start for segment in found[0].segments]
    assert starts == sorted(starts) and starts[-1] > 1.0
    assert all(0 <= s.start <= s.end <= found[0].duration for s in found[0].segments)
    assert found[0].duration == len(long) / 16_000
    alone = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [sound], GREEDY)[0]
    assert [s.tokens for s in found[1].segments] == [s.tokens for s in alone.segments]


def test_a_given_text_is_never_a_special_token(pair):
    _, bundle = pair
    for text in ("<|endoftext|>", "a<|0.20|>b", "<<|startofprev|>|>", "<|notimestamps|>"):
        ids = plain_ids(bundle.tokenizer, text)
        assert max(ids) < END and bundle.tokenizer.decode(ids) == text
    assert FIRST_TIME + 10 in bundle.tokenizer.encode("<|0.20|>")  # which is why


def of(text: str, **changes) -> Decoded:
    return replace(Decoded((), text, 0.0, -0.5, 0.1), **changes)


@pytest.mark.parametrize(("decoded", "good", "silence"), [
    (of("hello there"), True, False),
    (of("no " * 60), False, False),  # repetition
    (of("hello", avg_logprob=-1.2), False, False),
    (of("hello", avg_logprob=-1.2, no_speech_prob=0.7), True, True),
    (of("hello", no_speech_prob=0.7), True, False),  # sure of its words
])  # fmt: skip
def test_when_an_answer_is_good(decoded: Decoded, good: bool, silence: bool):
    settings = TranscriptionSettings()
    assert (decoded.is_good(settings), decoded.is_silence(settings)) == (good, silence)


def test_a_bad_answer_is_tried_again_at_the_next_temperature(pair):
    _, bundle = pair
    parts = bundle.model, bundle.tokenizer, bundle.source_processor, sounds(3)
    strict = replace(GREEDY, temperatures=(0.0, 0.5, 1.0), least_logprob=-0.01)  # no answer is so sure
    (first, *_), (again, *_) = transcribe(*parts, strict), transcribe(*parts, strict)
    assert first == again and {s.temperature for s in first.segments} == {1.0}
    other = transcribe(*parts, replace(strict, seed=5))
    assert [s.tokens for s in other[0].segments] != [s.tokens for s in first.segments]


def test_silence_has_no_text(pair):
    _, bundle = pair
    settings = replace(GREEDY, silence=0.0, least_logprob=0.0)  # every answer is silence
    found = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, sounds(2), settings)
    assert [(t.text, t.segments) for t in found] == [("", [])] * 2


TEXT = [97, 98]


@pytest.mark.parametrize(("ids", "pieces", "done"), [
    # one segment, closed; two, closed; the second one is open, so the next window begins with it; no time at all
    ([0, *TEXT, 20], [(0.0, 0.4)], 1.0),
    ([0, *TEXT, 20, 20, *TEXT, 40], [(0.0, 0.4), (0.4, 0.8)], 1.0),
    ([0, *TEXT, 20, 30, *TEXT], [(0.0, 0.4)], 0.4),
    ([0, *TEXT, 20, 20], [(0.0, 0.4)], 0.4),
    (TEXT, [(0.0, 1.0)], 1.0),
    ([], [(0.0, 1.0)], 1.0),
])  # fmt: skip
def test_segments_and_where_the_next_window_begins(ids: list[int], pieces: list[tuple[float, float]], done: float):
    tokens = SpeechTokens(START, END, NO_TIMES, BEFORE, NO_SPEECH, FIRST_TIME, frozenset(), {}, {})
    spelled = [i if i in TEXT else FIRST_TIME + i for i in ids]
    found, reached = cut(spelled, tokens, 0.02, 1.0)
    assert [(round(a, 6), round(b, 6)) for a, b, _ in found] == pieces and round(reached, 6) == done


def test_subtitles_cannot_be_broken_by_a_text():
    segments = [
        Segment(0.0, 1.5, " Hello --> there.\n\n2\n", (), 0, 0, 1, 0),
        Segment(3599.9996, 3661.25, "<b>&", (), 0, 0, 1, 0),
    ]
    assert subtitles(segments, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello -> there. 2\n\n2\n01:00:00,000 --> 01:01:01,250\n<b>&\n"
    )
    vtt = subtitles(segments, "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n") and vtt.endswith("\n&lt;b>&amp;\n")
    assert len(re.findall("-->", vtt)) == 2


@pytest.mark.parametrize(("changes", "reason"), [
    ({"beam": 0}, "beam=0"), ({"temperatures": ()}, "temperatures"), ({"padding": -1.0}, "padding"),
    ({"language": "de"}, "English and nothing else"), ({"task": "translate"}, "English and nothing else"),
])  # fmt: skip
def test_settings_that_cannot_be(pair, changes, reason):
    _, bundle = pair
    with pytest.raises(UsageError, match=reason):
        settings = TranscriptionSettings(**changes)
        transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, sounds(1), settings)


def test_frames_of_another_shape_are_refused(pair):
    _, bundle = pair
    with pytest.raises(UsageError, match="80 mel bands and 100 frames, and the model reads 7 and 100"):
        transcribe(bundle.model, bundle.tokenizer, AudioProcessor(seconds=1), sounds(1))


def test_attention_over_the_sound_is_the_models_own(pair):
    """Rows of distributions, cut where the sound ends; another sound behind the last sample changes nothing else."""
    _, bundle = pair
    sound = sounds(1)[0]
    found = speech_attention(bundle.model, bundle.tokenizer, bundle.source_processor, sound)
    n = -(-len(sound) // 320)
    assert found.weights_TS.shape == (len(found.tokens), n) and found.frames_MF.shape == (7, 2 * n)
    assert (
        len(found.heads) == 3 and 0 < found.weights_TS.sum(axis=1).min() <= found.weights_TS.sum(axis=1).max() < 1.0001
    )
    (text,) = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [sound], replace(GREEDY, times=False))
    assert len(found.tokens) == sum(i < END for segment in text.segments for i in segment.tokens)
    with pytest.raises(UsageError, match="attention is drawn over 1"):
        speech_attention(bundle.model, bundle.tokenizer, bundle.source_processor, np.tile(sound, 30))


def test_a_saved_bundle_keeps_its_processor(pair, tmp_path):
    _, bundle = pair
    gf.save(tmp_path / "again", bundle)
    assert gf.load(tmp_path / "again").source_processor == bundle.source_processor
