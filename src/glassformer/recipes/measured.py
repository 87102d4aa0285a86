"""What can only be found by trying it on this machine: how large a batch, and whether compiling pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glassformer.models import ModelConfig, flops_per_token
from glassformer.recipes import derive
from glassformer.recipes.probe import WORTH_COMPILING, probe_compile
from glassformer.recipes.schema import TrainingSection
from glassformer.threads import set_threads, why_threads
from glassformer.training import World
from glassformer.training.utilisation import peak_flops

SLOWEST = 4.0  # times as long as at the machine's peak: no run takes much more


def thread_choice(t: TrainingSection, config: Any, machine: dict[str, Any], world_size: int = 1) -> list[derive.Choice]:
    """How many threads compute on a CPU, in force from now on and noted in `machine`: one for a tiny model."""
    width, length = getattr(config, "n_embd", None), getattr(config, "block_size", None)
    if machine["device"] != "cpu" or not isinstance(t.batch_size, int) or not width or not length:
        return []
    sequences = min(t.micro_batch_size or t.batch_size, -(-t.batch_size // world_size))
    machine["threads"] = set_threads(sequences * length * width)
    why = why_threads(sequences * length * width)
    return [derive.Choice("machine.threads", machine["threads"], why)] if why else []


def measured_choices(
    t: TrainingSection,
    config: ModelConfig,
    machine: dict[str, Any],
    train_tokens: int,
    world: World,
    log: Callable[[str], None] = lambda line: None,
) -> list[derive.Choice]:
    """Fill in `training.batch_size=auto`, what follows from it, and on one CPU whether to compile (`machine`).

    log: is given a line before each thing that takes more than a moment.

    Nothing is tried for a run that is too short to win compiling back even at a quarter of the machine's speed.
    """
    choices = []
    device, precision = machine["device"], machine["precision"]
    if t.batch_size == "auto":
        log("trying how many sequences at once are fastest ...")
        choice = derive.batch_size_choice(
            config, t, train_tokens, device=device, precision=precision, world_size=world.size
        )
        t.batch_size = choice.value
        choices.append(choice)
    derive.fill_training(t)
    assert t.steps and isinstance(t.batch_size, int)
    if t.compile != "auto" or device != "cpu" or world.size > 1:
        return choices
    tokens = t.steps * t.batch_size * config.block_size
    if tokens * flops_per_token(config).training / peak_flops(device, precision) * SLOWEST < WORTH_COMPILING:
        return choices
    machine["compile"], why = probe_compile(config, t, steps=t.steps, device=device, precision=precision, log=log)
    choices.append(derive.Choice("training.compile", "on" if machine["compile"] else "off", why))
    return choices
