"""Prefetched batches: the same ones in the same order, a position that tells what was received, a thread that ends."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from patience import PATIENCE

from glassformer.data.prefetch import DEPTH, Prefetched, prefetched


class Counting:
    """Batch n holds the number n; `made` tells how many were made. It can be slow, and can fail at one batch."""

    def __init__(self, *, fails_at: int | None = None, seconds: float = 0.0):
        self.step, self.made, self.fails_at, self.seconds = 0, 0, fails_at, seconds

    def __next__(self):
        time.sleep(self.seconds)
        if self.step == self.fails_at:
            raise OSError("the disk is gone")
        self.step += 1
        self.made += 1
        return torch.tensor([self.step]), torch.tensor([self.step + 1])

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


class Sorting(Counting):
    """From batch 4 on a batch takes torch some tenths of a second, in which Python is free to do something else."""

    def __next__(self):
        if self.step >= 3:
            torch.rand(3_000_000).sort()
        return super().__next__()


def take(batches, n: int) -> list[int]:
    return [int(next(batches)[0]) for _ in range(n)]


def threads() -> int:
    return sum(thread.name.startswith("prefetch") and thread.is_alive() for thread in threading.enumerate())


def wait_until(condition) -> None:
    """Up to `PATIENCE`; far longer than it can take."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: threads() == 0)


def test_it_works_ahead_but_no_further_than_its_depth():
    source = Counting()
    batches = Prefetched(source, "cpu")
    assert threads() == 0 and source.made == 0  # nothing before it is asked
    for n in range(1, 4):
        take(batches, 1)
        wait_until(lambda n=n: source.made == n + DEPTH)
    time.sleep(0.02)
    assert source.made == 3 + DEPTH


def test_the_position_is_that_of_what_was_received():
    source = Counting()
    batches = Prefetched(source, "cpu")
    assert batches.state_dict() == {"step": 0}
    take(batches, 2)
    wait_until(lambda: source.made == 2 + DEPTH)  # the thread is ahead when the third is taken
    take(batches, 1)
    state = json.loads(json.dumps(batches.state_dict()))
    assert state == {"step": 3}
    resumed = Prefetched(Counting(), "cpu")
    resumed.load_state_dict(state)
    assert take(resumed, 4) == take(batches, 4) == [4, 5, 6, 7]


@pytest.mark.parametrize("back_to", [0, 2, 9])
def test_a_state_loaded_in_the_middle_drops_what_was_made_ahead(back_to):
    batches = Prefetched(Counting(), "cpu")
    take(batches, 5)
    batches.load_state_dict({"step": back_to})
    assert batches.state_dict() == {"step": back_to}
    assert take(batches, 2) == [back_to + 1, back_to + 2]


def test_an_error_in_the_thread_is_raised_where_its_batch_would_have_come():
    batches = Prefetched(Counting(fails_at=3), "cpu")
    assert take(batches, 3) == [1, 2, 3]
    for _ in range(2):  # and not a wait for ever, asked again
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)
    assert batches.state_dict() == {"step": 3}
    batches.load_state_dict({"step": 1})
    assert take(batches, 2) == [2, 3]


@pytest.mark.parametrize("source", ["Counting()", "Sorting()"])
def test_a_process_that_does_not_close_still_ends(source):
    """At the end of the main program the thread waits for room, or is inside torch; nobody may wait for the first, and
    the second may not come back to an interpreter that is gone."""
    paths = "import sys; sys.path.append('..')"
    program = f"{paths}; from test_prefetch import *; b = Prefetched({source}, 'cpu'); print(take(b, 2))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parent
    )
    assert done.stdout.strip() == "[1, 2]" and done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_batches_arrive_through_pinned_memory():
    batches = Prefetched(Counting(), "cuda")
    for n in range(1, 20):
        inputs, targets = next(batches)
        assert inputs.is_cuda and (int(inputs), int(targets)) == (n, n + 1)


def test_the_same_batches_in_the_same_order_on_the_device_up_to_their_end():
    """`meta` is a device that every machine has. Only a GPU gets a thread by itself."""

    class Short(Counting):
        def __next__(self):
            if self.step == 50:
                raise StopIteration
            return super().__next__()

    assert [tuple(map(int, batch)) for batch in Prefetched(Short(), "cpu")] == [(n, n + 1) for n in range(1, 51)]
    assert all(ids.is_meta for ids in next(Prefetched(Counting(), "meta")))
    source = Counting()
    assert prefetched(source, "cpu") is source and isinstance(prefetched(source, "cuda:0"), Prefetched)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_closing_waits_for_the_batch_that_is_made_ends_the_thread_and_loses_nothing(seconds):
    source = Counting(seconds=seconds)
    batches = Prefetched(source, "cpu")
    assert take(batches, 3) == [1, 2, 3] and threads() == 1
    for _ in range(2):  # twice is no harm
        batches.close()
        assert threads() == 0 and source.step == 3 and batches.state_dict() == {"step": 3}
    assert take(batches, 2) == [4, 5]
    del batches  # the thread ends with the object
    gc.collect()
    wait_until(lambda: threads() == 0)
