"""The places of a corpus where each neuron of a feed-forward is most active, and sums over all tokens, in memory that
does not grow with the corpus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.generation.encoders import around
from glassformer.generation.eval_mode import evaluating
from glassformer.processors.tokenizers import Tokenizer
from glassformer.taps import listening

BEFORE, AFTER = 14, 5  # tokens of a context, beside the one that is marked
PADDING = -1
BATCH_TOKENS = 2048
LONGEST_TOKEN = 32  # characters of a text that are encoded for each token that is wanted of it


@dataclass
class Window:
    """A piece of a text."""

    ids: list[int]  # what the model reads, with the tokens that stand around every text
    own: tuple[int, int]  # where the text in it begins and ends
    text: int  # which text
    start: int  # which of its tokens is the first here


def windows(stack: Any, tokenizer: Tokenizer, texts: Iterable[str], length: int, max_tokens: int) -> Iterator[Window]:
    """The texts in pieces of at most `length` tokens, `max_tokens` tokens in all."""
    causal = stack.writes
    start = [tokenizer.starts_with] if causal and tokenizer.starts_with is not None else []
    extra = len(start) if causal else len(around(tokenizer, [], stack))
    size, left = max(length - extra, 1), max_tokens
    for number, text in enumerate(texts):
        ids = tokenizer.encode_to_array(text[: LONGEST_TOKEN * left])
        if len(ids) <= left and len(text) > LONGEST_TOKEN * left:  # the beginning was not enough
            ids = tokenizer.encode_to_array(text)
        for first in range(0, len(ids), size):
            piece = ids[first : first + min(size, left)].tolist()
            begin = len(start) if causal else extra // 2
            read = start + piece if causal else around(tokenizer, piece, stack)
            yield Window(read, (begin, begin + len(piece)), number, first)
            left -= len(piece)
            if left <= 0:
                return


class TopPlaces:
    """The k largest activations of each of F neurons: `values` (k, F), largest first, and `places` (k, F, 2 + context):
    the number of the text, of the token in it, and the ids around it."""

    def __init__(self, k: int):
        self.k = k
        self.values = self.places = torch.empty(0)

    def add(self, x_NF: Tensor, places_NW: Tensor) -> None:
        found = x_NF.topk(min(self.k, len(x_NF)), dim=0)
        values_KF, places_KFW = found.values, places_NW[found.indices]
        if len(self.values):
            both_KF, both_KFW = torch.cat((self.values, values_KF)), torch.cat((self.places, places_KFW))
            found = both_KF.topk(min(self.k, len(both_KF)), dim=0)
            indices_KFW = found.indices.unsqueeze(-1).expand(-1, -1, both_KFW.shape[-1])
            values_KF, places_KFW = found.values, both_KFW.gather(0, indices_KFW)
        self.values, self.places = values_KF, places_KFW


class ActivationStatistics:
    """What is kept of F neurons over n tokens."""

    def __init__(self, top: int, threshold: float | None, signed: bool):
        """threshold: an active neuron is above it; None: the root mean square of the first window. signed: a neuron
        below minus the threshold is active, too."""
        self.n = self.n_texts = 0
        self.threshold, self.signed = threshold, signed
        self.powers: Any = 0  # (4, F) sums of the activations, their squares, cubes and fourth powers, fp64
        self.active: Any = 0  # (F,) on how many tokens
        self.least: Any = torch.inf  # (F,)
        self.highest, self.lowest = TopPlaces(top), TopPlaces(top)

    def add(self, h_NF: Tensor, places_NW: Tensor) -> None:
        """The activations of N tokens."""
        if self.threshold is None:
            self.threshold = float(h_NF.double().square().mean().sqrt())
        x_NF = h_NF.double()
        square_NF = x_NF.square()
        powers = (x_NF, square_NF, square_NF * x_NF, square_NF.square())
        self.powers = self.powers + torch.stack([power.sum(dim=0) for power in powers])
        self.active = self.active + ((h_NF.abs() if self.signed else h_NF) > self.threshold).sum(dim=0)
        self.least = h_NF.amin(dim=0).clamp_max(self.least)
        self.n += len(h_NF)
        self.n_texts = int(places_NW[-1, 0]) + 1
        self.highest.add(h_NF, places_NW)
        self.lowest.add(-h_NF, places_NW)

    @property
    def mean(self) -> Tensor:
        """(F,)"""
        return self.powers[0] / self.n

    @property
    def std(self) -> Tensor:
        """(F,) divided by n."""
        return (self.powers[1] / self.n - self.mean**2).clamp_min(0.0).sqrt()

    @property
    def kurtosis(self) -> Tensor:
        """(F,) the fourth moment over the squared second, less 3; 0 for a neuron that never changes."""
        m1, m2, m3, m4 = self.powers / self.n
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        flat = variance <= 1e-12 * m2
        return torch.where(flat, 0.0, fourth / torch.where(flat, 1.0, variance) ** 2 - 3)


def read_corpus(
    stack: Any, pieces: Iterable[Window], tap: str, statistics: ActivationStatistics, skip: int
) -> ActivationStatistics:
    """Run the windows through the model and add what passes a tap; the first `skip` tokens of a window are left out."""
    for batch in _batches(pieces):
        for window, hidden_TF in zip(batch, _hidden(stack, batch, tap), strict=True):
            begin, end = window.own
            if begin + skip < end:
                statistics.add(hidden_TF[begin + skip : end], _places(window, skip))
    return statistics


def _batches(pieces: Iterable[Window]) -> Iterator[list[Window]]:
    batch: list[Window] = []
    for window in pieces:
        batch.append(window)
        if len(batch) * max(len(w.ids) for w in batch) >= BATCH_TOKENS:
            yield batch
            batch = []
    if batch:
        yield batch


class _Enough(Exception):
    """The listener has what it wants."""


def _hidden(stack: Any, batch: list[Window], tap: str) -> list[Tensor]:
    """(T, F) of each window. Padding stands behind, where a causal model does not see it; others are given lengths."""
    lengths_B = torch.tensor([len(window.ids) for window in batch])
    ids_BT = pad_sequence([torch.tensor(window.ids) for window in batch], batch_first=True)
    device = next(stack.parameters()).device
    seen: list[Tensor] = []

    def keep(name: str, x: Tensor) -> None:
        seen.append(x.detach().float().cpu())
        raise _Enough  # later blocks are not needed

    with evaluating(stack), listening(stack, tap, keep), contextlib.suppress(_Enough):
        if stack.writes:
            stack.hidden(ids_BT.to(device))
        else:
            stack(ids_BT.to(device), lengths_B.to(device))
    return [seen[0][row, :length] for row, length in enumerate(lengths_B.tolist())]


def _places(window: Window, skip: int) -> Tensor:
    """(N, 2 + context): where each counted token stands, and the ids around it."""
    begin, end = window.own
    own = torch.tensor(window.ids[begin:end])
    padded = torch.cat((own.new_full((BEFORE,), PADDING), own, own.new_full((AFTER,), PADDING)))
    around_NW = padded.unfold(0, BEFORE + 1 + AFTER, 1)[skip:]
    place_N = torch.arange(window.start + skip, window.start + end - begin)
    return torch.cat((torch.stack((torch.full_like(place_N, window.text), place_N), dim=1), around_NW), dim=1)
