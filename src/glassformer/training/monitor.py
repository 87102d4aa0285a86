"""The monitor: notices when training goes wrong, names the cause and the next step.

Two kinds of finding. A *divergence* (a NaN, or a loss that jumped and stays up) ends the run or rolls it back. A
*warning* goes into events.jsonl once: overfitting, a learning rate too high, units that died, tokens never
seen, too little text.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping
from typing import Any

NORMS_KEPT = 5  # gradient norms before a divergence that the report shows
MEMORY = 0.95  # of the smoothed loss
SETTLING = 20  # steps before a jump differs from the start
DEVIATIONS = 8.0  # usual ones above the smoothed loss
LOST = 0.25  # and this part of all that the run has gained, where the task sets no `alarm`
PATIENCE = 3  # steps on end, or evaluations on end
TOO_FAST = 0.1  # update as a part of the weight, in the median over matrices; healthy runs lie near 0.001 to 0.01
SILENT = 0.2  # share of a layer's units that never answer
ON_DIVERGENCE = ("stop", "skip", "lower")  # training.on_divergence
MAX_RECOVERIES = 5
INTERVALS = 9  # between evaluations, whose metrics a task may judge: the first one and the last ones


class DivergenceMonitor:
    """Watches the losses of one run. Its state is part of a checkpoint, so that a resumed run finds the same.

    alarm: a rise smaller than this is never a divergence, in the unit of the loss (`Task.alarm`). None: a quarter
    of what the run has gained so far. Nothing else here depends on the unit.
    """

    def __init__(self, alarm: float | None = None, *, higher_is_better: bool = False) -> None:
        self.alarm, self.higher_is_better = alarm, higher_is_better
        self.start: float | None = None  # the first loss
        self.lowest = 0.0  # of the smoothed losses
        self.mean = 0.0  # smoothed loss
        self.deviation = 0.0  # smoothed distance from it
        self.steps = 0
        self.high = 0  # steps on end far above it
        self.norms: list[float] = []
        # [step, validation score, smoothed training loss, training score in eval mode (None: older versions)]
        self.evaluations: list[list[Any]] = []
        self.given: list[str] = []  # warnings given already
        self.recoveries = 0
        self.sums: dict[str, list[float]] = {}  # of the metrics since the last evaluation, and how many steps
        self.intervals: list[dict[str, float]] = []  # their means, and what the evaluation found

    def measured(self, metrics: Mapping[str, float]) -> None:
        """Take note of a step's metrics."""
        for name, value in metrics.items():
            total, steps = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, steps + 1]

    def history(self, evaluation: Mapping[str, float | None]) -> list[dict[str, float]]:
        """What `Task.causes` judges, with this evaluation; empty where steps have no metrics."""
        if self.sums:
            steps = max(steps for _, steps in self.sums.values())
            means = {name: total / n for name, (total, n) in self.sums.items()}
            found = {name: value for name, value in evaluation.items() if name.startswith("val_") and value is not None}
            rows = [*self.intervals, {"steps": steps, **means, **found}]
            self.intervals = rows[:1] + rows[1:][1 - INTERVALS :]
            self.sums = {}
        return self.intervals

    def divergence(self, loss: float, norm: float) -> str | None:
        """What is wrong with this step, before its update is done; None when all is well."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss:.4g}, gradient norm {norm:.4g}"
        distance = loss - self.mean if self.steps else 0.0
        far = self.steps >= SETTLING and distance > max(self._least_rise(), DEVIATIONS * self.deviation)
        self.high = self.high + 1 if far else 0
        if self.high >= PATIENCE:
            return f"the loss rose from {self.mean:.4g} to {loss:.4g} and stayed up for {self.high} steps"
        if not far:
            self.mean = MEMORY * self.mean + (1 - MEMORY) * loss if self.steps else loss
            self.deviation = MEMORY * self.deviation + (1 - MEMORY) * abs(distance)
            self.steps += 1
            if self.start is None:
                self.start = self.lowest = self.mean
            self.lowest = min(self.lowest, self.mean)
        self.norms = [*self.norms, norm][-NORMS_KEPT:]
        return None

    def _least_rise(self) -> float:
        if self.alarm is not None:
            return self.alarm
        return 0.0 if self.start is None else LOST * (self.start - self.lowest)

    def warnings(
        self,
        step: int,
        training: float | None,
        validation: float | None,
        parameters: dict[str, dict[str, float]],
        silent: dict[str, float],
        causes: Mapping[str, str] | None = None,
    ) -> list[str]:
        """What an evaluation shows, each cause once a run.

        Args:
            training, validation: the score of both splits in eval mode; None when it is no finite number.
            parameters: what `StepDiagnostics.record` gave. silent: share of dead units by layer.
            causes: those that the task names (`Task.causes`).
        """
        if validation is not None:
            self.evaluations = [*self.evaluations, [step, validation, self.mean, training]][-64:]
        not_finite = (
            f"the validation score after step {step} is not a finite number, so these weights are not kept in model/; "
            "try half of training.learning_rate, or training.precision=fp32"
        )
        found = [
            ("not finite", not_finite if validation is None else None),
            ("overfitting", self._overfitting()),
            ("rate", self._too_fast(parameters)),
            ("dead", _dead(silent)),
            *((f"task.{name}", text) for name, text in (causes or {}).items()),
        ]
        new = [(kind, text) for kind, text in found if text is not None and kind not in self.given]
        self.given += [kind for kind, _ in new]
        return [text for _, text in new]

    def _overfitting(self) -> str | None:
        if not self.evaluations or self.higher_is_better:  # a score such as a reward is no loss to compare
            return None
        best = min(range(len(self.evaluations)), key=lambda i: self.evaluations[i][1])
        since = self.evaluations[best:]
        rising = len(since) > PATIENCE and all(b[1] > a[1] for a, b in zip(since[-4:], since[-3:], strict=False))
        (first, low, _, train), (_, high, _, now) = since[0], since[-1]
        if not rising or train is None or now is None or now >= train:
            return None
        return (
            f"overfitting since step {first:.0f}: validation rises ({low:.4g} to {high:.4g}) while training falls "
            f"({train:.4g} to {now:.4g}); the weights of step {first:.0f} are kept in model/; "
            "try training.dropout=0.2, fewer steps or a smaller model"
        )

    def _too_fast(self, parameters: dict[str, dict[str, float]]) -> str | None:
        if len(self.evaluations) < 2 or not parameters:
            return None
        ratio = statistics.median(row["update"] for row in parameters.values())
        if not ratio >= TOO_FAST or self.mean < self.evaluations[-2][2]:
            return None
        return (
            f"learning rate too high: a step changes the weights by {ratio:.0%} of their size, and the training loss "
            f"no longer falls ({self.evaluations[-2][2]:.4g} to {self.mean:.4g}); try half of training.learning_rate"
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, JSON-able; a copy, since a thread writes it while the loop goes on."""
        return copy.deepcopy({k: v for k, v in vars(self).items() if k not in ("alarm", "higher_is_better")})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; recoveries are counted over the whole run, also over a roll-back."""
        recoveries = max(self.recoveries, state.get("recoveries", 0))
        vars(self).update(state)
        self.evaluations = [[*row, None][:4] for row in self.evaluations]
        self.recoveries = recoveries


def _dead(silent: dict[str, float]) -> str | None:
    worst = max(silent, key=lambda name: silent[name], default=None)
    if worst is None or silent[worst] < SILENT:
        return None
    return (
        f"dead units: {silent[worst]:.0%} of {worst} answer to no token of the validation batch; try a lower "
        "training.learning_rate, more warm-up, or model.activation=gelu"
    )
