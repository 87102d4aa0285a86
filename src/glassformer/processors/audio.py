"""Sound to log-mel frames (mels, frames) and back.

    processor = AudioProcessor()                    # Whisper's: 16 kHz, 80 mel bands, 100 frames a second, 30 s
    frames_MF = processor.encode("hello.wav")       # (80, 3000), fp32
    processor.save("runs/NAME/model")               # preprocessor_config.json, as WhisperFeatureExtractor writes it

    file ──► one channel ──► 16 kHz ──► windows of 25 ms, every 10 ms ──► power ──► mel bands ──► log10, scaled

Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356, sect. 2.2. Frames equal those of transformers'
extractor (a test holds them equal to 1e-4).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, MissingExtraError, ModelFolderError, UsageError, one_line
from glassformer.files import disk_errors, write_json
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
TYPE = "WhisperFeatureExtractor"
MAX_BYTES = 2 << 30  # of a file
MAX_SECONDS = 4 * 3600  # of a sound: some 900 MB at 16 kHz
RATES = (4_000, 192_000)  # of a file, in Hz
LOUDEST = 8.0  # of a sample, where 1 is full scale: more is not a sound of this scale
BLOCK = 1 << 18  # samples that are read and resampled together
MAX_RATIO = 5000  # of two rates, as whole numbers; the nearest one is off by less than a millisecond in an hour
FLOOR = 1e-10  # of power, before the logarithm
RANGE = 8.0  # what is quieter than the loudest point by so many powers of ten is cut


@dataclass(frozen=True)
class AudioProcessor:
    """Sounds as log-mel frames of fp32.

    Attributes:
        n_mels: bands of a frame.
        rate: samples a second (Hz) that the frames are made of.
        window: samples of a frame, under a Hann window. hop: samples from a frame to the next one.
        seconds: length of what a model reads; shorter sounds are filled up with silence.

    Raises:
        UsageError: a value is impossible.
    """

    n_mels: int = 80
    rate: int = 16_000
    window: int = 400
    hop: int = 160
    seconds: int = 30

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_mels", 1, 512),
            ("rate", *RATES),
            ("window", 16, min(self.rate, 1 << 14)),
            ("hop", 1, self.window),
            ("seconds", 1, 600),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{name}={value}: give a whole number from {low:,} to {high:,}")

    @property
    def n_samples(self) -> int:
        """Samples of what a model reads."""
        return self.seconds * self.rate

    @property
    def n_frames(self) -> int:
        """Frames of what a model reads."""
        return self.n_samples // self.hop

    def encode(self, sound: Any) -> np.ndarray:
        """The frames of a sound: (mels, frames), fp32, filled up or cut to `seconds`.

        Args:
            sound: as of `samples`.
        """
        samples_N = self.samples(sound)[: self.n_samples]
        return self.log_mel(samples_N, self.n_frames)

    def samples(self, sound: Any) -> np.ndarray:
        """A sound as one channel of `rate` samples a second, (N,), fp32.

        Args:
            sound: a path, the bytes of a file (WAV, FLAC, Ogg, MP3: what libsndfile reads), or an array (N,) at `rate`.

        Raises:
            DataError: it cannot be read, is empty, too long, of an unusual rate, or has samples that are no numbers.
            UsageError: an array of another shape.
            MissingExtraError: without soundfile.
        """
        if isinstance(sound, np.ndarray):
            if sound.ndim != 1 or not np.issubdtype(sound.dtype, np.floating):
                raise UsageError(f"an array of {sound.dtype}, shape {sound.shape}: give floats (-1 to 1), (samples,)")
            return _checked(np.ascontiguousarray(sound, dtype=np.float32), "a sound")
        where = "a sound" if isinstance(sound, bytes) else str(sound)
        return _checked(_read(sound, where, self.rate), where)

    def log_mel(self, samples_N: np.ndarray, n_frames: int) -> np.ndarray:
        """The frames of samples and the silence after them: (mels, n_frames), fp32.

        Power of the Fourier transform of each window, summed in bands, log10, cut at `RANGE` below the largest, then
        (x + 4) / 4. The middle of frame i is sample i `hop`; the sound is mirrored at both ends. Frames that hear
        nothing are not computed.
        """
        half, most = self.window // 2, n_frames * self.hop
        padded = np.zeros(min(most, len(samples_N) + half + 1), dtype=np.float32)
        padded[: len(samples_N)] = samples_N[:most]
        padded = np.pad(padded, half, mode="reflect")
        windows_FW = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop][:n_frames]
        from scipy import fft

        spectrum_FK = fft.rfft(windows_FW * hann(self.window), axis=1)
        power_FK = spectrum_FK.real**2 + spectrum_FK.imag**2
        bands_MF = mel_filters(self.n_mels, self.rate, self.window) @ power_FK.T
        log_MF = np.full((self.n_mels, n_frames), math.log10(FLOOR), dtype=np.float32)
        log_MF[:, : len(windows_FW)] = np.log10(np.maximum(bands_MF, FLOOR))
        return (np.maximum(log_MF, log_MF.max() - np.float32(RANGE)) + np.float32(4)) / np.float32(4)

    def decode(self, frames_MF: Any, *, iterations: int = 32) -> np.ndarray:
        """Samples (N,) that sound like some frames, at `rate`: the power of each band is spread over its frequencies,
        and phases are found by Griffin and Lim 1984, https://doi.org/10.1109/TASSP.1984.1164317."""
        import torch

        frames_MF = np.asarray(frames_MF, dtype=np.float32)
        if frames_MF.ndim != 2 or len(frames_MF) != self.n_mels or not np.isfinite(frames_MF).all():
            raise UsageError(f"frames of shape {frames_MF.shape}: give finite numbers, ({self.n_mels}, frames)")
        bands_MF = np.float32(10) ** np.clip(frames_MF * 4 - 4, -10, 10)
        filters_MK = mel_filters(self.n_mels, self.rate, self.window)
        share_K1 = np.maximum(filters_MK.sum(axis=0)[:, None], 1e-9)
        power_KF = filters_MK.T @ bands_MF + np.float32(FLOOR)
        for _ in range(iterations):  # no power is negative (Lee and Seung 2000, their update for the divergence)
            power_KF *= filters_MK.T @ (bands_MF / (filters_MK @ power_KF + FLOOR)) / share_K1
        size_KF = torch.from_numpy(np.sqrt(power_KF))
        window = torch.from_numpy(hann(self.window))
        settings: dict[str, Any] = {"n_fft": self.window, "hop_length": self.hop, "window": window}
        length = frames_MF.shape[1] * self.hop
        phase_KF = torch.exp(2j * math.pi * torch.rand(size_KF.shape, generator=torch.Generator().manual_seed(0)))
        for _ in range(iterations):
            sound = torch.istft(size_KF * phase_KF, length=length, **settings)
            found_KF = torch.stft(sound, return_complex=True, **settings)[:, : size_KF.shape[1]]
            phase_KF = found_KF / found_KF.abs().clamp_min(1e-9)
        samples: np.ndarray = torch.istft(size_KF * phase_KF, length=length, **settings).numpy()
        return samples

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        config = {
            "feature_extractor_type": TYPE,
            "processor_class": "WhisperProcessor",
            "feature_size": self.n_mels,
            "sampling_rate": self.rate,
            "n_fft": self.window,
            "hop_length": self.hop,
            "chunk_length": self.seconds,
            "n_samples": self.n_samples,
            "nb_max_frames": self.n_frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        write_json(Path(folder) / FILE, config)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> AudioProcessor:
        """Read the preprocessor_config.json of a model folder.

        Raises:
            ModelFolderError: it is missing or damaged, or asks for a step that is not done here.
        """
        file = Path(folder) / FILE
        config = read_json(file, ModelFolderError, most=8 << 20)  # OpenAI's folders have the mel filters in it
        kind = config.get("feature_extractor_type", TYPE)
        if kind != TYPE:
            raise ModelFolderError(f"{file}: {one_line(repr(kind), most=60)} is not read here; {TYPE} is")
        for field, needed in (
            ("padding_value", 0.0),
            ("padding_side", "right"),
            ("dither", 0.0),
            ("do_normalize", False),
        ):
            if (value := config.get(field, needed)) != needed:
                raise ModelFolderError(
                    f"{file}: {field}={one_line(repr(value), most=60)} is not done here; {needed} is"
                )
        names = {"n_mels": "feature_size", "rate": "sampling_rate", "window": "n_fft", "hop": "hop_length"}
        names["seconds"] = "chunk_length"
        try:
            return cls(**{ours: config[theirs] for ours, theirs in names.items() if theirs in config})
        except UsageError as error:
            raise ModelFolderError(f"{file}: {one_line(error)}; correct the file or fetch it again") from None


def load_audio_processor(folder: str | os.PathLike[str]) -> AudioProcessor | None:
    """`AudioProcessor.load(folder)`, or None where the folder has none."""
    return AudioProcessor.load(folder) if (Path(folder) / FILE).is_file() else None


@cache
def hann(n: int) -> np.ndarray:
    """The periodic Hann window, (n,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


@cache
def mel_filters(n_mels: int, rate: int, window: int) -> np.ndarray:
    """What each frequency counts in each band: (mels, window // 2 + 1). Triangles of area 1, evenly spaced on Slaney's
    mel scale (1998, Auditory Toolbox): linear up to 1 kHz, logarithmic above."""
    step, knee, log_step = 200 / 3, 1000.0, math.log(6.4) / 27

    def hertz(mel: np.ndarray) -> np.ndarray:
        high = knee * np.exp(log_step * (mel - knee / step))
        return np.where(mel < knee / step, step * mel, high)

    top = rate / 2
    top_mel = top / step if top < knee else knee / step + math.log(top / knee) / log_step
    edges = hertz(np.linspace(0.0, top_mel, n_mels + 2))
    frequencies = np.linspace(0.0, top, window // 2 + 1)
    slopes = edges[:, None] - frequencies[None]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _read(sound: Any, where: str, rate: int) -> np.ndarray:
    """All samples of a file, mixed down and resampled block by block."""
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError("reading sound", "audio") from None
    try:
        with disk_errors(where):
            if not isinstance(sound, bytes) and Path(sound).is_dir():
                raise DataError(f"{where}: a folder, and a sound file is needed")
            n_bytes = len(sound) if isinstance(sound, bytes) else Path(sound).stat().st_size
            if not 0 < n_bytes <= MAX_BYTES:
                raise DataError(f"{where}: {n_bytes:,} bytes; give a sound file of 1 byte to {MAX_BYTES >> 30} GiB")
            with soundfile.SoundFile(io.BytesIO(sound) if isinstance(sound, bytes) else str(sound)) as file:
                if not RATES[0] <= file.samplerate <= RATES[1]:
                    raise DataError(
                        f"{where}: {file.samplerate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read"
                    )
                found = list(_resampled(_blocks(file, where), file.samplerate, rate))
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file; check the path") from None
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = one_line(str(error).rpartition(": ")[2] or error, most=120)
        raise DataError(f"{where}: not a sound that libsndfile reads, or damaged ({reason})") from None
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def _blocks(file: Any, where: str) -> Iterator[np.ndarray]:
    """One channel of a file in blocks (n,), fp32. The header's word about its length is not trusted."""
    count, most = 0, MAX_SECONDS * file.samplerate
    while len(block_NC := file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)):
        count += len(block_NC)
        if count > most:
            raise DataError(f"{where}: longer than {MAX_SECONDS // 3600} hours; cut it into parts")
        if not np.isfinite(block_NC).all():
            raise DataError(f"{where}: has samples that are no finite numbers; export it again")
        yield block_NC.mean(axis=1)


def _resampled(blocks: Iterator[np.ndarray], given: int, wanted: int) -> Iterator[np.ndarray]:
    """The same sound with `wanted` samples a second in place of `given`: scipy's polyphase filter, by pieces that
    overlap by its width, so that the result is that of the whole."""
    if given == wanted:
        yield from blocks
        return
    from scipy import signal

    ratio = Fraction(wanted, given).limit_denominator(MAX_RATIO)
    up, down = ratio.numerator, ratio.denominator
    filter_ = signal.firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0)).astype(np.float32)
    reach = down * -(-(10 * max(up, down) // up + 1) // down)  # samples on both sides that a new one depends on
    held, before = np.zeros(0, dtype=np.float32), 0  # samples not yet done, and how many of them are only context

    def piece(n: int) -> np.ndarray:
        """The new samples of the first n held ones after the context."""
        found = signal.resample_poly(held[: before + n + reach], up, down, window=filter_)
        first = before // down * up
        return found[first : first + -(-n * up // down)].astype(np.float32)

    for block in blocks:
        held = np.concatenate((held, block))
        ready = (len(held) - before - reach) // down * down
        if ready >= BLOCK or ready >= 64 * reach:
            yield piece(ready)
            kept = before + ready - min(before + ready, reach)
            before, held = before + ready - kept, held[kept:]
    if len(held) > before:
        yield piece(len(held) - before)


def _checked(samples_N: np.ndarray, where: str) -> np.ndarray:
    """Samples that are there, finite and of the usual scale."""
    if not len(samples_N):
        raise DataError(f"{where}: 0 seconds of sound; give a longer one")
    loudest = float(max(samples_N.max(), -samples_N.min()))
    if not math.isfinite(loudest):
        raise DataError(f"{where}: has samples that are no finite numbers; export it again")
    if loudest > LOUDEST:
        raise DataError(f"{where}: samples up to {loudest:.4g}, where 1 is full scale; scale it and export it again")
    return samples_N
