"""Schedules: the factor on the learning rate at a step. All warm up linearly; they differ in how they come down.

cosine   ╱‾‾╲       linear   ╱╲        wsd   ╱‾‾‾‾╲      constant   ╱‾‾‾‾‾      noam   ╱╲_
        ╱    ╲__            ╱  ╲__          ╱      ╲__             ╱                  ╱   ‾‾‾──
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from glassformer.errors import UsageError, did_you_mean


def _cosine(step: int, s: Schedule) -> float:
    """Half a cosine from 1 to the end (Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, eq. 5)."""
    return s.above_end(0.5 * (1 + math.cos(math.pi * s.done(step))))


def _linear(step: int, s: Schedule) -> float:
    """A straight line from 1 to the end."""
    return s.above_end(1 - s.done(step))


def _wsd(step: int, s: Schedule) -> float:
    """Warm up, stay, decay (Hu et al. 2024, https://arxiv.org/abs/2404.06395): down in the last `cooldown_fraction`."""
    cooldown = s.cooldown_fraction
    return s.above_end(min(1.0, (1 - s.done(step)) / cooldown) if cooldown > 0 else 1.0)


def _constant(step: int, s: Schedule) -> float:
    """It stays at 1."""
    return 1.0


def _noam(step: int, s: Schedule) -> float:
    """With the inverse root of the step, whatever the length of the run: Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, eq. 3, named after its author Noam Shazeer.

    The paper's rate is n_embd^-0.5 min(n^-0.5, n W^-1.5) at step n = 1, 2, ...; with W = warmup_steps + 1 that is its
    peak, (n_embd W)^-0.5, times this factor. So `learning_rate` is the peak: 7e-4 for the paper's base model.
    """
    return math.sqrt((s.warmup_steps + 1) / (step + 1))


SCHEDULES: dict[str, Callable[[int, Schedule], float]] = {  # the factor from the end of the warm-up on
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
    "constant": _constant,
    "noam": _noam,
}


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate at each step: 0 < factor <= 1."""

    kind: str  # one of SCHEDULES
    steps: int  # of the whole run
    warmup_steps: int = 0  # of the linear way up
    final_fraction: float = 0.1  # where cosine, linear and wsd end
    cooldown_fraction: float = 0.4  # the part of the run in which wsd comes down

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise UsageError(f"training.schedule={self.kind!r} is unknown; {did_you_mean(self.kind, SCHEDULES)}")

    def __call__(self, step: int) -> float:
        """The factor for step `step` (the first is 0)."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return SCHEDULES[self.kind](step, self)

    def same_until(self, other: Schedule, step: int) -> bool:
        """Whether both give the same factors before this step."""
        return all(self(i) == other(i) for i in range(step))

    def done(self, step: int) -> float:
        """The part of the steps after the warm-up that is done: 0 to 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))

    def above_end(self, height: float) -> float:
        """1 for a height of 1, `final_fraction` for 0."""
        return self.final_fraction + (1 - self.final_fraction) * height


@dataclass(frozen=True)
class Extended:
    """A schedule that another one replaces after `step` updates.

    Where both agree up to there (`constant`, `noam`, `wsd` before its way down), the run is one planned so from the
    beginning. Otherwise the rate is lower than in a run of the new length: it warms up again, linearly over
    `rewarm_steps`, to the rate of that run and comes down with it (re-warming and re-decaying: Ibrahim et al. 2024,
    https://arxiv.org/abs/2403.08763, section 4).
    """

    before: Schedule | Extended
    after: Schedule
    step: int
    rewarm_steps: int = field(init=False)

    def __post_init__(self) -> None:
        planned = isinstance(self.before, Schedule) and self.before.same_until(self.after, self.step)
        rewarm = 0 if planned or not self.step else max(1, (self.after.steps - self.step) // 10)
        object.__setattr__(self, "rewarm_steps", rewarm)

    def __call__(self, step: int) -> float:
        """The factor for step `step` (the first is 0)."""
        if step < self.step:
            return self.before(step)
        factor, warmed = self.after(step), step - self.step + 1
        if warmed > self.rewarm_steps:
            return factor
        left = self.before(self.step - 1)
        return left + (factor - left) * warmed / (self.rewarm_steps + 1)

    def __str__(self) -> str:
        s, kind = self.after, self.after.kind
        if not self.rewarm_steps:
            return f"the schedule {kind} of {s.steps:,} steps, as if it had been planned so from the beginning"
        low, high = self.before(self.step - 1), self(self.step + self.rewarm_steps)
        return (
            f"the rate warms up again from {low:.3g} to {high:.3g} of its peak over {self.rewarm_steps:,} steps, then "
            f"follows the schedule {kind} of {s.steps:,} steps"
        )
