"""Speech to text: sounds in, transcripts with times out, as four small jobs.

    sound ──► samples ──► 1. a window of 30 s as frames ──► encoder ──► vectors
                          2. vectors ──► tokens     greedy or beam; again at higher temperatures if it went wrong
                          3. tokens ──► segments    and how far the window was understood
                          4. the next window begins there

Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356, sect. 4.5; thresholds as in OpenAI's transcribe.py. A
model without Whisper's tokens (task.kind=transcribe with a vocabulary of its own) has one window, and no times.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.beam import Hypothesis, beam_search
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.seq2seq import plain_text
from glassformer.generation.seq2seq_sampling import sample_answers
from glassformer.generation.settings import Sampling
from glassformer.generation.speech_tokens import PromptedDecoder, SpeechTokens, plain_ids
from glassformer.generation.word_times import Word, WordTimes, word_times
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.tokenizers import Tokenizer

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FORGET_ABOVE = 0.5  # temperature of a window that is no good context for the next one
SHORTEST = 0.1  # seconds; what is left of a sound is not worth a window


@dataclass(frozen=True)
class TranscriptionSettings:
    """How sounds are transcribed.

    Raises:
        UsageError: a value is out of range.
    """

    beam: int = 1  # hypotheses that stay open; 1: greedy
    times: bool = True  # write time stamps; a sound longer than a window always gets them
    words: bool = False  # find out when each word is said
    language: str | None = None  # of a multilingual model, such as de; None: en
    task: str = "transcribe"  # or translate, into English
    prompt: str = ""  # a text before the first window: names, spelling
    previous: bool = True  # the text of a window is context for the next one
    temperatures: tuple[float, ...] = TEMPERATURES  # tried in this order until an answer is good
    best_of: int = 5  # samples at a temperature above 0
    most_compression: float = 2.4  # of a good answer: bytes of its text / bytes after zlib; more is repetition
    least_logprob: float = -1.0  # of a good answer: nats a token, mean
    silence: float = 0.6  # probability of no speech above which a bad answer is dropped
    padding: float | None = None  # seconds of silence after a sound in place of a full window: faster, other results
    batch_size: int = 8  # windows that are read together
    seed: int = 0  # of samples

    def __post_init__(self) -> None:
        for name, ok, rule in (
            ("beam", 1 <= self.beam <= 100, "1 (greedy) to 100"),
            ("best_of", 1 <= self.best_of <= 100, "1 to 100"),
            ("batch_size", 1 <= self.batch_size <= 1024, "1 to 1024"),
            ("temperatures", self.temperatures and all(0 <= t <= 10 for t in self.temperatures), "numbers, 0 to 10"),
            ("silence", 0 <= self.silence <= 1, "0 to 1"),
            ("padding", self.padding is None or 0 <= self.padding <= 600, "0 to 600 seconds"),
        ):
            if not ok:
                raise UsageError(f"{name}={getattr(self, name)} is out of range; use {rule}")


@dataclass(frozen=True)
class Segment:
    """A stretch of speech. start, end: in seconds. words: where they were asked for. The four before are of its window,
    as in OpenAI's JSON."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """A sound as text. duration: in seconds. padding: of the settings, where the result is not that of full windows.
    has_words: whether the segments have words."""

    text: str
    segments: list[Segment]
    duration: float
    padding: float | None = None
    has_words: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the form of OpenAI's `verbose_json`."""
        segments = [{"id": number, **asdict(segment)} for number, segment in enumerate(self.segments)]
        words = [word for segment in segments for word in segment.pop("words")]
        found = {"text": self.text, "duration": self.duration, "segments": segments}
        if self.has_words:
            found["words"] = words
        return found if self.padding is None else {**found, "padding": self.padding}


@dataclass(frozen=True)
class Decoded:
    """The tokens of a window, without the end, and how it went."""

    tokens: tuple[int, ...]
    text: str
    temperature: float
    avg_logprob: float
    no_speech_prob: float

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text / bytes after zlib: repetition is high."""
        raw = self.text.encode("utf-8")
        return len(raw) / len(zlib.compress(raw))

    def is_good(self, settings: TranscriptionSettings) -> bool:
        """Whether no higher temperature need be tried."""
        if self.no_speech_prob > settings.silence and self.avg_logprob < settings.least_logprob:
            return True  # silence
        return self.compression_ratio <= settings.most_compression and self.avg_logprob >= settings.least_logprob

    def is_silence(self, settings: TranscriptionSettings) -> bool:
        """Whether it is dropped."""
        return self.no_speech_prob > settings.silence and self.avg_logprob <= settings.least_logprob


@dataclass
class _Recording:
    """A sound under way. seek: the sample where its next window begins. history: tokens so far, times included."""

    samples: np.ndarray
    seek: int = 0
    history: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def transcribe(
    model: Any,
    tokenizer: Tokenizer,
    processor: AudioProcessor,
    sounds: Sequence[Any],
    settings: TranscriptionSettings | None = None,
    *,
    log: Callable[[int, Segment], None] = lambda number, segment: None,
) -> list[Transcript]:
    """The transcript of each sound, in order. Windows of several sounds are read together.

    Args:
        processor, sounds: as of `AudioProcessor.samples`. log: called with the number of a sound and each segment.

    Raises:
        UsageError: the model transcribes nothing, or does not know the language. DataError: a sound cannot be read.
    """
    settings = settings or TranscriptionSettings()
    check_speech(model, processor)
    tokens = SpeechTokens.of(model, tokenizer)
    recordings = [_Recording(processor.samples(sound)) for sound in sounds]
    if tokens is None:
        _refuse_whisper_settings(settings)
        return _plain(model, tokenizer, processor, recordings, settings)
    tokens.prompt(times=True, language=settings.language, task=settings.task)  # its errors come before the work
    given = plain_ids(tokenizer, f" {settings.prompt.strip()}") if settings.prompt.strip() else []
    for recording in recordings:
        recording.history = list(given)
    waiting = list(enumerate(recordings))
    while waiting:
        prompts = [_prompt(model, tokens, processor, recording, settings) for _, recording in waiting]
        chosen = [i for i, prompt in enumerate(prompts) if prompt == prompts[0]][: settings.batch_size]
        batch = [waiting[i] for i in chosen]
        windows = [recording.samples[recording.seek :][: processor.n_samples] for _, recording in batch]
        vectors_BSC = encode(model, processor, windows, settings.padding)
        found = decode(model, tokenizer, tokens, vectors_BSC, prompts[0], settings)
        for i, ((number, recording), decoded, window) in enumerate(zip(batch, found, windows, strict=True)):
            words: WordTimes | None = None
            if settings.words:
                step = 2 * processor.hop
                n_vectors = min(vectors_BSC.shape[1], -(-len(window) // step))
                words = partial(
                    word_times, model, tokenizer, tokens, vectors_BSC[i : i + 1], n_vectors,
                    step=step / processor.rate, language=settings.language, task=settings.task,
                )  # fmt: skip
            _advance(recording, decoded, len(window), tokens, tokenizer, processor, settings, number, log, words)
        waiting = [entry for entry in waiting if _left(entry[1], processor)]
    return [_transcript(recording, processor, settings) for recording in recordings]


def check_speech(model: Any, processor: Any) -> None:
    """Raise `UsageError` unless a model writes down speech, and reads the frames of the processor."""
    if model.reads != "frames" or "target" not in model.answers:
        raise UsageError(
            f"this {type(model).__name__} reads {model.reads} and transcribes no sound into text; try whisper-tiny-en"
        )
    if not isinstance(processor, AudioProcessor):
        raise UsageError("the model's folder has no preprocessor_config.json, which defines how sound becomes frames")
    frames = 2 * model.config.encoder.block_size
    if (processor.n_mels, processor.n_frames) != (model.config.encoder.n_mels, frames):
        given = f"{processor.n_mels} mel bands and {processor.n_frames} frames"
        raise UsageError(
            f"preprocessor_config.json gives {given}, and the model reads {model.config.encoder.n_mels} and {frames}"
        )


# ---- 1. sound to vectors ----


def encode(model: Any, processor: AudioProcessor, windows: Sequence[np.ndarray], padding: float | None) -> Tensor:
    """What the encoder makes of some windows: (B, S, C). padding: seconds of silence after the longest, in place of as
    much as fills a window."""
    n_frames = processor.n_frames
    if padding is not None:
        longest = max(map(len, windows)) + round(padding * processor.rate)
        n_frames = min(n_frames, 2 * -(-longest // (2 * processor.hop)))
    frames_BMF = np.stack([processor.log_mel(window, n_frames) for window in windows])
    weight = next(model.parameters())
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    with evaluating(model):
        vectors: Tensor = model.encode(torch.from_numpy(frames_BMF).to(weight.device, dtype)).vectors_BSC
        return vectors


# ---- 2. vectors to tokens ----


def decode(
    model: Any,
    tokenizer: Tokenizer,
    tokens: SpeechTokens,
    vectors_BSC: Tensor,
    prompt: Sequence[int],
    settings: TranscriptionSettings,
) -> list[Decoded]:
    """The answer to each window: at the first temperature, and for those that are not good at the next one."""
    reader = PromptedDecoder(model, tokens, prompt, times=tokens.no_times not in prompt)
    found: dict[int, Decoded] = {}
    left = list(range(len(vectors_BSC)))
    for temperature in settings.temperatures:
        best = _answers(reader, vectors_BSC[left], temperature, settings)
        for i, hypothesis, no_speech in zip(left, best, reader.no_speech_B.tolist(), strict=True):
            ids = hypothesis.tokens[:-1] if hypothesis.ended else hypothesis.tokens
            text = tokenizer.decode(tokens.text_ids(ids)).strip()
            mean = hypothesis.log_probability / (len(ids) + 1)
            found[i] = Decoded(ids, text, temperature, mean, no_speech)
        left = [i for i in left if not found[i].is_good(settings)]
        if not left:
            break
    return [found[i] for i in range(len(vectors_BSC))]


def _answers(
    reader: PromptedDecoder, vectors_BSC: Tensor, temperature: float, settings: TranscriptionSettings
) -> list[Hypothesis]:
    """The best hypothesis for each window: likeliest a token on the average."""
    most = reader.most_tokens
    if temperature == 0:
        ranked = {"length_penalty": 1.0, "penalty_kind": "power"}
        rows = beam_search(reader, vectors_BSC, beam=settings.beam, max_new_tokens=most, **ranked)  # type: ignore[arg-type]
        return [row[0] for row in rows]
    n = settings.best_of
    sampling = Sampling(temperature, seed=settings.seed)
    rows = sample_answers(reader, vectors_BSC, samples=n, sampling=sampling, max_new_tokens=most)
    reader.no_speech_B = reader.no_speech_B[::n]
    return [max(row, key=lambda h: h.log_probability / len(h.tokens)) for row in rows]


# ---- 3. tokens to segments ----


def cut(ids: Sequence[int], tokens: SpeechTokens, step: float, duration: float) -> tuple[list[tuple[Any, ...]], float]:
    """(start, end, ids) of each segment of a window in seconds, and how many seconds of it are done.

    Two time stamps side by side end a segment and begin the next one. Where a last segment has not ended, the next
    window begins with it.

    Args:
        step: seconds between two time stamps. duration: of the window.
    """
    stamps = [i >= tokens.first_time for i in ids]
    seconds = lambda i: (i - tokens.first_time) * step  # noqa: E731
    ends = [place for place in range(1, len(ids)) if stamps[place - 1] and stamps[place]]
    if not ends:
        times = [i for i, is_time in zip(ids, stamps, strict=True) if is_time]
        end = seconds(times[-1]) if times and times[-1] != tokens.first_time else duration
        return [(0.0, end, tuple(ids))], duration
    ended = stamps[-1] and not stamps[-2]  # by one time stamp: nothing was begun after it
    ends += [len(ids)] if ended else []
    pieces = [tuple(ids[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    found = [(seconds(piece[0]), seconds(piece[-1]), piece) for piece in pieces]
    return found, duration if ended else found[-1][1]


# ---- 4. from window to window ----


def _prompt(
    model: Any, tokens: SpeechTokens, processor: AudioProcessor, recording: _Recording, settings: TranscriptionSettings
) -> list[int]:
    times = settings.times or len(recording.samples) > processor.n_samples
    text = recording.history[-(model.config.block_size // 2 - 1) :]
    return tokens.prompt(times=times, language=settings.language, task=settings.task, text=text)


def _advance(
    recording: _Recording,
    decoded: Decoded,
    n_samples: int,
    tokens: SpeechTokens,
    tokenizer: Tokenizer,
    processor: AudioProcessor,
    settings: TranscriptionSettings,
    number: int,
    log: Callable[[int, Segment], None],
    words: WordTimes | None = None,
) -> None:
    """Take the segments of a window, and go to the next one. words: gives those of the segments' texts."""
    duration, begin = n_samples / processor.rate, recording.seek / processor.rate
    if decoded.is_silence(settings):
        recording.seek += n_samples
        return
    found, done = cut(decoded.tokens, tokens, 2 * processor.hop / processor.rate, duration)
    timed = words([tokens.text_ids(ids) for _, _, ids in found]) if words else [()] * len(found)
    for (start, end, ids), said in zip(found, timed, strict=True):
        text = tokenizer.decode(tokens.text_ids(ids))
        recording.history += ids
        if start == end or not text.strip():
            continue
        of_window = decoded.temperature, decoded.avg_logprob, decoded.compression_ratio, decoded.no_speech_prob
        start, end = min(start, duration), min(max(start, end), duration)  # a window's silence may be counted too
        placed = tuple(replace(word, start=begin + word.start, end=begin + word.end) for word in said)
        segment = Segment(begin + start, begin + end, text, ids, *of_window, placed)
        recording.segments.append(segment)
        log(number, segment)
    if decoded.temperature > FORGET_ABOVE or not settings.previous:
        recording.history = []
    done_samples = round(done * processor.rate)
    recording.seek += min(done_samples, n_samples) if done_samples > 0 else n_samples  # always onwards


def _left(recording: _Recording, processor: AudioProcessor) -> bool:
    return len(recording.samples) - recording.seek > SHORTEST * processor.rate


def _transcript(recording: _Recording, processor: AudioProcessor, settings: TranscriptionSettings) -> Transcript:
    text = "".join(segment.text for segment in recording.segments).strip()
    duration = len(recording.samples) / processor.rate
    return Transcript(text, recording.segments, duration, settings.padding, settings.words)


# ---- models with a vocabulary of their own ----


def _plain(
    model: Any,
    tokenizer: Tokenizer,
    processor: AudioProcessor,
    recordings: Sequence[_Recording],
    settings: TranscriptionSettings,
) -> list[Transcript]:
    found = []
    for recording in recordings:
        if len(recording.samples) > processor.n_samples:
            seconds = len(recording.samples) / processor.rate
            raise UsageError(f"{seconds:.1f} seconds of sound, and this model reads {processor.seconds}; cut it")
    for start in range(0, len(recordings), settings.batch_size):
        batch = [recording.samples for recording in recordings[start : start + settings.batch_size]]
        frames = np.stack([processor.log_mel(samples, processor.n_frames) for samples in batch])
        source = torch.from_numpy(frames).to(next(model.parameters()).device)
        for samples, row in zip(batch, beam_search(model, source, beam=settings.beam), strict=True):
            ids = row[0].tokens[:-1] if row[0].ended else row[0].tokens
            text, duration = plain_text(tokenizer, ids), len(samples) / processor.rate
            segment = Segment(0.0, duration, text, ids, 0.0, row[0].log_probability / (len(ids) + 1), 1.0, 0.0)
            found.append(Transcript(text, [segment], duration))
    return found


def _refuse_whisper_settings(settings: TranscriptionSettings) -> None:
    plain = TranscriptionSettings(beam=settings.beam, batch_size=settings.batch_size, times=settings.times)
    changed = [name for name, value in asdict(settings).items() if value != getattr(plain, name)]
    if changed:
        raise UsageError(f"{changed[0]} is one of Whisper's settings, and this model has other tokens; leave it out")
