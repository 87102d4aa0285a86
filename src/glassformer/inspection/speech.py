"""A sound as a model of speech hears it: its spectrogram, and where each token that it writes listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, HeatMap, Table
from glassformer.generation.speech_attention import speech_attention
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option

MAX_COLUMNS, MAX_BANDS, MAX_TOKENS = 60, 20, 64  # of a picture


@dataclass
class SpeechView(View):
    """Frames and cross-attention over the same time."""

    tokens: list[str]  # (T,) that the model writes
    weights: np.ndarray  # (T, S): the mean of `heads`
    frames: np.ndarray  # (mels, 2 S), log-mel
    heads: list[tuple[int, int]]  # (layer, head)
    step: float  # seconds of each of the S vectors
    words: list[tuple[str, float, float]]  # with start and end in seconds

    def figures(self) -> list[Figure]:
        """Both with the same columns, which are means of frames and sums of weights."""
        n = self.weights.shape[1]
        edges = np.unique(np.linspace(0, n, min(n, MAX_COLUMNS) + 1).astype(int))
        times = [f"{edge * self.step:.2f}" for edge in edges[:-1]]
        mels = len(self.frames)
        rows = np.unique(np.linspace(0, mels, min(mels, MAX_BANDS) + 1).astype(int))
        bands = _sums(_sums(self.frames, 2 * edges, 1), rows, 0)
        bands = bands / np.diff(rows)[:, None] / (2 * np.diff(edges))
        loudness, labels = (bands - bands.min())[::-1], [f"{row + 1}" for row in rows[:-1]][::-1]
        which = "the mean of" if len(self.heads) > 1 else ""
        about = f"{which} {', '.join(f'{a}.{b}' for a, b in self.heads[:8])}{', ...' if len(self.heads) > 8 else ''}"
        title = f"Where each token listens (layer.head: {about.strip()})"
        tokens, weights = self.tokens[:MAX_TOKENS], _sums(self.weights, edges, 1)[:MAX_TOKENS]
        figures: list[Figure] = [
            HeatMap("Log-mel spectrogram", loudness, labels, times, "mel band", "seconds"),
            HeatMap(title, weights, tokens, times, "tokens", "seconds", "share"),
        ]
        if self.words:
            columns = [Column("word"), Column("start", "number", digits=2), Column("end", "number", digits=2)]
            rows_ = [[word.strip(), start, end] for word, start, end in self.words]
            figures.append(Table("When each word is said, in seconds", columns, rows_))
        return figures


def _sums(values: np.ndarray, edges: np.ndarray, axis: int) -> np.ndarray:
    """Sums from each edge to the next."""
    return np.add.reduceat(values, edges[:-1], axis=axis)


@view(
    "glassformer look speech whisper-tiny-en hello.wav",
    "glassformer look speech whisper-tiny-en hello.wav --layer 2 --head 0 --html hello.html",
)
def speech(
    model: Any,
    tokenizer: Tokenizer,
    source_processor: Any,
    sound: Annotated[str, Option("A sound file of at most one window (30 s of a Whisper).")],
    *,
    layer: Annotated[int | None, Option("The layer, from 0; default: the heads that follow the sound.", ge=0)] = None,
    head: Annotated[int | None, Option("The head of the layer, from 0.", ge=0)] = None,
    beam: Annotated[int, Option("Beam width: 1 always takes the most likely token.", ge=1, le=100)] = 1,
) -> SpeechView:
    """A spectrogram, and below it over the same time where each token that the model writes listens.

    Raises:
        UsageError: the model transcribes nothing, or there is no such layer or head.
        DataError: the sound cannot be read.
    """
    if (layer is None) != (head is None):
        raise UsageError("layer and head belong together; give both, or neither")
    if source_processor is None and model.reads == "frames":
        raise UsageError("a served model opens no files; use glassformer look speech MODEL FILE")
    chosen = None if layer is None or head is None else [(layer, head)]
    found = speech_attention(model, tokenizer, source_processor, sound, beam=beam, heads=chosen)
    words = [(word.word, word.start, word.end) for word in found.words]
    return SpeechView(found.tokens, found.weights_TS, found.frames_MF, found.heads, found.step, words)
