"""Which device, how much memory it has, and whether half-width numbers (bfloat16) are quick there."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import DeviceError, UsageError


def choose_device(asked: str) -> str:
    """`auto` takes CUDA when there is one. Also `cpu`, `cuda`, `cuda:1`.

    Raises:
        DeviceError: CUDA was asked for and this machine, or this build of PyTorch, has none.
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
    """`auto` takes bf16 where the processor multiplies it natively, else fp32: detected, never assumed. On a processor
    without such instructions bf16 products are emulated, up to a hundred times slower than fp32."""
    if asked not in ("auto", "fp32", "bf16"):
        raise UsageError(f"training.precision={asked!r} is unknown; use auto, fp32 or bf16")
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def available_memory(device: str) -> int | None:
    """Bytes that can still be had: on a CPU what the system calls available, with swap, within the container's limit;
    None where nobody tells."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    told: list[int] = []
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines}
        told.append(1024 * (kilobytes["MemAvailable:"] + kilobytes["SwapFree:"]))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        told.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(told, default=None)


def peak_memory(device: str) -> int:
    """The most bytes that this process has held so far: of GPU memory, or resident in main memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resident_bytes(peak=True)


def resident_bytes(peak: bool = False) -> int:
    """Bytes of main memory that this process holds now, or held at its fullest moment."""
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


def _cpu_multiplies_bf16() -> bool:
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if any(check() for check in checks if check):
        return True
    return hasattr(torch.cpu, "_is_arm_bf16_supported") and bool(torch.cpu._is_arm_bf16_supported())
