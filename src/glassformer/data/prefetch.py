"""Prepare batches in a background thread while the device computes.

    thread   next(batches) ──► pin ──► │ 2 ready │ ──► next(prefetched): copy to the device, without waiting

On a CPU, a step's windows take a few microseconds and training uses every core, so `prefetched` returns the batches
themselves (figures in docs/decisions.md). On a GPU it hides their preparation and the copy to the device.
"""

from __future__ import annotations

import copy
import queue
import threading
import weakref
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

    `state_dict` is the position after the last batch *received*, not prepared, so that a run resumes
    exactly. The thread starts with the first batch, and ends with `close` or with the object. An error in it is raised
    by the `next` that would have given the batch, and by all later ones until a state is loaded.
    """

    def __init__(self, batches: Stream, device: str):
        self.batches, self.device = batches, torch.device(device)
        self._position = copy.deepcopy(batches.state_dict())
        self._work: _Work | None = None
        self._ended: weakref.finalize[Any, Any] | None = None
        self._error: BaseException | None = None

    def __iter__(self) -> Prefetched:
        return self

    def __next__(self) -> Batch:
        """The next batch, on the device. Its copy may still be in flight; later work on the device waits for it."""
        if self._error is not None:
            raise self._error
        if self._work is None:
            self._work = _Work(self.batches, pin=self.device.type == "cuda")
            self._ended = weakref.finalize(self, self._work.stop)  # also at exit; the thread does not know us
        batch, position = self._work.take()
        if isinstance(batch, BaseException):
            self._error = batch
            raise batch
        on_device = tuple(ids.to(self.device, non_blocking=True) for ids in batch)
        self._position = position
        return on_device

    next = __next__

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch received."""
        return copy.deepcopy(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; what the thread made beyond that is dropped."""
        self._position, self._error = copy.deepcopy(state), None
        self.close()

    def close(self) -> None:
        """End the thread and rewind the batches to the last one received; a later `next` continues there."""
        if self._work is not None and self._ended is not None:
            self._ended()  # at most once
            self._work = None
        self.batches.load_state_dict(copy.deepcopy(self._position))


class _Work:
    """The thread and what it shares with the one who asks."""

    def __init__(self, batches: Stream, *, pin: bool):
        self.batches, self.pin, self.stopped = batches, pin, False
        self.free = threading.Semaphore(DEPTH)  # batches that may still be made
        self.ready: queue.SimpleQueue[tuple[Any, dict[str, Any]]] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self.thread.start()

    def take(self) -> tuple[Any, dict[str, Any]]:
        """The next (batch or error, position after it)."""
        taken = self.ready.get()
        self.free.release()
        return taken

    def stop(self) -> None:
        """End the thread after what it is doing, and wait: one that is in torch when the interpreter goes away takes
        the process with it ("terminate called without an active exception")."""
        self.stopped = True
        self.free.release()
        if threading.current_thread() is not self.thread:  # the last reference may fall while the thread holds it
            self.thread.join()

    def _run(self) -> None:
        while True:
            self.free.acquire()
            if self.stopped:
                return
            try:
                batch = tuple(ids.pin_memory() if self.pin else ids for ids in next(self.batches))
                self.ready.put((batch, copy.deepcopy(self.batches.state_dict())))
            except BaseException as error:
                self.ready.put((error, {}))
                return
