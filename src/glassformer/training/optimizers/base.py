"""What all optimizers share: parameters by name, and a state that is a plain table of tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.errors import RunError

Named = dict[str, nn.Parameter]


class Optimizer:
    """Updates parameters by their gradients; its state is a table of tensors for each of its parts, by name.

    Subclasses fill `state`, {part: {name of the parameter: tensor}}, and write `step`.
    """

    kind = ""

    def __init__(self, parameters: Named, learning_rate: float):
        self.parameters, self.learning_rate = parameters, learning_rate
        self.state: dict[str, dict[str, Tensor]] = {}

    def step(self, factor: float = 1.0) -> None:
        """One update with the gradients as they are, at `factor` times the learning rate."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        """All state as `KIND.PART.NAME`, such as `adamw.mean.head.weight`."""
        parts = self.state.items()
        return {f"{self.kind}.{part}.{name}": tensor for part, table in parts for name, tensor in table.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy a saved state into place.

        Raises:
            RunError: a tensor is missing or has another shape.
        """
        for name, tensor in self.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                raise RunError(f"the checkpoint has no optimizer state {name} of shape {tuple(tensor.shape)}")
            tensor.copy_(state[name])

    def with_gradient(self) -> Named:
        """The parameters that have a gradient."""
        return {name: p for name, p in self.parameters.items() if p.grad is not None}


class Together(Optimizer):
    """Several optimizers that step as one; the learning rate is that of the first."""

    def __init__(self, *parts: Optimizer):
        super().__init__({name: p for part in parts for name, p in part.parameters.items()}, parts[0].learning_rate)
        self.parts = parts

    def step(self, factor: float = 1.0) -> None:
        for part in self.parts:
            part.step(factor)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor for part in self.parts for name, tensor in part.state_dict().items()}


def zeros_like(parameters: Named) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) for name, p in parameters.items()}


def gradient(p: nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


def own_part(x: Tensor) -> Tensor:
    """A tensor itself, or this rank's shard of a `DTensor`: enough for what works number by number."""
    return x.to_local() if hasattr(x, "to_local") else x
