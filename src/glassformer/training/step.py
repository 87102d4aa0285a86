"""One update: a batch goes through the model in pieces, on every process, and gives one gradient.

    batch of the step ─┬─ rank 0 ─┬─ micro-batch 0 ─► sum of losses ─► backward ─┐
                       │          └─ micro-batch 1 ─► sum of losses ─► backward ─┤ + ─┐
                       └─ rank 1 ─── ...                                              ├─ + ─► / count ─► clip ─► update
                                                                                      ┘
The loss is a sum, and is divided once, by the count of targets in the whole step. So how a batch is cut (accumulation,
ranks, masks of unequal length) changes nothing but rounding.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glassformer.layers import balance_loss
from glassformer.tasks import Objective
from glassformer.training.optimizers import Optimizer
from glassformer.training.precision import autocast
from glassformer.training.world import World

Batch = tuple[Tensor, ...]


class LossModule(nn.Module):
    """A model and what is asked of it, as one module: what is compiled, and what is spread over processes.

    A mixture of experts is also asked to use them alike: its balance loss is added as often as there are targets.
    """

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective
        config: Any = getattr(model, "config", None)
        self.balance_weight = config.balance_weight if getattr(config, "n_expert", 0) else 0.0

    def forward(self, *batch: Tensor) -> tuple[Tensor, int | Tensor]:
        """A batch -> (sum of losses, number of targets)."""
        total, count, _ = self.objective.loss(self.model, batch)
        if self.balance_weight and (balance := balance_loss(self.model)) is not None:
            total = total + self.balance_weight * count * balance
        return total, count


class Measured(NamedTuple):
    """What a step's batch said before the update. loss: mean over all its targets, in nats. targets: how
    many. norm: of the gradient of that mean. asked: whether any process was asked to stop."""

    loss: float
    targets: int
    norm: float
    asked: bool


class Sums:
    """What a step's batch came to, still where the model is: to read it is to wait for all the work before it, once.

    Args:
        totals_4: sum of losses, targets, processes that were asked to stop, sum of squares of the gradient (float64).
    """

    def __init__(self, totals_4: Tensor):
        self.totals_4, self._host, self._copied = totals_4, totals_4, None
        if totals_4.is_cuda:  # on its way as soon as it is there, so that reading does not wait for later work
            self._host = torch.empty(4, dtype=totals_4.dtype, pin_memory=True).copy_(totals_4, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> Measured:
        """The numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        total, count, stop, square = self._host.tolist()
        count = max(1, int(count))  # a step whose targets are all masked teaches nothing
        return Measured(total / count, count, square**0.5 / count, stop > 0)


class Update:
    """Gradients of a batch, then the optimizer's step.

    Args:
        loss: a `LossModule`, or its compiled form.
        micro_batch_size: how many of this process's sequences go through at once (None: all).
    """

    def __init__(
        self,
        loss: nn.Module,
        optimizer: Optimizer,
        *,
        world: World | None = None,
        micro_batch_size: int | None = None,
        grad_clip: float = 1.0,
        precision: str = "fp32",
    ):
        self.world = world or World()
        self.parameters = [p for p in loss.parameters() if p.requires_grad]
        self.device = next(loss.parameters()).device
        self.sharded = any(is_sharded(p) for p in self.parameters)
        self.loss = self._together(loss)
        self.optimizer, self.micro_batch_size, self.grad_clip = optimizer, micro_batch_size, grad_clip
        self.precision = precision

    def measure(self, batch: Batch, *, asked: bool = False) -> Measured:
        """Leave the gradient of the summed loss over the whole step in `.grad`; tell what it said."""
        return self.begin(batch, asked=asked).read()

    def begin(self, batch: Batch, *, asked: bool = False) -> Sums:
        """`measure` without waiting for the numbers."""
        batch = tuple(part.to(self.device, non_blocking=True) for part in batch)
        pieces = list(zip(*(part.split(self.micro_batch_size or len(part)) for part in batch), strict=True))
        totals_4 = torch.zeros(4, dtype=torch.float64, device=self.device)  # as in `Sums`
        totals_4[2] = float(asked)
        for i, piece in enumerate(pieces):
            with self._meeting(last=i == len(pieces) - 1):
                with autocast(self.precision, self.device.type):
                    total, count = self.loss(*piece)
                # DDP and FSDP average over processes; we want the sum
                (total * self.world.size if self.world.size > 1 else total).backward()
            totals_4[0] += total.detach()
            totals_4[1] += count
        totals_4[3] = torch.stack(torch._foreach_norm(self.gradients())).double().square().sum()
        self.world.sum(totals_4 if self.sharded else totals_4[:3])  # whole gradients are the same everywhere
        return Sums(totals_4)

    def apply(self, measured: Measured, factor: float) -> None:
        """Divide, clip, update, at `factor` times the learning rate. The gradients stay until `clear`."""
        clip = self.grad_clip
        shrink = clip / measured.norm if 0 < clip < measured.norm else 1.0
        torch._foreach_mul_(self.gradients(), shrink / measured.targets)
        self.optimizer.step(factor)

    def apply_unread(self, sums: Sums, factor: float) -> None:
        """`apply` where the numbers are: nothing waits for them, and a gradient that is none is applied too."""
        _, count, _, square = sums.totals_4.unbind()
        count = count.clamp(min=1)
        scale = 1 / count
        if self.grad_clip:
            scale = scale * (self.grad_clip * count / square.sqrt()).clamp(max=1)
        torch._foreach_mul_(self.gradients(), scale)
        self.optimizer.step(factor)

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients that lie here: whole ones, or this process's shards."""
        return [local(p.grad) for p in self.parameters if p.grad is not None]

    def _together(self, loss: nn.Module) -> nn.Module:
        if self.world.size == 1 or self.sharded:
            return loss
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(loss, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def _meeting(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients meet once a step: with the last micro-batch."""
        if last or self.world.size == 1 or self.sharded:
            return contextlib.nullcontext()
        return self.loss.no_sync()  # type: ignore[operator, return-value]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process: of a sharded one its shard, else the whole."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
