"""What is measured and shown of a model beside its loss: lines of diagnostics.jsonl (the update of every parameter in
one step, and the activations) and of samples.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.figures import Note
from glassformer.taps import listening
from glassformer.tasks import Task
from glassformer.training.distributed import World
from glassformer.training.step import local

NEVER_NEGATIVE = ("relu", "relu2")  # activations with which a unit can die


class StepDiagnostics:
    """Weight, gradient and update of every parameter over one optimizer step, as root mean squares.

    Make it when the gradients (of the loss summed over `targets` targets) are there, before they are divided; call
    `record` after the optimizer's step.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, world: World, *, sharded: bool, targets: int):
        self.world, self.sharded = world, sharded
        self.named = {name: p for name, p in model.named_parameters() if p.grad is not None}
        self.before = {name: local(p).clone() for name, p in self.named.items()}
        self.gradients = self._squares([p.grad for p in self.named.values() if p.grad is not None])
        self.gradients /= targets**2

    @torch.no_grad()
    def record(self) -> dict[str, dict[str, float]]:
        """By name: `weight` and `gradient` (root mean square; of the mean loss, before clipping), and
        `update`: the change's root mean square as a part of the weight's."""
        weights = self._squares(list(self.before.values()))
        updates = self._squares([local(p) - self.before[name] for name, p in self.named.items()])
        sizes = torch.tensor([float(p.numel()) for p in self.named.values()], dtype=torch.float64)
        rows = (torch.stack([weights, self.gradients, updates]) / sizes).sqrt().T.tolist()
        return {
            name: {"weight": weight, "gradient": gradient, "update": update / weight if weight else 0.0}
            for name, (weight, gradient, update) in zip(self.named, rows, strict=True)
        }

    def _squares(self, tensors: list[Any]) -> Tensor:
        """Sum of squares of each, over all processes where each holds a part."""
        squares = torch.stack([local(t).double().square().sum() for t in tensors])
        return (self.world.sum(squares) if self.sharded else squares).cpu()


def watched_activations(model: nn.Module, task: Task, pattern: str) -> dict[str, dict[str, float]]:
    """`activations_during` some held-out data; nothing for an empty pattern."""
    if not pattern:
        return {}
    device = next(model.parameters()).device
    batch = tuple(part.to(device) for part in task.example_batch(model))
    return activations_during(model, lambda: task.rows(model, batch), pattern)


@torch.no_grad()
def activations_during(model: nn.Module, run: Callable[[], Any], pattern: str = "*") -> dict[str, dict[str, float]]:
    """Of each tap that matches `pattern`, while `run` calls the model in eval mode: root mean square (`rms`), share of
    exact zeros (`zero`), of units that are zero for every token (`silent`), entropy of attention patterns in nats.
    """
    found: dict[str, dict[str, float]] = {}

    def look(name: str, x: Tensor) -> None:
        full = x.detach().float()
        known = full[torch.isfinite(full)]  # masked scores are -inf
        numbers = {"rms": float(known.square().mean().sqrt()), "zero": float((known == 0).float().mean())}
        if name.endswith("feedforward.hidden"):
            numbers["silent"] = float((full.flatten(0, -2) == 0).all(dim=0).float().mean())
        if name.endswith("attention.pattern"):
            numbers["entropy"] = float(torch.special.entr(full).sum(dim=-1).mean())
        found[name] = numbers

    was_training = model.training
    model.eval()
    try:
        with listening(model, pattern, look):
            run()
    finally:
        model.train(was_training)
    return found


def sample_record(model: nn.Module, task: Task, step: int) -> dict[str, Any]:
    """A line of samples.jsonl: what the task draws, as text, and as figures where there are other ones than notes."""
    model.eval()
    with torch.inference_mode():
        figures = task.sample(model, step)
    model.train()
    notes = [figure.text for figure in figures if isinstance(figure, Note)]
    if len(notes) == len(figures):
        return {"step": step, "text": "\n\n".join(notes)}
    from glassformer.figures import to_json, to_text  # rich is loaded for them alone

    return {"step": step, "text": to_text(figures), "figures": to_json(figures)}
