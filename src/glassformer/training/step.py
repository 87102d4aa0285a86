"""One training step: a batch goes through the model in pieces, on every process, and gives one gradient.

    batch of the step ─┬─ rank 0 ─┬─ micro-batch 0 ─► sum of losses ─► backward ─┐
                       │          └─ micro-batch 1 ─► sum of losses ─► backward ─┤ + ─┐
                       └─ rank 1 ─── ...                                              ├─ + ─► / count ─► clip ─► update
                                                                                      ┘
The loss is a sum, divided once by the count of targets in the whole step. So how a batch is cut (accumulation, ranks,
masks of unequal length) changes nothing but rounding. Metrics are reduced in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glassformer.layers import balance_loss
from glassformer.training.devices import autocast
from glassformer.training.distributed import World
from glassformer.training.optimizers import Optimizer

Batch = tuple[Tensor, ...]
LossFunction = Callable[[Any, Batch], Any]  # (model, batch) -> `tasks.Loss`


class LossModule(nn.Module):
    """A model and its loss as one module: what is compiled, and what is spread over processes.

    The balance loss of a mixture of experts is added as often as there are targets.

    Args:
        loss: a task's `loss`: (model, batch) -> (sum, count, metrics).
        companion: a module that `loss` uses and that is trained too (`Task.companion`).
    """

    def __init__(self, model: nn.Module, loss: LossFunction, companion: nn.Module | None = None):
        super().__init__()
        self.model, self.loss, self.companion = model, loss, companion
        config: Any = getattr(model, "config", None)
        self.balance_weight = config.balance_weight if getattr(config, "n_expert", 0) else 0.0

    def forward(self, *batch: Tensor) -> tuple[Tensor, int | Tensor, dict[str, Any]]:
        """A batch -> (sum of losses, number of targets, metrics as (sum, count) by name)."""
        total, count, metrics = self.loss(self.model, batch)
        if self.balance_weight and (balance := balance_loss(self.model)) is not None:
            total = total + self.balance_weight * count * balance
        return total, count, metrics


class StepResult(NamedTuple):
    """The numbers of a step's batch, measured before its update.

    loss: mean over all targets. targets: how many. grad_norm: of the gradient of that mean. stop: whether any process
    was asked to stop. metrics: means by name.
    """

    loss: float
    targets: int
    grad_norm: float
    stop: bool
    metrics: dict[str, float]


class PendingResult:
    """The totals of a step, still on the model's device. Reading them waits once for all the work before.

    Args:
        totals: float64: sum of losses, targets, processes that were asked to stop, sum and count of each metric, and
            last the sum of squares of the gradient.
        names: of the metrics.
    """

    def __init__(self, totals: Tensor, names: tuple[str, ...] = ()):
        self.totals, self.names, self._host, self._copied = totals, names, totals, None
        if totals.is_cuda:  # the copy starts as soon as the totals exist, so that reading does not wait for later work
            self._host = torch.empty(len(totals), dtype=totals.dtype, pin_memory=True).copy_(totals, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> StepResult:
        """The numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        total, count, stop, *metrics, square = self._host.tolist()
        count = max(1, int(count))  # where all targets of a step are masked
        means = {
            name: metrics[2 * i] / metrics[2 * i + 1] for i, name in enumerate(self.names) if metrics[2 * i + 1] > 0
        }
        return StepResult(total / count, count, square**0.5 / count, stop > 0, means)


class TrainStep:
    """Computes the gradient of a batch, then updates the weights.

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
        self.loss = self._data_parallel(loss)
        self.optimizer, self.micro_batch_size, self.grad_clip = optimizer, micro_batch_size, grad_clip
        self.precision = precision

    def forward_backward(self, batch: Batch, *, stop: bool = False) -> PendingResult:
        """Leave the gradient of the summed loss over the whole step in `.grad`. Does not wait for the numbers.

        stop: whether this process was asked to stop; `StepResult.stop` passes it to all.
        """
        batch = tuple(part.to(self.device, non_blocking=True) for part in batch)
        pieces = self.pieces(batch)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        sums[2] = float(stop)
        metrics: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces):
            with self._synchronized(last=i == len(pieces) - 1):
                with autocast(self.precision, self.device.type):
                    total, count, measured = self.loss(*piece)
                # DDP and FSDP average over processes; the sum is needed
                (total * self.world.size if self.world.size > 1 else total).backward()
            sums[0] += total.detach()
            sums[1] += count
            for name, pair in measured.items():
                sum_and_count = metrics.setdefault(name, torch.zeros_like(sums[:2]))
                for place, value in enumerate(pair):
                    sum_and_count[place] += value.detach() if isinstance(value, Tensor) else value
        names = tuple(sorted(metrics))
        square = torch.stack(torch._foreach_norm(self.gradients())).double().square().sum()
        totals = torch.cat([sums, *(metrics[name] for name in names), square.view(1)])
        self.world.sum(totals if self.sharded else totals[:-1])  # whole gradients are the same in every process
        return PendingResult(totals, names)

    def pieces(self, batch: Batch) -> list[Batch]:
        """The micro-batches of a batch."""
        return list(zip(*(part.split(self.micro_batch_size or len(part)) for part in batch), strict=True))

    def optimizer_step(self, result: StepResult, factor: float) -> None:
        """Divide, clip and update, at `factor` times the learning rate. The gradients stay until `clear`."""
        clip = self.grad_clip
        shrink = clip / result.grad_norm if 0 < clip < result.grad_norm else 1.0
        torch._foreach_mul_(self.gradients(), shrink / result.targets)
        self.optimizer.step(factor)

    def optimizer_step_unread(self, pending: PendingResult, factor: float) -> None:
        """`optimizer_step` on the device: nothing waits for the numbers, so a gradient with NaNs is applied too."""
        count, square = pending.totals[1].clamp(min=1), pending.totals[-1]
        scale = 1 / count
        if self.grad_clip:
            scale = scale * (self.grad_clip * count / square.sqrt()).clamp(max=1)
        torch._foreach_mul_(self.gradients(), scale)
        self.optimizer.step(factor)

    def clear(self) -> None:
        """Drop the gradients."""
        for p in self.parameters:
            p.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of this process: whole ones, or its shards."""
        return [local(p.grad) for p in self.parameters if p.grad is not None]

    def _data_parallel(self, loss: nn.Module) -> nn.Module:
        if self.world.size == 1 or self.sharded:
            return loss
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(loss, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def _synchronized(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients are exchanged once a step, with the last micro-batch."""
        if last or self.world.size == 1 or self.sharded:
            return contextlib.nullcontext()
        return self.loss.no_sync()  # type: ignore[operator, return-value]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process: the shard of a sharded one, else all of it."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
