"""What a run will cost, by rehearsal: its first steps on its own data, timed, and thrown away.

For tasks whose cost `recipes.plan` cannot count beforehand: rows of any length, pictures, sounds, episodes, roll-outs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glassformer.data.readers import keep_source
from glassformer.models import parameters_by_part
from glassformer.recipes.draft import Draft
from glassformer.recipes.machine import detect_machine
from glassformer.recipes.opening import open_task
from glassformer.recipes.probe import no_traces
from glassformer.recipes.reading import read_recipe
from glassformer.recipes.resolve import check_shape, open_start, resolve
from glassformer.recipes.shape import shape_in_words
from glassformer.recipes.trainer import build_trainer, new_model
from glassformer.tasks import Task
from glassformer.training import Trainer, World, available_memory
from glassformer.training.devices import peak_memory, resident_bytes

SECONDS = 5.0  # of steps, about; at least two are made, however long they take


@dataclass(frozen=True)
class Rehearsal:
    """What was measured, and what follows from it. Bytes are of one device, seconds of the whole command."""

    recipe: str
    shape: str
    device: str
    memory: int | None
    """bytes of the device; None: unknown"""
    parameters: int
    parameters_by_part: dict[str, int]
    steps: int
    rows_per_step: int
    targets_per_step: float
    """that a loss was computed of, mean of the steps timed"""
    steps_timed: int
    seconds_per_step: float
    seconds: float
    seconds_by_part: dict[str, float]
    peak_memory_bytes: int
    """of the process during the rehearsal, libraries and data included"""
    memory_before_bytes: int
    """that it held before the model was built"""
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every field by its name."""
        return asdict(self)


def rehearse(
    recipe: str | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    device: str | None = None,
    seconds: float = SECONDS,
    started: float | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Rehearsal:
    """Make the first steps and one evaluation of what `train` with the same words would do, and time them. Nothing is
    kept, and nothing is written but prepared data.

    Args:
        seconds: of steps, about. started: `time.perf_counter()` when the command began, if that was before this call.
        log: is given one line before what may take long.

    Raises:
        UsageError, DataError, DeviceError: as `train`.
    """
    started = time.perf_counter() if started is None else started
    overrides = list(overrides)
    flags: dict[str, dict[str, Any]] = {"data": {"source": data}, "training": {"device": device}}
    draft, fresh = Draft(read_recipe(recipe, overrides, flags)), recipe is None
    start = open_start(draft)
    check_shape(draft, fresh=fresh)
    machine = detect_machine(draft.recipe)
    draft.recipe = draft.recipe.with_values({"data.source": keep_source(draft.recipe.data.source)})
    task, found = open_task(draft.recipe)
    draft.add(found)
    r = resolve(draft, task, start, machine, World(), overrides, fresh=fresh)
    t, held = r.training, resident_bytes()
    task = task.with_run(t.run_settings_on(r.machine))
    with no_traces(r.machine):
        r.machine.use()
        model, taken = new_model(r, task, start)
        untracked = r.model_copy(update={"training": t.model_copy(update={"track": ()})})
        trainer = build_trainer(untracked, model, task, Path("rehearsal"), (), World())  # which writes when it trains
        counts = parameters_by_part(model)
        before = time.perf_counter() - started
        log(f"making some steps of {r.name} ...")
        times, targets = _steps(trainer, seconds)
        evaluation = _evaluation(task, model, whole=not t.eval_batches, log=log) if t.eval_every else 0.0
    step = statistics.fmean(times[1:] or times)
    parts = {
        "start": before + max(0.0, times[0] - step),
        "steps": t.steps * step,
        # the last step always evaluates, and a run ends with a whole split
        "evaluations": evaluation * ((-(-t.steps // t.eval_every) if t.eval_every else 0) + 1),
    }
    return Rehearsal(
        recipe=r.name,
        shape=shape_in_words(r.config),
        device=r.machine.device,
        memory=available_memory(r.machine.device),
        parameters=sum(counts.values()),
        parameters_by_part=counts,
        steps=t.steps,
        rows_per_step=t.batch_size,
        targets_per_step=statistics.fmean(targets),
        steps_timed=len(times[1:] or times),
        seconds_per_step=step,
        seconds=sum(parts.values()),
        seconds_by_part=parts,
        peak_memory_bytes=peak_memory(r.machine.device),
        memory_before_bytes=held,
        notes=[*map(str, draft.choices), *map(str, taken), *task.warnings()],
    )


def _steps(trainer: Trainer, seconds: float) -> tuple[list[float], list[int]]:
    """Seconds and targets of each step; the first warms up."""
    times: list[float] = []
    targets: list[int] = []
    until = time.perf_counter() + seconds
    trainer.model.train()
    while len(times) < 2 or time.perf_counter() < until:
        started = time.perf_counter()
        result = trainer.train_step.forward_backward(next(trainer.batches)).read()
        trainer.train_step.optimizer_step(result, 1.0)
        trainer.train_step.clear()
        times.append(time.perf_counter() - started)
        targets.append(result.targets)
    return times, targets


def _evaluation(task: Task, model: Any, whole: bool, log: Callable[[str], None]) -> float:
    """Seconds of one evaluation as it is made during the run."""
    log("making one evaluation ...")
    started = time.perf_counter()
    task.evaluate(model, whole=whole)
    return time.perf_counter() - started
