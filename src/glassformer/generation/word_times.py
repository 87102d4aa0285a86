"""When each word of a transcript is said: a path through cross-attention, from the first frame to the last.

    frames        0 1 2 3 4 5 6 7 8 ...       dynamic time warping finds the cheapest path that goes on by a token, a
     the          x x                         frame or both; where it comes to a word's first token, the word begins
     number           x x x x
     is                       x x

Radford et al. 2022, https://arxiv.org/abs/2212.04356, and OpenAI's timing.py: the decoder reads the text again, some of
its heads follow the sound; their weights are normalised over the tokens and smoothed over time.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.generation.eval_mode import evaluating
from glassformer.generation.speech_tokens import SpeechTokens
from glassformer.layers import Memory
from glassformer.models import settings_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.taps import listening, named_taps

SMOOTHED = 7  # vectors of the median filter, as there
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")  # languages without spaces between words
BEFORE, AFTER = (
    "\"'“¿([{-",
    "\"'.。,，!！?？:：”)]}、",
)  # marks of the next word, of the last
SENTENCE_END = ".。!！?？"
LONGEST = 0.7  # seconds: the largest median duration of a word, twice which ends one at the end of a sentence


@dataclass(frozen=True)
class Word:
    """A word with its space and punctuation. start, end: in seconds. probability: the mean of its tokens."""

    word: str
    start: float
    end: float
    probability: float


def alignment_heads(model: Any, n_layers: int, n_heads: int) -> list[tuple[int, int]]:
    """(layer, head) of those that follow the sound: OpenAI's choice in the model's folder (`alignment_heads`), else all
    of the later half of the layers."""
    declared = settings_of(model).declared.get("alignment_heads")
    if declared:
        return [(int(layer), int(head)) for layer, head in declared]
    return [(layer, head) for layer in range(n_layers // 2, n_layers) for head in range(n_heads)]


def cross_patterns(model: Any, vectors_1SC: Tensor, ids: Sequence[int]) -> Tensor:
    """The cross-attention of a decoder that reads `ids`, over an encoder's vectors: (layers, H, T, S) fp32."""
    return _read(model, vectors_1SC, ids)[0]


def _read(model: Any, vectors_1SC: Tensor, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(cross-attention (layers, H, T, S), logits (T, V)), fp32 on the CPU."""
    names = [name for name in named_taps(model) if name.endswith("cross_attention.pattern")]
    seen: dict[str, Tensor] = {}

    def record(name: str, pattern: Tensor) -> None:
        seen[name] = pattern[0].float().cpu()

    target_1T = torch.tensor([list(ids)], device=vectors_1SC.device)
    with evaluating(model), listening(model, names, record):
        logits_1TV = model.decode(target_1T, Memory(vectors_1SC))
    return torch.stack([seen[name] for name in names]), logits_1TV[0].float().cpu()


def word_times(
    model: Any,
    tokenizer: Tokenizer,
    tokens: SpeechTokens,
    vectors_1SC: Tensor,
    n_vectors: int,
    texts: Sequence[Sequence[int]],
    *,
    step: float,
    language: str | None = None,
    task: str = "transcribe",
) -> list[tuple[Word, ...]]:
    """The words of each text of a window, in order; times count from the window's beginning.

    Args:
        vectors: of the encoder, of which `n_vectors` are of sound and not of the silence behind. texts: the ids of each
            segment, without time stamps. step: seconds of a vector.
    """
    ids = [i for text in texts for i in text]
    if not ids or not n_vectors:
        return [() for _ in texts]
    prompt = tokens.prompt(times=False, language=language, task=task)
    patterns_LHTS, logits_TV = _read(model, vectors_1SC, [*prompt, *ids, tokens.end])
    chosen = alignment_heads(model, *patterns_LHTS.shape[:2])
    weights_NTS = torch.stack([patterns_LHTS[a, b, :, :n_vectors] for a, b in chosen])
    first = len(prompt) - 1  # the row that predicts the first token of the text
    begins = _first_vectors(weights_NTS, first)  # of each token of the text, and of the end
    rows = logits_TV[first : first + len(ids), : tokens.end].log_softmax(dim=-1)
    probability = rows.gather(1, torch.tensor(ids)[:, None])[:, 0].exp().tolist()
    whole: list[tuple[Word, ...]] = []
    at = 0
    for text in texts:
        found = []
        for piece in _words(tokenizer, text, spaced=language not in UNSPACED):
            stop = at + len(piece)
            mean = sum(probability[at:stop]) / len(piece)
            found.append(Word(tokenizer.decode(piece), begins[at] * step, begins[stop] * step, mean))
            at = stop
        whole.append(tuple(_with_punctuation(found)))
    return _shortened(whole)


def _first_vectors(weights_NTS: Tensor, first: int) -> list[int]:
    """The vector at which the path comes to each row from `first` on but the last, which predicts nothing."""
    weights_NTS = weights_NTS / weights_NTS.sum(dim=-1, keepdim=True).clamp_min(1e-9)
    deviation, mean = torch.std_mean(weights_NTS, dim=1, keepdim=True, unbiased=False)
    normed_NTS = ((weights_NTS - mean) / deviation.clamp_min(1e-9)).numpy()
    from scipy.ndimage import median_filter

    smooth_TS = median_filter(normed_NTS, size=(1, 1, SMOOTHED), mode="reflect").mean(axis=0)[first:-1]
    rows, columns = cheapest_path(-smooth_TS)
    return [int(columns[np.argmax(rows == row)]) for row in range(len(smooth_TS))]


def cheapest_path(cost_TS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The path from the first to the last cell of a table, one row, one column or both at a time, whose cells cost
    least together: its rows and its columns. Dynamic time warping (Sakoe and Chiba 1978,
    https://doi.org/10.1109/TASSP.1978.1163055), a diagonal of the table at a time.
    """
    T, S = cost_TS.shape
    total = np.full((T + 1, S + 1), np.inf)
    total[0, 0] = 0
    came_from = np.zeros((T + 1, S + 1), dtype=np.int8)  # 0: both, 1: the row before, 2: the column before
    for diagonal in range(2, T + S + 1):
        i = np.arange(max(1, diagonal - S), min(T, diagonal - 1) + 1)
        j = diagonal - i
        both, row, column = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        kind = np.where((both < row) & (both < column), 0, np.where((row < both) & (row < column), 1, 2))
        came_from[i, j] = kind
        total[i, j] = cost_TS[i - 1, j - 1] + np.choose(kind, (both, row, column))
    came_from[1, :], came_from[:, 1] = 2, 1  # along both edges
    path = [(T, S)]
    while (place := path[-1]) != (1, 1):
        step = int(came_from[place])
        path.append((place[0] - (step != 2), place[1] - (step != 1)))
    places_P2: np.ndarray = np.array(path[::-1]) - 1
    return places_P2[:, 0], places_P2[:, 1]


def _words(tokenizer: Tokenizer, ids: Sequence[int], *, spaced: bool) -> list[list[int]]:
    """The ids of each word: those that give whole characters together, and begin no word of their own."""
    pieces: list[list[int]] = []
    piece: list[int] = []
    for i in ids:
        piece.append(i)
        if "\N{REPLACEMENT CHARACTER}" not in tokenizer.decode(piece):
            pieces.append(piece)
            piece = []
    pieces += [piece] if piece else []
    words: list[list[int]] = []
    for piece in pieces:
        text = tokenizer.decode(piece)
        if not words or not spaced or text.startswith(" ") or text.strip() in string.punctuation:
            words.append(list(piece))
        else:
            words[-1] += piece
    return words


def _with_punctuation(words: Sequence[Word]) -> list[Word]:
    """Marks joined to the word that they belong to, whose times stay."""
    after: list[Word] = []
    for word in words:
        if after and word.word in AFTER and not after[-1].word.endswith(" "):
            after[-1] = replace(after[-1], word=after[-1].word + word.word)
        else:
            after.append(word)
    found: list[Word] = []
    for word in reversed(after):
        if found and word.word.startswith(" ") and word.word.strip() and word.word.strip() in BEFORE:
            found[-1] = replace(found[-1], word=word.word + found[-1].word)
        else:
            found.append(word)
    return found[::-1]


def _shortened(texts: list[tuple[Word, ...]]) -> list[tuple[Word, ...]]:
    """Words around the end of a sentence, which take the pause with them, are at most twice the median long."""
    durations = [word.end - word.start for text in texts for word in text if word.end > word.start]
    longest = 2 * min(LONGEST, float(np.median(durations))) if durations else 0.0
    found = []
    for text in texts:
        ended = True
        words: list[Word] = []
        for word in text:
            ends = word.word.strip()[-1:] in SENTENCE_END and word.word.strip() != ""
            if word.end - word.start > longest:
                if ends:
                    word = replace(word, end=word.start + longest)
                elif ended and words:
                    word = replace(word, start=word.end - longest)
            words.append(word)
            ended = ends
        found.append(tuple(words))
    return found


WordTimes = Callable[[Sequence[Sequence[int]]], list[tuple[Word, ...]]]
"""The words of the texts of a window."""
