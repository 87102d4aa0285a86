"""`train`: a recipe is read, resolved, and run to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glassformer.data import CORPORA, EXAMPLE_SETS
from glassformer.data.chat_sets import CHAT_SETS
from glassformer.data.readers import keep_source
from glassformer.errors import DivergenceError, RunError, plural
from glassformer.evaluation import LossEstimate, Metrics
from glassformer.evaluation.estimate import finite
from glassformer.files import write_json
from glassformer.hub import load_model
from glassformer.recipes.draft import Draft
from glassformer.recipes.machine import detect_machine
from glassformer.recipes.opening import open_task
from glassformer.recipes.plan import write_plan
from glassformer.recipes.reading import read_recipe
from glassformer.recipes.recipe_file import recipe_text
from glassformer.recipes.resolve import check_shape, open_start, resolve
from glassformer.recipes.resolved import ResolvedRecipe
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import shape_in_words
from glassformer.recipes.trainer import build_trainer, new_model
from glassformer.renamed import old_arguments
from glassformer.tasks import TASKS, Choice, Score, Task
from glassformer.training import Callback, Interrupted, RunFolder, Trainer, World, write_report
from glassformer.training.devices import peak_memory

OF_VALIDATION = ("loss", "bits_per_byte", "accuracy")  # what summary.json calls val_...
ROUNDING = 1e-3  # of a score: less is no loss of quality


@dataclass(frozen=True)
class Run:
    """What a finished run came to."""

    path: Path
    loss: LossEstimate | None
    """of `model/` (the best weights) on the whole validation split; None where the task measures no loss"""
    best_step: int
    steps: int
    tokens: int
    seconds: float
    """in the loop, over all sittings"""
    parameters: int
    peak_memory_bytes: int
    command: str = "generate"
    """of `glassformer`, which uses such a model ("": none does)"""
    train_loss: LossEstimate | None = None
    """on a part of the training split; None in runs of older versions"""
    whole_seconds: float | None = None
    """from the command on, of a run in one sitting"""
    metrics: Metrics = field(default_factory=lambda: Metrics({}))
    """all that was measured on the validation split"""
    score: Score = field(default_factory=Score)
    """by which the best weights were chosen"""

    def to_dict(self) -> dict[str, Any]:
        skipped = ("loss", "train_loss", "path", "command", "metrics", "score")
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}
        return {"run": str(self.path), **self._measured(), **rest}

    def _measured(self) -> dict[str, Any]:
        if self.loss is None:
            values = {f"val_{name}": metric.value for name, metric in self.metrics.values.items()}
            score = self.metrics[self.score.metric]
            return {**values, "n": score.n, "interval": finite(score.interval)}
        loss = {f"val_{key}" if key in OF_VALIDATION else key: v for key, v in self.loss.to_dict().items()}
        if self.train_loss is not None:
            train = self.train_loss.to_dict()
            loss |= {"train_loss_eval": train["loss"], "train_interval": train["interval"], "train_n": train["n"]}
        return loss


@old_arguments(listeners="callbacks", tell="log")
def train(
    recipe: str | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
    log: Callable[[str], None] = lambda line: None,
    started: float | None = None,
) -> Run | None:
    """Train by a recipe (built in, a path, or tables as a file has them; None: sizes follow from the text and the
    machine).

    Args:
        overrides: `section.key=value`, laid over the recipe. data, seed, device: short for three of them.
        out: the run folder; default `runs/<recipe>-<n>`. log: is given one line for each thing worth knowing.
        started: `time.perf_counter()` when the command began, if that was before this call; start-up counts too.

    Returns:
        What it came to; under `torchrun` in the main process alone, None in the others.

    Raises:
        UsageError: the recipe or an override is wrong. DataError: the text is. RunError: `out` holds a run.
        Interrupted, DivergenceError: see `Trainer.train`.
    """
    started = time.perf_counter() if started is None else started
    overrides, world = list(overrides), World.join()
    log = log if world.is_main else lambda line: None
    named = recipe if isinstance(recipe, str) else (recipe or {}).get("name", "")
    asked = {"recipe": named, "overrides": overrides, "data": data or ""}
    flags: dict[str, dict[str, Any]] = {"data": {"source": data}, "training": {"seed": seed, "device": device}}
    with world.lost_process_errors():
        with world.main_first():  # the main process finds mistakes and decides; the others find the text prepared
            draft, fresh = Draft(read_recipe(recipe, overrides, flags), log), recipe is None
            if fresh:
                source = draft.recipe.data.source
                name = "stdin" if source == "-" else Path(source).stem or "run"
                draft.recipe = draft.recipe.model_copy(update={"name": name})
            start = open_start(draft)
            check_shape(draft, fresh=fresh)
            path = Path(out) if out is not None else RunFolder.next_free("runs", draft.recipe.name)
            if world.is_main:
                RunFolder.check_free(path)
            machine = detect_machine(draft.recipe)
            draft.recipe = draft.recipe.with_values({"data.source": keep_source(draft.recipe.data.source)})
            task, found = open_task(draft.recipe)
            draft.add(found)
            resolved = resolve(draft, task, start, machine, world, overrides, fresh=fresh) if world.is_main else None
        path, resolved = world.broadcast((path, resolved))
        assert resolved is not None
        task = task.with_run(resolved.training.run_settings_on(resolved.machine))
        task.log = log
        resolved.machine.use()
        model, taken = new_model(resolved, task, start)
        trainer = build_trainer(resolved, model, task, path, callbacks, world)
        before = None
        if world.is_main:
            draft.note(taken)
            before = _begin(resolved, task, trainer, draft.choices, asked, log, started)
        run = finish(trainer, task, started)
        if world.is_main and before is not None:
            _warn_if_worse(trainer, before, log)
        world.barrier()
    world.leave()
    return run


def _begin(
    r: ResolvedRecipe,
    task: Task,
    trainer: Trainer,
    choices: list[Choice],
    asked: dict[str, Any],
    log: Callable[[str], None],
    started: float,
) -> float | None:
    """Make the run folder with recipe.toml and plan.json. Returns the score before the first step, of a run
    that starts from a model."""
    world, before = trainer.world, None
    count = plural(trainer.model.parameter_count(), "parameter")
    spread = f"; {world.size} processes" if world.size > 1 else ""
    log(f"{count}: {shape_in_words(r.config)}{spread}")
    if r.training.start_from is not None and world.size == 1:
        before = task.evaluate(trainer.model, whole=trainer.settings.whole_split)[task.score.metric].value
        log(f"{task.score.words} before the first step: {before:.4f}")
    derived = {
        "choices": [str(choice) for choice in choices],
        "store": task.source.key,
        "n_answers": task.n_answers,
        "score": None if task.score == Score() else task.score._asdict(),
        **task.facts(),
    }
    run = RunFolder.create(trainer.run.path, recipe_text(_portable(r), derived=derived, asked=asked))
    write_plan(run, r, task, world.size, started)
    for text in task.warnings():
        trainer.event("warning", text)
        log(f"warning: {text}")
    return before


def finish(trainer: Trainer, task: Task, started: float | None = None) -> Run | None:
    """Train to the end, then measure. The main process has the result, others None.

    started: `time.perf_counter()` when the command began, of a run in one sitting.
    """
    try:
        trainer.train()
    except (Interrupted, DivergenceError):
        if trainer.world.is_main:
            write_report(trainer.run)
        raise
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"the model cannot be compiled here ({reason}); try training.compile=off") from error
    best, run, device = trainer.best, trainer.run, str(trainer.train_step.device)
    if best is None:  # the last step always evaluates
        raise DivergenceError(
            f"{run.path}: no evaluation gave a finite {task.score.words}, so there is no model/; "
            "try half of training.learning_rate, or training.precision=fp32"
        )
    if not trainer.world.is_main:
        return None
    if trainer.settings.whole_split:
        metrics = Metrics.from_dict(best["metrics"])
    else:
        metrics = task.evaluate(load_model(run.model, device=device))
        if metrics.windows is not None:
            metrics.windows.save(run.windows)
    result = Run(
        path=run.path,
        loss=metrics.loss_estimate(),
        best_step=best["step"],
        steps=trainer.step,
        tokens=trainer.tokens,
        seconds=round(trainer.seconds, 3),
        parameters=trainer.model.parameter_count(),
        peak_memory_bytes=peak_memory(device),
        command=task.command,
        train_loss=Metrics.from_dict(best["train"]).loss_estimate() if best.get("train") else None,
        whole_seconds=None if started is None else round(time.perf_counter() - started, 3),
        metrics=metrics,
        score=task.score,
    )
    write_json(run.summary, result.to_dict())
    write_report(run)
    return result


def _warn_if_worse(trainer: Trainer, before: float, log: Callable[[str], None]) -> None:
    score = trainer.task.score
    if trainer.best and score.gain(trainer.best["metrics"][score.metric][0], before) < -ROUNDING:
        was = f"the {score.words} was {before:.4f} before the first step and was never that good again"
        worse = f"{was}: try a tenth of training.learning_rate, or fewer steps"
        trainer.event("warning", worse)
        write_report(trainer.run)
        log(f"warning: {worse}")


def _portable(r: ResolvedRecipe) -> ResolvedRecipe:
    return r.with_values(absolute_paths(r))


def absolute_paths(r: Recipe) -> dict[str, str]:
    """Keys that name files or folders, with absolute paths: `resume` may be typed in another folder."""
    source, path = r.data.source, r.tokenizer.path
    parts = [source] if Path(source).exists() else source.split(",")  # several sets, or sources and targets
    values = {"data.source": ",".join(map(_absolute, parts))}
    if path is not None and Path(path).exists():
        values["tokenizer.path"] = str(Path(path).resolve())
    named = {key: str(r.task.settings.get(key)) for key in TASKS[r.task.kind].paths}
    return values | {f"task.{key}": str(Path(name).resolve()) for key, name in named.items() if Path(name).exists()}


def _absolute(source: str) -> str:
    known = source in CORPORA or source in EXAMPLE_SETS or source.strip() in CHAT_SETS
    return source if known or not Path(source).exists() else str(Path(source).resolve())
