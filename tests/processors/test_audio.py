"""Sound to frames: equal to transformers, at any rate, with any channels; bounded; saved as Hugging Face saves."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.processors import audio, load_processor
from glassformer.processors.audio import AudioProcessor

soundfile = pytest.importorskip("soundfile")
WHISPER = AudioProcessor()
SHORT = AudioProcessor(n_mels=7, rate=8000, window=200, hop=80, seconds=1)


def noise(n: int, seed: int = 0) -> np.ndarray:
    """Louder and louder, so that a frame at another place is another frame."""
    return (np.random.default_rng(seed).normal(size=n) * np.linspace(0.01, 0.1, n)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


# lengths around what is mirrored at the end (200 samples) and around the whole window of a second
@pytest.mark.parametrize("n", [1, 2, 199, 201, 4000, 15_799, 15_800, 15_801, 15_999, 16_000, 16_001, 40_000])
@pytest.mark.parametrize("n_mels", [80, 128])
def test_frames_are_those_of_transformers(n: int, n_mels: int):
    from transformers import WhisperFeatureExtractor

    theirs = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=1)
    expected = theirs(noise(n), sampling_rate=16_000, return_tensors="np").input_features[0]
    ours = AudioProcessor(n_mels=n_mels, seconds=1).encode(noise(n))
    assert ours.shape == (n_mels, 100) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.abs(np.roll(ours, 1, axis=1) - expected).max() > 1e-2  # a shift by one frame would be seen


def test_whisper_reads_3000_frames_of_a_short_clip():
    from transformers import WhisperFeatureExtractor

    expected = WhisperFeatureExtractor()(noise(30_000), sampling_rate=16_000, return_tensors="np").input_features[0]
    np.testing.assert_allclose(WHISPER.encode(noise(30_000)), expected, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [1 << 18, 5003])
def test_any_rate_is_resampled_as_scipy_resamples_the_whole(rate: int, block: int, monkeypatch):
    from scipy import signal

    monkeypatch.setattr(audio, "BLOCK", block)
    samples, divisor = noise(rate * 3 + 11), np.gcd(rate, 16_000)
    whole = signal.resample_poly(samples, 16_000 // divisor, rate // divisor)
    np.testing.assert_allclose(WHISPER.samples(wav(samples, rate, "FLOAT")), whole, atol=1e-6)


@pytest.mark.parametrize(("form", "subtype", "error"), [
    ("WAV", "PCM_U8", 1 / 127), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "FLOAT", 1e-7),
    ("WAV", "ULAW", 0.01), ("FLAC", "PCM_24", 1e-6), ("FLAC", "PCM_16", 1e-4),
])  # fmt: skip
def test_channels_are_mixed_down_in_every_form(form: str, subtype: str, error: float):
    left, right = noise(5003, 1), noise(5003, 2)
    found = WHISPER.samples(wav(np.stack([left, right], axis=1), subtype=subtype, form=form))
    np.testing.assert_allclose(found, (left + right) / 2, atol=error)


def test_a_file_and_its_bytes_and_its_samples_are_one(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(wav(noise(3001), 8000))
    frames = SHORT.encode(tmp_path / "a.wav")
    assert frames.shape == (7, 100)
    np.testing.assert_array_equal(SHORT.encode(str(tmp_path / "a.wav")), frames)
    np.testing.assert_array_equal(SHORT.encode((tmp_path / "a.wav").read_bytes()), frames)
    np.testing.assert_array_equal(SHORT.encode(SHORT.samples(tmp_path / "a.wav")), frames)


def test_a_tone_comes_back():
    """Griffin-Lim finds phases of its own: the frequency is what must stay."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    processor = AudioProcessor(seconds=1)
    again = processor.decode(processor.encode(tone))
    spectrum = np.abs(np.fft.rfft(again[4000:12_000] * np.hanning(8000)))
    assert abs(int(spectrum.argmax()) * 2 - 440) < 25
    sound = processor.encode(noise(16_000))
    np.testing.assert_allclose(
        processor.encode(processor.decode(sound))[:, 20:80].mean(), sound[:, 20:80].mean(), atol=0.1
    )


HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def claims(n_bytes: int, rate: int = 16_000, channels: int = 1) -> bytes:
    """A WAV whose header states so many bytes of samples, with 20 of them."""
    head = HEADER.pack(b"RIFF", n_bytes & 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * 2, 2, 16, b"data",
                       n_bytes & 0xFFFFFFFF)  # fmt: skip
    return head + b"\x01\x02" * 10


def test_a_header_of_4_gigabytes_is_not_trusted():
    began = time.process_time()
    assert len(WHISPER.samples(claims(0xFFFFFFF0))) == 10
    assert time.process_time() - began < 2


BAD = {
    "empty": (b"", "0 bytes"),
    "a text": (b"hello there, this is a text and no sound" * 9, "not a sound that libsndfile reads"),
    "a header alone": (wav(noise(5))[:44], "0 seconds of sound"),
    "half a header": (wav(noise(500))[:23], "not a sound that libsndfile reads"),
    "no samples": (wav(noise(0)), "0 seconds of sound"),
    "1 Hz": (claims(20, rate=1), "1 samples a second"),
    "a gigahertz": (claims(20, rate=1_000_000_000), "1,000,000,000 samples a second"),
    "not a number": (wav(np.array([0.1, np.nan, 0.2], dtype=np.float32), subtype="FLOAT"), "no finite numbers"),
    "infinite": (wav(np.array([0.1, -np.inf, 0.2], dtype=np.float32), subtype="FLOAT"), "no finite numbers"),
    "another scale": (wav(np.array([3e4, -3e4], dtype=np.float32), subtype="FLOAT"), "scale it"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_sound_is_one_clear_line(case: str, tmp_path: Path):
    content, reason = BAD[case]
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        WHISPER.samples(tmp_path / "bad.wav")
    assert str(caught.value).startswith(str(tmp_path / "bad.wav")) and "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_sound_that_is_too_long(tmp_path: Path, monkeypatch):
    for path, reason in ((tmp_path / "none.wav", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=reason):
            WHISPER.samples(path)
    monkeypatch.setattr(audio, "MAX_SECONDS", 1)
    with pytest.raises(DataError, match="longer than"):
        WHISPER.samples(wav(noise(16_001)))
    assert len(WHISPER.samples(wav(noise(16_000)))) == 16_000


@pytest.mark.parametrize("bad", [np.zeros((2, 3), np.float32), np.zeros(3, np.int16)])
def test_an_array_must_be_one_channel_of_floats(bad: np.ndarray):
    with pytest.raises(UsageError, match="give floats"):
        WHISPER.samples(bad)


def hostile(random: np.random.Generator, sound: bytes) -> bytes:
    """A sound file with something wrong in it: bytes changed, cut off, put in, or a length that cannot be."""
    data = bytearray(sound)
    for _ in range(int(random.integers(1, 9))):
        place = int(random.integers(0, min(len(data), 200 if random.random() < 0.8 else len(data))))
        match int(random.integers(0, 5)):
            case 0:
                data[place] = int(random.integers(0, 256))
            case 1:
                data[place : place + 4] = struct.pack(
                    "<I", int(random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0]))
                )
            case 2:
                del data[place : place + int(random.integers(1, 40))]
            case 3:
                data[place:place] = random.bytes(int(random.integers(1, 40)))
            case _:
                del data[max(place, 1) :]
        if not data:
            data = bytearray(b"R")
    return bytes(data)


def test_500_hostile_files_are_read_or_refused_in_bounded_time():
    """Each is either finite samples or one `DataError` of one line, within two seconds of computing."""
    random = np.random.default_rng(17)
    samples = np.stack([noise(4001, 1), noise(4001, 2)], axis=1)
    sounds = [wav(samples, 44_100, subtype, form) for form, subtype in (
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
    )]  # fmt: skip
    refused = 0
    for number in range(500):
        content = hostile(random, sounds[number % len(sounds)])
        began = time.process_time()
        try:
            found = WHISPER.samples(content)
            assert found.ndim == 1 and len(found) and np.isfinite(found).all()
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
        assert time.process_time() - began < 2, number
    assert 100 < refused < 500


@pytest.mark.parametrize("processor", [WHISPER, SHORT, AudioProcessor(n_mels=128)])
def test_what_is_saved_is_loaded_here_and_by_transformers(processor: AudioProcessor, tmp_path: Path):
    from transformers import WhisperFeatureExtractor

    processor.save(tmp_path)
    assert AudioProcessor.load(tmp_path) == processor == load_processor("frames", tmp_path)
    theirs = WhisperFeatureExtractor.from_pretrained(tmp_path)
    assert (theirs.feature_size, theirs.n_samples, theirs.nb_max_frames) == (
        processor.n_mels, processor.n_samples, processor.n_frames)  # fmt: skip


def test_a_folder_of_transformers_is_read(tmp_path: Path):
    from transformers import WhisperFeatureExtractor

    WhisperFeatureExtractor(feature_size=128, chunk_length=7).save_pretrained(tmp_path)
    assert AudioProcessor.load(tmp_path) == AudioProcessor(n_mels=128, seconds=7)
    assert load_processor("frames", tmp_path / "nothing") is None


@pytest.mark.parametrize(("content", "reason"), [
    ('{"feature_extractor_type": "Wav2Vec2FeatureExtractor"}', "is not read here"),
    ('{"dither": 0.1}', "dither=0.1 is not done here"),
    ('{"do_normalize": true}', "do_normalize=True is not done here"),
    ('{"hop_length": 0}', "hop=0"),
    ('{"feature_size": "80"}', "n_mels=80"),
    ('{"chunk_length": 3.5}', "seconds=3.5"),
    ('{"n_fft": 1000000}', "window=1000000"),
    ("[]", "preprocessor_config.json"),
])  # fmt: skip
def test_other_extractors_and_damaged_files_are_refused(content: str, reason: str, tmp_path: Path):
    (tmp_path / audio.FILE).write_text(content)
    with pytest.raises(ModelFolderError, match=reason):
        AudioProcessor.load(tmp_path)
