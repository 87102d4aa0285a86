"""Prepare batches in a background thread while the device computes.

    thread   next(batches) ──► pin ──► │ 2 ready │ ──► next(prefetched): copy to the device, without waiting

On a CPU, a step's windows take a few microseconds and training uses every core, so `prefetched` returns the batches
themselves (figures in docs/decisions.md). On a GPU it hides their preparation and the copy to the device.
"""

from __future__ import annotations

import copy
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch

Batch = tuple[torch.Tensor, ...]
DEPTH = 2  # batches prepared ahead


class Stream(Protocol):
    """An iterator of batches whose position can be saved."""

    def __next__(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def prefetched(batches: Stream, device: str) -> Stream:
    """The batches themselves for a CPU; for a GPU, `Prefetched` ones."""
    return Prefetched(batches, device) if device.startswith("cuda") else batches


class Prefetched:
    """The same batches in the same order, on `device`, made ahead by one background thread.

    `state_dict` is the position after the last batch *received*, not prepared, so that a run resumes exactly. The
    thread starts with the first batch, and ends with `close`, with the object or with the process. An error in it is
    raised by the `next` that would have given the batch, and by all later ones until a state is loaded.
    """

    def __init__(self, batches: Stream, device: str):
        self.batches, self.device = batches, torch.device(device)
        self._position = copy.deepcopy(batches.state_dict())
        self._thread: ThreadPoolExecutor | None = None
        self._ready: deque[Future[tuple[Batch, dict[str, Any]]]] = deque()

    def __iter__(self) -> Prefetched:
        return self

    def __next__(self) -> Batch:
        """The next batch, on the device. Its copy may still be in flight; later work on the device waits for it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "prefetch")
        while len(self._ready) <= DEPTH:
            self._ready.append(self._thread.submit(_made, self.batches, self.device.type == "cuda"))
        batch, position = self._ready[0].result()  # a failed one stays, and is raised again
        self._ready.popleft()
        on_device = tuple(ids.to(self.device, non_blocking=True) for ids in batch)
        self._position = position
        return on_device

    next = __next__

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch received."""
        return copy.deepcopy(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; what the thread made beyond that is dropped."""
        self._position = copy.deepcopy(state)
        self.close()

    def close(self) -> None:
        """End the thread and rewind the batches to the last one received; a later `next` continues there."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread = None
        self._ready.clear()
        self.batches.load_state_dict(self.state_dict())


def _made(batches: Stream, pin: bool) -> tuple[Batch, dict[str, Any]]:
    """The next batch, in pinned memory for a GPU, and the position after it."""
    batch = tuple(ids.pin_memory() if pin else ids for ids in next(batches))
    return batch, copy.deepcopy(batches.state_dict())
