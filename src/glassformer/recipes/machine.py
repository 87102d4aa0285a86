"""What the machine decides of a run: device, threads, precision, whether to compile. Detected once, kept in
recipe.toml, and used again on resume."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from glassformer import __version__
from glassformer.recipes.schema import Recipe
from glassformer.tasks import TASKS, Choice
from glassformer.threads import how_threads_wait, processors, set_threads, use_threads, why_threads
from glassformer.training import choose_device, choose_precision
from glassformer.training.devices import peak_flops

GFLOPS_A_CORE = {"AVX512": 80.0, "AVX2": 50.0}  # of fp32 products, by the capability that PyTorch reports


class Machine(BaseModel):
    """[machine] of recipe.toml."""

    model_config = ConfigDict(frozen=True, extra="allow")

    device: str
    processor: str = ""
    threads: int
    waiting: str = ""
    """what threads do while they wait for each other"""
    precision: str
    """fp32 or bf16"""
    compile: bool
    torch: str = ""
    glassformer: str = ""
    python: str = ""

    def use(self) -> None:
        """Compute as this machine was set up to."""
        use_threads(self.threads)
        if self.device.startswith("cuda"):
            torch.backends.cuda.matmul.allow_tf32 = True

    def differences(self) -> list[str]:
        """In what the machine of now differs, so that results may too, by rounding; it is used as that of then, with
        the threads that it has."""
        now = {"processor": processor(), "torch": torch.__version__}
        threads = set_threads()
        if threads < self.threads:
            now["threads"] = str(threads)
        self.model_copy(update={"threads": min(threads, self.threads)}).use()
        before = self.model_dump()
        return [
            f"{name}: {before[name] or 'unknown'} before, {value} now: equal to rounding, not to the bit"
            for name, value in now.items()
            if str(before[name]) != value
        ]


def detect_machine(r: Recipe) -> Machine:
    """What is here. `compile=auto` compiles texts alone: examples come in all lengths, each compiled by itself."""
    device = choose_device(r.training.device)
    threads = set_threads()
    auto = r.training.compile == "auto" and TASKS[r.task.kind].fixed_shape and device.startswith("cuda")
    return Machine(
        device=device,
        processor=processor(),
        threads=threads,
        waiting=how_threads_wait(),
        precision=choose_precision(r.training.precision, device),
        compile=r.training.compile == "on" or auto,
        torch=torch.__version__,
        glassformer=__version__,
        python=sys.version.split()[0],
    )


def processor() -> str:
    """The name of the processor: another one may round differently."""
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return platform.processor() or platform.machine()


def thread_choice(machine: Machine, config: Any, sequences: int) -> tuple[Machine, list[Choice]]:
    """How many threads compute on a CPU, in force from now on: one for a tiny model. sequences: at once."""
    width, length = getattr(config, "n_embd", None), getattr(config, "block_size", None)
    if machine.device != "cpu" or not width or not length:
        return machine, []
    numbers = sequences * length * width
    machine = machine.model_copy(update={"threads": set_threads(numbers)})
    why = why_threads(numbers)
    return machine, [Choice("machine.threads", machine.threads, why)] if why else []


def typical_gflops(device: str) -> float:
    """GFLOP/s of fp32 matrix products on a machine like this one, the same at each call.

    Not measured, since a busy machine gives half, and the same text would get another model: a CPU is known by its
    cores and the width of its vectors. A GPU is measured, to the nearest power of two.
    """
    if device.startswith("cuda"):
        return 2.0 ** round(math.log2(peak_flops(device, "fp32") / 1e9))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(processors(), int(asked) if asked.isdecimal() and int(asked) else 1 << 30)
    return threads * GFLOPS_A_CORE.get(torch.backends.cpu.get_cpu_capability(), 25.0)
