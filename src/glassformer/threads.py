"""How many threads compute, and how they wait for each other.

The threads that share an operation meet at its end. The OpenMP of GCC (libgomp, which PyTorch's packages for Linux
bring along) lets a thread that waits look again and again, for up to 20 ms, before it sleeps. On a quiet machine that
is right: waking up costs more than most operations take. Beside any other program it is ruinous: a thread that looks
keeps the processor for which the one that it waits for is queueing, and training becomes 3 to 100 times slower
(`benchmarks/busy_machine.py`).

libgomp reads its settings once, while it is loaded. But at every wait it compares its number of threads with that of
the processors, and sleeps almost at once if it has more (`do_spin` in its `wait.h`). So while other programs use the
processors, `_Watcher` keeps a few more threads, which do nothing: the others sleep while they wait. The work is shared
as before, so all results are the same, to the bit. Nothing of this happens where the user has chosen (`WAITING`), where
one thread computes, or with another OpenMP. Our own kernels meet too often for sleeping; they give the same bits with
any number of threads, and take one for as long (`kernel_threads`).
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from pathlib import Path

import torch

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # where a user chooses
# Numbers in an operation's result below which PyTorch itself takes one thread (at::internal::GRAIN_SIZE). Where all of
# them are smaller, only matrix products would be shared, and one thread is fastest.
WORTH_SHARING = 32_768
SMALL_MODEL = 5_000_000  # parameters: fewer, and one thread generates a sample faster than two
QUOTA = Path("/sys/fs/cgroup/cpu.max")
INTERVAL = 0.25  # seconds between two looks at the machine
# Processors that others use, beyond those that we leave: from half a one on sleeping is faster than spinning.
CROWDED, CALM = 0.5, 0.3
CALM_LOOKS = 2  # before threads may spin again


def processors() -> int:
    """How many processors this process may use: its affinity, and the quota of its container (cgroup 2)."""
    try:
        quota, period = QUOTA.read_text().split()
        allowed = max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # "max" is no number: no quota
        allowed = 1 << 30
    return min(allowed, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def set_threads(at_once: int | None = None, *, parameters: int | None = None) -> int:
    """Choose how many threads compute, and how they wait. Returns the number in force.

    One a processor; one in all if the vectors of a step, `at_once` numbers (batch x time x width), are too few to
    share, or the `parameters` of a model that generates. `OMP_NUM_THREADS` wins. The processes of `torchrun` on a
    machine share its processors (torchrun itself sets OMP_NUM_THREADS=1). Without affinities (macOS, Windows) PyTorch's
    own number stays.
    """
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if "OMP_NUM_THREADS" not in os.environ or ("TORCHELASTIC_RUN_ID" in os.environ and together > 1):
        if (at_once is not None and at_once < WORTH_SHARING) or (parameters is not None and parameters < SMALL_MODEL):
            torch.set_num_threads(1)
        elif hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(max(1, processors() // together))
    watch()
    return torch.get_num_threads()


def use_threads(number: int) -> None:
    """Compute with so many threads, as a run did before."""
    torch.set_num_threads(number)
    watch()


def why_threads(at_once: int) -> str | None:
    """The reason for the number of threads that `set_threads` has chosen; None if `OMP_NUM_THREADS` has."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    if at_once < WORTH_SHARING:
        return f"vectors of {at_once:,} numbers a step are too few to share"
    return f"one a processor; waiting they {how_threads_wait()}"


def how_threads_wait() -> str:
    """What threads do while they wait for each other, in words for `recipe.toml`."""
    if chosen := [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]:
        return "follow " + ", ".join(chosen)
    return "spin, and sleep while other programs run" if _libgomp() is not None else "do as their OpenMP does"


def watch() -> None:
    """From now on, yield whenever other programs use the processors.

    Starts one cheap thread, which looks four times a second. Every long computation calls this.
    """
    global _watcher
    _Watcher.computing = torch.get_num_threads()
    if _watcher is None and _Watcher.computing > 1 and Path("/proc/stat").exists():
        _watcher = _Watcher(None if any(name in os.environ for name in WAITING) else _libgomp())
        _watcher.start()


def kernel_threads() -> int:
    """How many threads a kernel of ours may take, of those that give the same bits with any number."""
    return 1 if _watcher is not None and _watcher.crowded else torch.get_num_threads()


class _Watcher(threading.Thread):
    """Watches how much of the processors other programs use, and keeps `_IdleThreads` while it is too much."""

    computing = 1  # threads of ours

    def __init__(self, libgomp: ctypes.CDLL | None):
        super().__init__(name="glassformer-threads", daemon=True)
        self.idle_threads = None if libgomp is None else _IdleThreads(libgomp)
        self.crowded, self.calm_looks = False, 0

    def run(self) -> None:
        cpus = os.sched_getaffinity(0)
        before = (time.monotonic(), busy_seconds(cpus), time.process_time())
        while True:
            time.sleep(INTERVAL)
            now = (time.monotonic(), busy_seconds(cpus), time.process_time())
            passed, busy, ours = (new - old for new, old in zip(now, before, strict=True))
            before = now
            self.decide((busy - ours) / passed - (len(cpus) - self.computing))

    def decide(self, too_many: float) -> None:
        """Give way, or no longer. too_many: processors that others use, less those that our threads leave."""
        self.calm_looks = self.calm_looks + 1 if too_many < CALM else 0
        if too_many > CROWDED or self.calm_looks >= CALM_LOOKS:
            self.crowded = too_many > CROWDED
        if self.idle_threads is not None:
            self.idle_threads.start(self.computing) if self.crowded and self.computing > 1 else self.idle_threads.stop()


class _IdleThreads:
    """Enough idle OpenMP threads that libgomp counts more threads than processors."""

    def __init__(self, libgomp: ctypes.CDLL):
        self.libgomp = libgomp
        self._leave: threading.Event | None = None

    def start(self, computing: int) -> None:
        """Start them, beside the `computing` ones. They end with the thread that starts them."""
        if self._leave is not None:
            return
        size = max(2, self.libgomp.omp_get_num_procs() - computing + 2)
        self._leave, there = threading.Event(), threading.Event()
        threading.Thread(target=self._stand, args=(size, there, self._leave), daemon=True).start()
        there.wait()

    def stop(self) -> None:
        """End them."""
        if self._leave is not None:
            self._leave.set()
            self._leave = None

    def _stand(self, size: int, there: threading.Event, leave: threading.Event) -> None:
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing, and needs no Python
        self.libgomp.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
        there.set()
        leave.wait()


def busy_seconds(cpus: set[int]) -> float:
    """Processor seconds used on these processors since boot, by all processes (and other guests of the host);
    0 if the system does not report it."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _waiting, irq, softirq, stolen = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def _libgomp() -> ctypes.CDLL | None:
    """The libgomp that PyTorch has loaded, if that is the OpenMP it uses."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    path = next((words[5] for line in lines if len(words := line.split(None, 5)) == 6 and "/libgomp" in words[5]), None)
    return None if path is None else ctypes.CDLL(path)


_watcher: _Watcher | None = None
