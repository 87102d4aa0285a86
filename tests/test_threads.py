"""How many threads compute, and that they give way to other programs without changing a bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from toys import toy_ids, toy_model

from glassformer import threads

needs_libgomp = pytest.mark.skipif(threads._libgomp() is None, reason="needs a PyTorch with libgomp")


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """No variables of the user's, no watcher, and the number of threads of before."""
    for name in (*threads.WAITING, "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_watcher", None)
    monkeypatch.setattr(threads._Watcher, "start", lambda self: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_one_thread_a_processor_unless_there_is_too_little_to_share(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 5)
    asked = [None, threads.WORTH_SHARING - 1, threads.WORTH_SHARING]
    assert [threads.set_threads(at_once) for at_once in asked] == [5, 1, 5]
    assert "too few to share" in threads.why_threads(18_432) and "18,432" in threads.why_threads(18_432)
    assert "one a processor" in threads.why_threads(threads.WORTH_SHARING)
    sizes = [threads.SMALL_MODEL - 1, threads.SMALL_MODEL]
    assert [threads.set_threads(parameters=size) for size in sizes] == [1, 5]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert threads.set_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # PyTorch has read it itself
    assert threads.set_threads(1) == 2 and threads.why_threads(1) is None


def test_a_quota_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    free = threads.processors()
    for text, expected in (("max 100000", free), ("50000 100000", 1), ("9900000 100000", free), ("no quota", free)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert threads.processors() == expected, text


def test_it_gives_way_at_once_and_comes_back_when_it_has_been_calm(monkeypatch):
    seen = []
    watcher = threads._Watcher(None)
    monkeypatch.setattr(threads._Watcher, "computing", 2)
    watcher.idle_threads = type(
        "IdleThreads", (), {"start": lambda s, n: seen.append(n), "stop": lambda s: seen.append(0)}
    )()
    monkeypatch.setattr(threads, "_watcher", watcher)
    torch.set_num_threads(2)
    kernels = []
    for others in (0.0, 0.1, 0.45, 0.6, 0.4, 0.1, 0.4, 0.1, 0.1, 0.45):
        watcher.decide(others)
        kernels.append(threads.kernel_threads())
    assert seen == [0, 0, 0, 2, 2, 2, 2, 2, 0, 0]
    assert kernels == [2, 2, 2, 1, 1, 1, 1, 1, 2, 2]
    monkeypatch.setattr(threads._Watcher, "computing", 1)  # a single thread waits for none
    watcher.decide(2.0)
    assert seen[-1] == 0


@needs_libgomp
@pytest.mark.parametrize("name", threads.WAITING)
def test_what_the_user_has_set_wins(name, monkeypatch):
    torch.set_num_threads(2)
    threads.watch()
    assert threads._watcher.idle_threads is not None and "sleep while other programs run" in threads.how_threads_wait()
    monkeypatch.setattr(threads, "_watcher", None)
    monkeypatch.setenv(name, "7")
    threads.watch()
    assert threads._watcher.idle_threads is None and f"{name}=7" in threads.how_threads_wait()
    monkeypatch.setattr(threads, "_watcher", None)
    torch.set_num_threads(1)  # one thread needs no watcher
    threads.watch()
    assert threads._watcher is None and threads.kernel_threads() == 1


def test_the_time_that_processors_have_worked(tmp_path):
    """Of one processor and of all, and it grows while this process works."""
    cpus = os.sched_getaffinity(0)
    before, own = threads.busy_seconds(cpus), sum(os.times()[:2])
    while sum(os.times()[:2]) < own + 0.3:
        pass
    assert threads.busy_seconds(cpus) - before > 0.2
    assert 0 < threads.busy_seconds({min(cpus)}) <= threads.busy_seconds(cpus)
    assert threads.busy_seconds(set()) == 0


@needs_libgomp
def test_not_a_bit_changes_while_others_are_let_in():
    torch.set_num_threads(2)
    idle = threads._IdleThreads(threads._libgomp())
    bits = []
    for change in (lambda: None, lambda: idle.start(2), idle.stop):
        change()
        model = toy_model("modern", n_embd=96, head_width=16, n_hidden=131).train()
        model(toy_ids(37, 13)).logsumexp(-1).sum().backward()
        bits.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for other in bits[1:] for a, b in zip(bits[0], other, strict=True))


SECONDS_OF_WORK = """
import time, torch
from glassformer import threads
torch.set_num_threads(2)
a = torch.ones(300_000)
idle = threads._IdleThreads(threads._libgomp())
def worked():
    a.add_(1)
    before = time.process_time()
    for _ in range(60):
        a.add_(1)  # shared by two threads; then the second one waits for the next operation
        time.sleep(0.004)
    return time.process_time() - before
spinning = worked()
idle.start(2)
sleeping = worked()
idle.stop()
time.sleep(0.1)
print(spinning, sleeping, worked())
"""


@needs_libgomp
@pytest.mark.skipif(threads.processors() < 2, reason="needs two processors")
def test_threads_that_wait_sleep_on_a_busy_machine_and_spin_on_a_free_one():
    """Counted in processor time, which a busy machine does not change."""
    clean = {k: v for k, v in os.environ.items() if k not in (*threads.WAITING, "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", SECONDS_OF_WORK], capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    spinning, sleeping, after = map(float, done.stdout.split())
    assert spinning > 2 * sleeping < after, done.stdout
