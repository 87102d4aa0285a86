"""The device that a run uses: which one, its memory, its speed, and whether it multiplies bfloat16 natively.

    utilisation = operations a token * tokens a second / (peak * devices)

Operations a token follow PaLM's convention (`models.flops_per_token`). The peak is not a data sheet's but that of a
matrix product, measured here: 1 is what PyTorch reaches with nothing but products.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import DeviceError, UsageError

PEAK_SECONDS = 0.15  # that measuring the peak may take
# Width of the square matrices: on a GPU large enough to keep all of it busy; on a CPU small enough that among fifty
# products some are undisturbed.
PEAK_WIDTH = {"cpu": 512, "cuda": 8192}


def choose_device(asked: str) -> str:
    """`auto` takes CUDA when there is one. Also `cpu`, `cuda`, `cuda:1`.

    Raises:
        DeviceError: this machine, or this build of PyTorch, has no such CUDA device. UsageError: an unknown name.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", asked):
        raise UsageError(f"device={asked!r} is unknown; use auto, cpu, cuda or cuda:N")
    if asked != "cpu":
        if not torch.cuda.is_available():
            why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"
            raise DeviceError(
                f"device={asked} was asked for, but {why}; use --device cpu, or install a CUDA build of PyTorch"
            )
        index = asked.partition(":")[2]
        if index and int(index) >= torch.cuda.device_count():
            raise DeviceError(f"device={asked} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return asked


def choose_precision(asked: str, device: str) -> str:
    """`auto` takes bf16 where the processor multiplies it natively, else fp32. Elsewhere bf16 products are emulated, up
    to a hundred times slower than fp32.

    Raises:
        UsageError: an unknown precision.
    """
    if asked not in ("auto", "fp32", "bf16"):
        raise UsageError(f"training.precision={asked!r} is unknown; use auto, fp32 or bf16")
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def available_memory(device: str) -> int | None:
    """Free bytes: on a CPU what the system calls available, with swap, within the container's limit; None where that is
    unknown."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    known: list[int] = []
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines}
        known.append(1024 * (kilobytes["MemAvailable:"] + kilobytes["SwapFree:"]))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known, default=None)


def peak_memory(device: str) -> int:
    """The most bytes that this process has held: of GPU memory, or resident in main memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resident_bytes(peak=True)


def resident_bytes(peak: bool = False) -> int:
    """Bytes of main memory that this process holds now, or its highest number so far (`peak`)."""
    with contextlib.suppress(OSError, StopIteration):
        # the system's own count for this program; getrusage's also remembers the process that started it
        lines = Path("/proc/self/status").read_text().splitlines()
        name = "VmHWM:" if peak else "VmRSS:"
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
    try:
        import resource
    except ImportError:  # Windows has no such count
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bf16 and everything delicate in fp32, or a context that does nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device_type=device.split(":")[0], dtype=torch.bfloat16)


def peak_flops(device: str = "cpu", precision: str = "fp32") -> float:
    """Operations a second of a matrix product on this device in `fp32` or `bf16`: the fastest of `PEAK_SECONDS`.

    Measured once in a process for each number of threads; on a shared machine it is what the others leave.
    """
    return _measured_peak(device, precision, torch.get_num_threads())


@lru_cache(maxsize=16)
def _measured_peak(device: str, precision: str, threads: int) -> float:
    kind = device.split(":")[0]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = PEAK_WIDTH[kind]
    a = torch.ones(n, n, device=device, dtype=dtype)
    out = a @ a  # libraries wake up, kernels are chosen
    best, until = float("inf"), time.perf_counter() + PEAK_SECONDS
    while best == float("inf") or time.perf_counter() < until:
        _wait(kind)
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(kind)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def _cpu_multiplies_bf16() -> bool:
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if any(check() for check in checks if check):
        return True
    return hasattr(torch.cpu, "_is_arm_bf16_supported") and bool(torch.cpu._is_arm_bf16_supported())
