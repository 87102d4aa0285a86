"""What `test_ranks.py` runs in several processes: the same steps as one process, in shares.

`run_rank` writes, from the main process, OUT/<case>.safetensors with all parameters after the steps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from toys import toy_model

from glassformer.tasks import NextToken
from glassformer.training import LossModule, TrainStep, World, build_optimizer
from glassformer.training.sharding import shard
from glassformer.training.step import is_sharded

STEPS, SEQUENCES, LENGTH = 8, 32, 11
# name -> (optimizer, number format, micro-batch in one process, sharded over several)
CASES = {
    "adamw": ("adamw", torch.float64, None, False),
    "muon": ("muon", torch.float64, None, False),
    "sgd": ("sgd", torch.float32, None, False),
    "adamw-sharded": ("adamw", torch.float64, None, True),
    "muon-sharded": ("muon", torch.float64, None, True),
    "sgd-sharded": ("sgd", torch.float32, None, True),
}


class SGD:
    """The plainest optimizer: what it adds to rounding errors is nothing."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], learning_rate: float):
        self.parameters, self.learning_rate = parameters, learning_rate

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        for p in self.parameters.values():
            p.add_(p.grad, alpha=-self.learning_rate * factor)


def make_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """32 sequences with masks of unequal length: row i counts from its own place on, some rows nowhere."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(61, (SEQUENCES, LENGTH + 1), generator=generator)
    targets = ids[:, 1:].clone()
    first = torch.randint(LENGTH + 3, (SEQUENCES,), generator=generator)
    targets[torch.arange(LENGTH) < first[:, None]] = -100
    return ids[:, :-1], targets


def train(case: str, world: World, micro_batch_size: int | None = None) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Parameters after the steps, and the losses."""
    kind, dtype, _, sharded = CASES[case]
    model = toy_model("modern", n_embd=30, n_head=6, head_width=10).to(dtype).train()
    if sharded and world.size > 1:
        shard(model)
    if kind == "sgd":
        optimizer = SGD(dict(model.named_parameters()), 0.1)
    else:
        optimizer = build_optimizer(
            kind, model, learning_rate=1e-2, matrix_learning_rate=0.02, betas=(0.9, 0.95), weight_decay=0.1
        )
    train_step = TrainStep(
        LossModule(model, NextToken().loss), optimizer, world=world, micro_batch_size=micro_batch_size, grad_clip=1.0
    )
    share = SEQUENCES // world.size
    losses = []
    for step in range(STEPS):
        batch = tuple(part[world.rank * share : (world.rank + 1) * share] for part in make_batch(step))
        measured = train_step.forward_backward(batch).read()
        train_step.optimizer_step(measured, 1.0)
        train_step.clear()
        losses.append(measured.loss)
    return {n: (p.full_tensor() if is_sharded(p) else p).detach() for n, p in model.named_parameters()}, losses


def run_rank(rank: int, size: int, port: int, out: Path) -> None:
    """The work of one process of `size`, in the environment that torchrun would give it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    world = World.join()
    assert (world.rank, world.size) == (rank, size)
    for case in CASES:
        micro = SEQUENCES // world.size // 2 if case == "adamw" else None  # accumulation and ranks at once
        parameters, losses = train(case, world, micro)
        if world.is_main:
            parameters["losses"] = torch.tensor(losses, dtype=torch.float64)
            save_file({name: p.contiguous() for name, p in parameters.items()}, out / f"{case}.safetensors")
    world.leave()
