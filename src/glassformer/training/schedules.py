"""Schedules: what part of the learning rate holds at a step. All warm up linearly; they differ in how they come down.

cosine   ╱‾‾╲       linear   ╱╲        wsd   ╱‾‾‾‾╲      constant   ╱‾‾‾‾‾
        ╱    ╲__            ╱  ╲__          ╱      ╲__             ╱
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from glassformer.errors import UsageError, did_you_mean


def _cosine(done: float, cooldown: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _linear(done: float, cooldown: float) -> float:
    """A straight line from 1 to 0."""
    return 1 - done


def _wsd(done: float, cooldown: float) -> float:
    """Warm up, stay, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395): down only in the last `cooldown`."""
    return min(1.0, (1 - done) / cooldown) if cooldown > 0 else 1.0


def _constant(done: float, cooldown: float) -> float:
    """No way down."""
    return 1.0


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
    "constant": _constant,
}


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate at each step: 0 < factor <= 1.

    kind: one of SCHEDULES. steps: of the whole run. warmup_steps: linear on the way up. final_fraction: where the way
    down ends. cooldown_fraction: how much of the run the way down of `wsd` takes.
    """

    kind: str
    steps: int
    warmup_steps: int = 0
    final_fraction: float = 0.1
    cooldown_fraction: float = 0.4

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise UsageError(f"training.schedule={self.kind!r} is unknown; {did_you_mean(self.kind, SCHEDULES)}")

    def __call__(self, step: int) -> float:
        """The factor for step `step` (the first is 0)."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return self.final_fraction + (1 - self.final_fraction) * SCHEDULES[self.kind](done, self.cooldown_fraction)
