"""What a text-to-speech model said, as pictures: spectrograms, and where each step looked in the text."""

from __future__ import annotations

import numpy as np

from glassformer.figures.primitives import Figure, HeatMap
from glassformer.generation.say import Said
from glassformer.processors.speech import SpeechProcessor, plain

SHOWN = 64  # steps of a picture
MOST_FRAMES = 128  # of a spectrogram


def said_figures(
    processor: SpeechProcessor, text: str, said: Said, reference_TFM: np.ndarray | None = None
) -> list[Figure]:
    """The spectrogram of a sentence, that of its recording where there is one, and where each step looked."""
    seconds = len(said.levels_TFM) * processor.seconds_per_step
    end = "" if said.ended else ", cut: it did not end by itself"
    title = f"{text} ({seconds:.2f} seconds{end})"
    figures: list[Figure] = [_spectrogram(processor, title, said.sound_TFM)]
    if reference_TFM is not None:
        figures.append(_spectrogram(processor, "The recording", reference_TFM))
    step = -(-len(said.pattern_TS) // SHOWN)
    times = [f"{t * processor.seconds_per_step:.2f}" for t in range(0, len(said.pattern_TS), step)]
    characters = [f"<{processor.voices[0]}>" if len(processor.voices) == 1 else "<voice>", *plain(text)]
    figures.append(
        HeatMap("Where each step looks", said.pattern_TS[::step].T, characters, times, "characters", "seconds", "share")
    )
    return figures


def _spectrogram(processor: SpeechProcessor, title: str, levels_TFM: np.ndarray) -> HeatMap:
    """Every other band, the highest at the top; a column a frame."""
    frames_FM = levels_TFM.reshape(-1, processor.n_mels)
    every = -(-len(frames_FM) // MOST_FRAMES)
    bands_MF = frames_FM[::every].T
    bands = bands_MF[: len(bands_MF) // 2 * 2].reshape(-1, 2, bands_MF.shape[1]).mean(axis=1)[::-1]
    rows = [f"{2 * number + 1}" for number in range(len(bands))][::-1]
    columns = [f"{f * processor.hop / processor.rate:.2f}" for f in range(0, len(frames_FM), every)]
    return HeatMap(title, bands / (processor.n_levels - 1), rows, columns, "mel band", "seconds", highest=1.0)
