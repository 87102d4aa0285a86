"""`training.compile=auto` on a CPU: whether compiling pays is found by trying both."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from glassformer.models import ModelConfig, flops_per_token
from glassformer.recipes.machine import Machine
from glassformer.recipes.probe import LEAST_STEPS, SECONDS, Stepper, no_traces, sequences_in
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.tasks import Choice, Task
from glassformer.training.devices import peak_flops

COMPILING = 35.0  # seconds that compiling takes at the most (15 to 35 seen on two cores)
WORTH_COMPILING = 150.0  # a run shorter than this cannot win them back: compiled is a third faster at best
SLOWEST = 4.0  # times as long as at the machine's peak: no run takes much more


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
