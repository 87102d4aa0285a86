"""`training.batch_size=auto`: the number of sequences that is fastest here is found by trying."""

from __future__ import annotations

from glassformer.errors import DeviceError
from glassformer.models import ModelConfig
from glassformer.recipes.machine import Machine
from glassformer.recipes.memory import gigabytes, memory_plan
from glassformer.recipes.probe import Stepper, no_traces
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.tasks import Choice, Task
from glassformer.training import available_memory
from glassformer.training.devices import resident_bytes

LARGEST_STEP = 524_288  # tokens; GPT-3's smaller models took as many (Brown et al. 2020, table 2.1)


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
