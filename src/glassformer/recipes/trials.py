"""What is decided by trying it on this machine: `training.batch_size=auto`, and `training.compile=auto` on a CPU.

config: as trained, everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from glassformer.errors import DeviceError
from glassformer.models import ModelConfig, flops_per_token
from glassformer.recipes.machine import Machine
from glassformer.recipes.memory import gigabytes, memory_plan
from glassformer.recipes.probe import LEAST_STEPS, SECONDS, Stepper, no_traces, sequences_in
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.tasks import Choice, Task
from glassformer.training import available_memory
from glassformer.training.devices import peak_flops, resident_bytes

LARGEST_STEP = 524_288  # tokens; GPT-3's smaller models took as many (Brown et al. 2020, table 2.1)
COMPILING = 35.0  # seconds that compiling takes at the most (15 to 35 seen on two cores)
WORTH_COMPILING = 150.0  # a run shorter than this cannot win them back: compiled is a third faster at best
SLOWEST = 4.0  # times as long as at the machine's peak: no run takes much more


def batch_size_choice(
    task: Task, config: ModelConfig, t: ResolvedTraining, machine: Machine, train_tokens: int, world_size: int = 1
) -> Choice:
    """The largest power of two a device that fits memory, speed and text.

    Doubled while (1) the planned peak leaves a tenth of the free memory, (2) tokens a second, measured here, still grow
    by a twentieth, and (3) a step reads at most a hundredth of the text, and at most half a million tokens: beyond,
    larger steps buy little (McCandlish et al. 2018, https://arxiv.org/abs/1812.06162).

    Raises:
        DeviceError: not even one sequence fits.
    """
    free = available_memory(machine.device)
    available = None if free is None else free + (resident_bytes() if machine.device == "cpu" else 0)
    best, speed, why = 0, 0.0, ""
    while not why:
        tried = best * 2 or 1
        tokens = tried * world_size * config.block_size
        if best and tokens > min(train_tokens / 100, LARGEST_STEP):
            limit = f"a hundredth of {train_tokens:,} tokens of text"
            why = limit if train_tokens / 100 < LARGEST_STEP else "half a million tokens a step are enough"
            break
        planned = t.model_copy(update={"batch_size": tried * world_size, "micro_batch_size": tried})
        peak = memory_plan(config, planned, machine.device, machine.precision, world_size=world_size).peak
        if available is not None and peak > 0.9 * available:
            why = f"{tried} at once would take {gigabytes(peak)} of the {gigabytes(available)} there are"
            break
        rate = tokens_per_second(task, config, t, machine, tried)
        if rate < 1.05 * speed:
            why = f"{tried} at once are no faster: {rate:,.0f} tokens/s after {speed:,.0f}"
            break
        best, speed = tried, rate
    if not best:
        raise DeviceError(f"not even one sequence fits: {why}; try a smaller model.block_size or model.n_layer")
    return Choice("training.batch_size", best * world_size, f"{speed:,.0f} tokens/s measured here; {why}")


def tokens_per_second(task: Task, config: ModelConfig, t: ResolvedTraining, machine: Machine, sequences: int) -> float:
    """Tokens a second with so many sequences at once, from about half a second of steps."""
    tried = t.model_copy(update={"batch_size": sequences, "micro_batch_size": sequences})
    with no_traces(machine):
        return sequences * config.block_size / Stepper(task, config, tried, machine, sequences).time(0.5, 2)


def compile_choice(
    task: Task,
    config: ModelConfig,
    t: ResolvedTraining,
    machine: Machine,
    world_size: int,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Machine, list[Choice]]:
    """The machine with the faster of both ways, tried here. Nothing is tried where another rule decides
    (`detect_machine`), nor for a run that is too short even at a quarter of the machine's speed.

    log: is given a line before each thing that takes more than a moment.
    """
    if t.compile != "auto" or machine.device != "cpu" or world_size > 1:
        return machine, []
    operations = t.steps * t.batch_size * config.block_size * flops_per_token(config).training
    if operations / peak_flops(machine.device, machine.precision) * SLOWEST < WORTH_COMPILING:
        return machine, []
    with no_traces(machine):
        pays, why = _try_compiling(task, config, t, machine, log)
    return machine.model_copy(update={"compile": pays}), [Choice("training.compile", "on" if pays else "off", why)]


def _try_compiling(
    task: Task, config: ModelConfig, t: ResolvedTraining, machine: Machine, log: Callable[[str], None]
) -> tuple[bool, str]:
    """Whether it pays, and why. Compiling takes long only the first time; later runs of a shape find it done."""
    log("timing some steps, to see whether compiling the model pays ...")
    sequences = sequences_in(SECONDS, config, t, machine)
    slow = Stepper(task, config, t, machine, sequences).time(2.0, LEAST_STEPS)
    if slow * t.steps < WORTH_COMPILING:
        return False, f"about {slow * t.steps:.0f} s in all: too short to win back {COMPILING:.0f} s of compiling"
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        log(f"compiling it: up to {COMPILING:.0f} s, the first time for a shape ...")
        started = time.perf_counter()
        quick = Stepper(task, config, t, machine, sequences, compiling=True)
        quick.train_step.forward_backward(quick.batch).read()
        quick.train_step.clear()
        cost = time.perf_counter() - started
        log(f"compiled in {cost:.0f} s; timing it ...")
        fast = quick.time(2.0, LEAST_STEPS)
    except RuntimeError as error:  # no C++ compiler, for example
        return False, f"it cannot be compiled here: {str(error).splitlines()[0][:80]}"
    finally:
        torch.use_deterministic_algorithms(deterministic)
    pays = fast * t.steps + cost < slow * t.steps
    both = f"{1000 * slow:.0f} ms a step uncompiled, {1000 * fast:.0f} ms compiled, which took {cost:.0f} s"
    return pays, f"{both}: {'pays' if pays else 'does not pay'} over {t.steps:,} steps"
