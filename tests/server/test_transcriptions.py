"""OpenAI's client sends a sound, and gets its text in each of the forms; bad sounds and fields are clear errors."""

from __future__ import annotations

import io
import re

import pytest
from served import ask_json, small_decoder
from served import running as served
from toy_whisper import folder_of, sounds

import glassformer as gf
from glassformer.generation import TranscriptionSettings, transcribe

openai = pytest.importorskip("openai")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("python_multipart")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    folder_of(folder)
    return gf.load(folder)


@pytest.fixture(scope="module")
def url(bundle):
    with served({"whisper": (bundle.model, bundle.tokenizer, bundle.source_processor), "base": small_decoder()}) as at:
        yield at


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def wav(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


SOUND = sounds(1)[0]


def test_every_form_has_the_text_that_python_gives(client, bundle):
    expected = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [SOUND])[0]
    send = {"file": ("a.wav", wav(SOUND)), "model": "whisper"}
    create = client.audio.transcriptions.create
    whole = create(**send, response_format="verbose_json", timestamp_granularities=["segment"])
    assert whole.text == expected.text and whole.duration == len(SOUND) / 16_000
    assert [tuple(s.tokens) for s in whole.segments] == [s.tokens for s in expected.segments]
    assert isinstance(create(**send).text, str)
    assert isinstance(create(**send, response_format="text"), str)
    assert create(**send, response_format="vtt").startswith("WEBVTT")
    assert re.match(r"1\n00:00:0|\Z", create(**send, response_format="srt"))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"file": ("a.wav", b"this is no sound at all")}, "file: not a sound that libsndfile reads"),
    ({"file": ("a.wav", b"")}, "0 bytes"),
    ({"model": "base"}, "transcribes nothing"),
    ({"response_format": "docx"}, "response_format"),
    ({"temperature": 7.0}, "give a number from 0 to 1"),
    ({"timestamp_granularities": ["word"]}, "words are part of verbose_json"),
    ({"timestamp_granularities": ["letter"], "response_format": "verbose_json"}, "segment"),
    ({"language": "de"}, "English and nothing else"),
    ({"extra_body": {"colour": "red"}}, "colour: there is no such field here"),
    ({"prompt": "a" * 20_000}, "20,000 characters"),
])  # fmt: skip
def test_what_cannot_be_done_is_a_clear_error(client, changes, reason):
    with pytest.raises(openai.BadRequestError, match=reason):
        client.audio.transcriptions.create(**{"file": ("a.wav", wav(SOUND)), "model": "whisper", **changes})


def test_other_paths_name_this_one(url):
    status, body = ask_json(url, "/v1/completions", {"model": "whisper", "prompt": "a"})
    assert status == 400 and "/v1/audio/transcriptions" in body["error"]["message"]
    status, body = ask_json(url, "/v1/embeddings", {"model": "whisper", "input": "a"})
    assert status == 400 and "gives no vectors" in body["error"]["message"]
    status, body = ask_json(url, "/v1/audio/transcriptions", {"model": "whisper"})
    assert status == 400 and "multipart/form-data" in body["error"]["message"]


def test_times_of_words_are_those_that_python_gives(client, bundle):
    settings = TranscriptionSettings(words=True)
    (expected,) = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [SOUND], settings)
    send = {"file": ("a.wav", wav(SOUND)), "model": "whisper", "response_format": "verbose_json"}
    create = client.audio.transcriptions.create
    alone, both = (create(**send, timestamp_granularities=names) for names in (["word"], ["word", "segment"]))
    words = [(word.word, word.start, word.end) for segment in expected.segments for word in segment.words]
    for found in (alone, both):
        assert [(word.word, word.start, word.end) for word in found.words] == words
    assert not alone.segments and len(both.segments) == len(expected.segments)
    assert create(**send).words is None


def test_no_file_of_this_machine_is_heard(url):
    for file in ("/etc/hostname", "none.wav"):
        status, body = ask_json(url, "/api/look/speech", {"model": "whisper", "options": {"sound": file}})
        assert status == 400 and "send a file as base64" in body["error"]["message"]
