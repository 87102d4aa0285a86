"""A corpus through a model, with one feed-forward listened to: sums and the highest values of each neuron, in memory
that does not grow with the corpus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.generation.encoders import around
from glassformer.inspection.reading import reading
from glassformer.processors.tokenizers import Tokenizer
from glassformer.taps import listening

BEFORE, AFTER = 14, 5  # tokens of a context, beside the one that is marked
NOTHING = -1
BATCH_TOKENS = 2048
LONGEST_TOKEN = 32  # characters of a text that are encoded for each token that is wanted of it


@dataclass
class Window:
    """A piece of a text. ids: what the model reads, with the tokens that stand around every text; own: where the text
    in it begins and ends. text, start: which text, and which of its tokens is the first here."""

    ids: list[int]
    own: tuple[int, int]
    text: int
    start: int


def windows(stack: Any, tokenizer: Tokenizer, texts: Iterable[str], length: int, most: int) -> Iterator[Window]:
    """The texts in pieces of at most `length` tokens, `most` tokens in all."""
    causal = stack.writes
    start = [tokenizer.starts_with] if causal and tokenizer.starts_with is not None else []
    extra = len(start) if causal else len(around(tokenizer, [], stack))
    room, left = max(length - extra, 1), most
    for number, text in enumerate(texts):
        ids = tokenizer.encode_to_array(text[: LONGEST_TOKEN * left])
        if len(ids) <= left and len(text) > LONGEST_TOKEN * left:  # the beginning was not enough
            ids = tokenizer.encode_to_array(text)
        for first in range(0, len(ids), room):
            piece = ids[first : first + min(room, left)].tolist()
            read = start + piece if causal else around(tokenizer, piece, stack)
            begin = len(start) if causal else extra // 2
            yield Window(read, (begin, begin + len(piece)), number, first)
            left -= len(piece)
            if left <= 0:
                return


@dataclass
class Best:
    """values (k, F), the largest first; meta (k, F, 2 + context): the number of the text, of the token in it, and the
    ids around it."""

    values: Tensor
    meta: Tensor

    @classmethod
    def of(cls, x_NF: Tensor, meta_NW: Tensor, k: int) -> Best:
        found = x_NF.topk(min(k, len(x_NF)), dim=0)
        return cls(found.values, meta_NW[found.indices])

    def and_of(self, other: Best, k: int) -> Best:
        """The largest of both."""
        values_KF, meta_KFW = torch.cat((self.values, other.values)), torch.cat((self.meta, other.meta))
        found = values_KF.topk(min(k, len(values_KF)), dim=0)
        places_KFW = found.indices.unsqueeze(-1).expand(-1, -1, meta_KFW.shape[-1])
        return Best(found.values, meta_KFW.gather(0, places_KFW))


@dataclass
class Sums:
    """What is kept of F neurons over n tokens.

    total, squares, cubes, fourths: of the activations, (F,) in fp64. active: on how many tokens. least: (F,). highest,
    lowest: where they are highest and lowest.
    """

    n: int
    total: Tensor
    squares: Tensor
    cubes: Tensor
    fourths: Tensor
    active: Tensor
    least: Tensor
    highest: Best
    lowest: Best
    threshold: float
    n_texts: int


def listen(
    stack: Any, found: Iterable[Window], name: str, *, top: int, skip: int, threshold: float | None, both: bool
) -> Sums | None:
    """Run the windows through the model and keep what `Sums` keeps of the tap `name`; None: there was no token.

    skip: tokens at the beginning of a window that are not counted. threshold: what an activation must be above to count
    as active; None: the root mean square of the first window's. both: one below minus the threshold counts as well.
    """
    kept: Sums | None = None
    for batch in _batches(found):
        for window, hidden_TF in zip(batch, _hidden(stack, batch, name), strict=True):
            begin, end = window.own
            h_NF = hidden_TF[begin + skip : end]
            if not len(h_NF):
                continue
            if threshold is None:
                threshold = float(h_NF.double().square().mean().sqrt())
            kept = _add(kept, h_NF, _meta(window, skip), top, threshold, both)
    return kept


def _batches(found: Iterable[Window]) -> Iterator[list[Window]]:
    batch: list[Window] = []
    for window in found:
        batch.append(window)
        if len(batch) * max(len(w.ids) for w in batch) >= BATCH_TOKENS:
            yield batch
            batch = []
    if batch:
        yield batch


class _Enough(Exception):
    """The listener has what it wants."""


def _hidden(stack: Any, batch: list[Window], name: str) -> list[Tensor]:
    """(T, F) of each window; padding stands behind, where a causal model does not see it and another is told."""
    lengths_B = torch.tensor([len(window.ids) for window in batch])
    ids_BT = torch.zeros(len(batch), int(lengths_B.max()), dtype=torch.int64)
    for row, window in enumerate(batch):
        ids_BT[row, : len(window.ids)] = torch.tensor(window.ids)
    device = next(stack.parameters()).device
    seen: list[Tensor] = []

    def keep(name: str, x: Tensor) -> None:
        seen.append(x.detach().float().cpu())
        raise _Enough  # what the later blocks make of it nobody asks

    with reading(stack), listening(stack, name, keep), contextlib.suppress(_Enough):
        if not stack.writes:
            stack(ids_BT.to(device), lengths_B.to(device))
        else:
            stack.hidden(ids_BT.to(device))  # no logits: nobody asks for them
    return [seen[0][row, :length] for row, length in enumerate(lengths_B.tolist())]


def _meta(window: Window, skip: int) -> Tensor:
    """(N, 2 + context): where each counted token stands, and the ids around it."""
    begin, end = window.own
    own = torch.tensor(window.ids[begin:end])
    padded = torch.cat((own.new_full((BEFORE,), NOTHING), own, own.new_full((AFTER,), NOTHING)))
    around_NW = padded.unfold(0, BEFORE + 1 + AFTER, 1)[skip:]
    place_N = torch.arange(window.start + skip, window.start + end - begin)
    return torch.cat((torch.stack((torch.full_like(place_N, window.text), place_N), dim=1), around_NW), dim=1)


def _add(kept: Sums | None, h_NF: Tensor, meta_NW: Tensor, top: int, threshold: float, both: bool) -> Sums:
    x_NF = h_NF.double()
    square_NF = x_NF.square()
    active_NF = (h_NF.abs() if both else h_NF) > threshold
    made = Sums(
        n=len(h_NF),
        total=x_NF.sum(dim=0),
        squares=square_NF.sum(dim=0),
        cubes=(square_NF * x_NF).sum(dim=0),
        fourths=square_NF.square().sum(dim=0),
        active=active_NF.sum(dim=0),
        least=h_NF.amin(dim=0),
        highest=Best.of(h_NF, meta_NW, top),
        lowest=Best.of(-h_NF, meta_NW, top),
        threshold=threshold,
        n_texts=int(meta_NW[-1, 0]) + 1,
    )
    if kept is None:
        return made
    for field in ("n", "total", "squares", "cubes", "fourths", "active"):
        setattr(made, field, getattr(kept, field) + getattr(made, field))
    made.least = torch.minimum(kept.least, made.least)
    made.highest, made.lowest = kept.highest.and_of(made.highest, top), kept.lowest.and_of(made.lowest, top)
    return made


__all__ = ["BEFORE", "NOTHING", "Best", "Sums", "Window", "listen", "windows"]
