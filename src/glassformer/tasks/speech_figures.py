"""What a text-to-speech model said, as pictures: spectrograms, and where each step looked in the text."""

from __future__ import annotations

import numpy as np

from glassformer.figures.primitives import Figure, HeatMap
from glassformer.generation.say import Said
from glassformer.processors.speech import SpeechProcessor, plain

SHOWN = 64  # steps of a picture


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
    """Every other band, the highest at the top; a column a step."""
    step = -(-len(levels_TFM) // SHOWN)
    bands_MT = levels_TFM[::step].mean(axis=1).T
    bands = bands_MT[: len(bands_MT) // 2 * 2].reshape(-1, 2, bands_MT.shape[1]).mean(axis=1)[::-1]
    rows = [f"{2 * number + 1}" for number in range(len(bands))][::-1]
    columns = [f"{t * processor.seconds_per_step:.2f}" for t in range(0, len(levels_TFM), step)]
    return HeatMap(title, bands / (processor.n_levels - 1), rows, columns, "mel band", "seconds", highest=1.0)
