"""A run that ends early or diverges: where the numbers went bad, what is kept, and how it continues."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from glassformer.errors import DivergenceError
from glassformer.training.checkpoints import checkpoint_folders, latest_checkpoint, load_checkpoint
from glassformer.training.distributed import World
from glassformer.training.monitor import MAX_RECOVERIES
from glassformer.training.run_folder import RunFolder
from glassformer.training.step import Batch


class RolledBack(Exception):
    """The run stands at a checkpoint again."""


def how_to_continue(run: RunFolder, world: World) -> str:
    """What is kept of a run that ended early, and the command that continues it."""
    if checkpoints := checkpoint_folders(run):
        return f"{checkpoints[-1].name} is kept, continue with: {resume_command(run, world)}"
    return f"no checkpoint yet, start again with: {resume_command(run, world)}"


def resume_command(run: RunFolder, world: World) -> str:
    """The command that continues a run with as many processes as now."""
    start = f"torchrun --nproc-per-node {world.local_size} -m " if world.size > 1 else ""
    return f"{start}glassformer resume {run.path}"


def recover(trainer: Any, trouble: str, step: int, where: str) -> NoReturn:
    """A divergence in a step of a `Trainer`: report and stop, or go back to the last checkpoint and continue otherwise.

    Raises:
        DivergenceError: the run stops. RolledBack: it continues.
    """
    monitor, kind = trainer.monitor, trainer.settings.on_divergence
    norms = " ".join(f"{norm:.3g}" for norm in monitor.norms)
    before = f" (gradient norms before it: {norms})" if norms else ""
    report = f"training diverged at step {step}: {trouble}{before}, {where}"
    trainer.train_step.clear()
    trainer.writer.wait()
    if kind == "stop" or monitor.recoveries == MAX_RECOVERIES:
        checkpoints = checkpoint_folders(trainer.run)
        kept = f"{trainer.run.path} keeps {checkpoints[-1].name}" if checkpoints else "no checkpoint was due yet"
        trainer.event("diverged", report)
        tried = f" after {MAX_RECOVERIES} recoveries" if monitor.recoveries else ""
        raise DivergenceError(
            f"{report}; {kept}{tried}; try half the learning rate (training.learning_rate), more warm-up, "
            "training.grad_clip=1, or training.on_divergence=skip to leave out such a batch"
        )
    monitor.recoveries += 1
    if kind == "skip":
        trainer.skipped.append(step - 1)
        recovery = f"the batch of step {step} is left out"
    else:
        trainer.rate /= 2
        recovery = f"the learning rate is {trainer.rate:g} times what it was"
    trainer.world.barrier()
    folder, _ = latest_checkpoint(trainer.run)
    assert folder is not None  # one is written before the first step
    rate, skipped, best, seconds = trainer.rate, trainer.skipped, trainer.best, trainer.seconds
    trainer.restore(load_checkpoint(folder, trainer.model, trainer.optimizer, trainer.world, trainer.task.companion))
    trainer.rate, trainer.skipped, trainer.best, trainer.seconds = rate, skipped, best, seconds
    trainer.event("rolled back", f"{report}; back to {folder.name}, {recovery}")
    raise RolledBack


def first_bad_number(trainer: Any, batch: Batch) -> str:
    """Where the first bad number of a step is."""
    step = trainer.train_step
    if step.sharded:
        return "first bad number not looked for in a sharded model"
    pieces = step.pieces(tuple(part.to(step.device) for part in batch))
    runs = (partial(trainer.task.loss, trainer.model, piece) for piece in pieces)
    return f"first bad number in {first_non_finite(trainer.model, runs)}"


@torch.no_grad()
def first_non_finite(model: nn.Module, runs: Iterable[Callable[[], object]]) -> str:
    """Run the model once more and name the first module, in the order of the computation, with a bad weight or a bad
    output, else the parameter with a bad gradient, else the one with the largest.

    Args:
        runs: each calls the model on a piece of the step, as large as fits.
    """
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if found:
            return
        bad = [own for own, weight in module.named_parameters(recurse=False) if not torch.isfinite(weight).all()]
        if bad:
            found.append(f"{name}.{bad[0]} (a weight)")
        elif isinstance(output, Tensor) and not torch.isfinite(output).all():
            found.append(f"{name} (its output)")

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(partial(look, name)) for name, module in leaves]
    try:
        for run in runs:
            run()
            if found:
                return found[0]
    finally:
        for handle in handles:
            handle.remove()
    named = dict(model.named_parameters())  # also of what was not called as a module: a head in pieces
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    for what, tensors in (("a weight", named), ("its gradient", gradients)):
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                return f"{name} ({what})"
    if not gradients:
        return "the loss itself"
    largest = max(gradients, key=lambda name: float(gradients[name].square().mean()))
    return f"none; the largest gradient is that of {largest}"
