"""The model that is trained answers prompts, through the engine that serves it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassformer.data.batches import IGNORED, philox
from glassformer.data.chats import ChatRow
from glassformer.errors import UsageError
from glassformer.generation import Engine, Request, Sampling
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.base import Batch
from glassformer.tasks.losses import padded

if TYPE_CHECKING:
    from typing_extensions import Self

_PROMPT, _EPOCH = 71, 72  # streams of random numbers
ENGINE_ROWS = 256
"""Samples that are generated together, where the cache holds as many."""


@dataclass(frozen=True)
class RollOut:
    """One answer of the model.

    prompt, ids: tokens of the prompt and of the answer, its end included. text: of the answer, without the end.
    ended: whether it ended by itself, and not at max_new_tokens. log_probs: of `ids`, as they were sampled.
    """

    row: ChatRow
    prompt: list[int]
    ids: list[int]
    text: str
    ended: bool
    log_probs: tuple[float, ...] = ()


def roll_out(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[ChatRow, list[int]]],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> list[RollOut]:
    """`samples` answers to every prompt, those of one prompt side by side; the same for the same seed and weights.

    temperature: 0 takes the most likely tokens. numbers: of the prompts, each of which has its own random numbers; by
    default 0, 1, 2, ...

    Raises:
        UsageError: a prompt leaves no token for an answer.
    """
    engine = Engine(model, tokenizer, max_rows=ENGINE_ROWS)
    ends = None if tokenizer.chat_template is None else frozenset(tokenizer.chat.turn_ends)
    places: dict[int, int] = {}
    for place, (row, ids) in enumerate(prompts):
        free = model.config.block_size - len(ids)
        if free < 1:
            raise UsageError(f"{row.place}: the prompt has {len(ids)} tokens and the model reads {free + len(ids)}")
        request = Request(
            ids=tuple(ids),
            max_new_tokens=min(max_new_tokens, free),
            samples=samples,
            sampling=Sampling(temperature=temperature, seed=_seed(seed, place if numbers is None else numbers[place])),
            end_tokens=ends if row.is_chat else None,
        )
        places[engine.submit(request)] = place
    pieces: dict[tuple[int, int], list[Any]] = {}
    for event in engine.run():
        if event.piece is not None:
            pieces.setdefault((places[event.request], event.piece.sample), []).append(event.piece)
    found = []
    for place, (row, ids) in enumerate(prompts):
        for sample in range(samples):
            parts = pieces[place, sample]
            text = "".join(part.text for part in parts)
            ended = parts[-1].finish_reason != "length"
            log_probs = tuple(math.log(part.sampling_probability) for part in parts)
            found.append(RollOut(row, list(ids), [part.token for part in parts], text, ended, log_probs))
    return found


def _seed(seed: int, place: int) -> int:
    """A seed for the samples of one prompt; sample i has the generator of `seed + i`."""
    return int(philox(seed, _PROMPT, place).integers(2**62))


def sequences(rollouts: Sequence[RollOut]) -> tuple[Tensor, Tensor]:
    """(inputs_BT, targets_BT) of prompts with their answers: the targets are the tokens of the answers."""
    inputs_BT, _ = padded([[*r.prompt, *r.ids[:-1]] for r in rollouts], 0)
    targets_BT, _ = padded([[IGNORED] * (len(r.prompt) - 1) + r.ids for r in rollouts], IGNORED)
    return inputs_BT, targets_BT


def prompts_of(rows: Sequence[Any], n: int, seed: int, iteration: int) -> list[Any]:
    """`n` rows of an iteration, without replacement while they last: the same for the same seed and number."""
    order: list[int] = []
    start = iteration * n
    while len(order) < n:
        epoch, place = divmod(start + len(order), len(rows))
        permutation = philox(seed, _EPOCH, epoch).permutation(len(rows))
        order += permutation[place : place + n - len(order)].tolist()
    return [rows[i] for i in order]


class RollOutBatches:
    """The stream of training batches of a task that rolls out (`RollOutTask`).

    Args:
        task: its `iteration` gives the batches of an iteration, in order: tensors with one row a sequence; its `state`
            is kept with them.
    """

    def __init__(self, task: Any):
        self.task, self.iteration, self.left = task, 0, list[Batch]()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self.left:
            self.left = self.task.iteration(self.iteration)
            self.iteration += 1
        return self.left.pop(0)

    def state_dict(self) -> dict[str, Any]:
        """The number of the next iteration, and the batches that are left of this one, as plain numbers."""
        left = [[{"dtype": str(t.dtype).removeprefix("torch."), "rows": t.tolist()} for t in b] for b in self.left]
        return {"iteration": self.iteration, "left": left, "task": dict(self.task.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.iteration = int(state["iteration"])
        self.task.state = dict(state["task"])
        self.left = [
            tuple(torch.tensor(part["rows"], dtype=getattr(torch, part["dtype"])) for part in batch)
            for batch in state["left"]
        ]
