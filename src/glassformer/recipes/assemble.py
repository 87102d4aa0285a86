"""Put a recipe's parts together and train; open what was trained to measure it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from glassformer.data import CORPORA
from glassformer.data.readers import keep_source
from glassformer.errors import UsageError, plural
from glassformer.evaluation import LossEstimate
from glassformer.files import write_json
from glassformer.hub import load_labels, load_model, model_folder_of
from glassformer.models import ModelConfig, kind_of
from glassformer.recipes import derive, finetuning
from glassformer.recipes.measured import measured_choices, thread_choice
from glassformer.recipes.parts import detect_machine, share
from glassformer.recipes.prediction import predict_run
from glassformer.recipes.record import plugins_of, recipe_of, recipe_text
from glassformer.recipes.running import Run, new_model, run_to_its_end, trainer_for
from glassformer.recipes.schema import Recipe, read_recipe
from glassformer.recipes.start import Start
from glassformer.recipes.task import Task, open_task
from glassformer.recipes.text_task import TextTask
from glassformer.renamed import old_arguments
from glassformer.threads import set_threads, use_threads
from glassformer.training import Callback, RunFolder, Trainer, World, write_report

ROUNDING = 1e-3  # nats: less is no rise of a loss


@old_arguments(listeners="callbacks", tell="log")
def train(
    recipe: str | None = None,
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
    """Train by a recipe (built in, or a path; None: sizes follow from the text and the machine).

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
    world = World.join()
    with world.lost_process_errors():
        run = _train(recipe, list(overrides), data, out, seed, device, callbacks, log, world, started)
        world.barrier()
    world.leave()
    return run


class Choices:
    """What was chosen. Nothing is told before `show`, so that a mistake stays one line; then each choice at once, for
    some take a minute to find out."""

    def __init__(self, log: Callable[[str], None]):
        self.log, self.all, self.shown = log, list[derive.Choice](), False

    def add(self, choices: Iterable[derive.Choice]) -> None:
        for choice in choices:
            self.all.append(choice)
            if self.shown:
                self.log(str(choice))

    def show(self) -> None:
        """Log what was chosen so far."""
        self.shown = True
        for choice in self.all:
            self.log(str(choice))


def _train(
    recipe: str | None,
    overrides: list[str],
    data: str | None,
    out: str | os.PathLike[str] | None,
    seed: int | None,
    device: str | None,
    callbacks: Sequence[Callback],
    log: Callable[[str], None],
    world: World,
    started: float,
) -> Run | None:
    asked = {"recipe": recipe or "", "overrides": overrides, "data": data or ""}
    choices = Choices(log if world.is_main else lambda line: None)
    with world.main_first():  # the first process of a machine finds every mistake, and prepares the text for the others
        r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"seed": seed, "device": device}})
        if recipe is None:
            r.name = "stdin" if r.data.source == "-" else Path(r.data.source).stem or "run"
        start = None if r.training.start_from is None else Start.open(r.training.start_from)
        _check_shape(r, start, fresh=recipe is None)
        path = Path(out) if out is not None else RunFolder.next_free("runs", r.name)
        if world.is_main:
            RunFolder.check_free(path)
        machine = detect_machine(r)
        r.data.source = keep_source(r.data.source)
        task, found = open_task(r)
        choices.add(found)
        _fill_in(r, task, start, machine["device"], choices, overrides, fresh=recipe is None)
        config = _shape(r, task, start)
        task.check(config)
        if world.is_main:
            _fit_the_machine(r, task, config, machine, world, choices)
            share(r.training, world)
    path, r, machine = world.broadcast((path, r, machine))  # what was measured is measured once
    task.r = r
    use_threads(machine["threads"])
    config = _shape(r, task, start)  # what follows from that is the same for all
    model, taken = new_model(r, config, task, start)
    trainer = trainer_for(r, model, task, machine, path, callbacks, world)
    if world.is_main:
        choices.add(taken)
        count = plural(trainer.model.parameter_count(), "parameter")
        spread = f"; {world.size} processes" if world.size > 1 else ""
        log(f"{count}: {derive.shape_in_words(config)}{spread}")
        _make_portable(r)
        derived = {
            "kind": kind_of(config),
            "model": config.model_dump(),
            "choices": [str(choice) for choice in choices.all],
            "store": task.key,
            "n_answers": task.n_answers,
            **task.derived(),
        }
        before = _loss_before(trainer, task, log) if start is not None and world.size == 1 else None
        modules = plugins_of(r, config)
        plugged = {"plugins": modules} if modules else {}
        run = RunFolder.create(path, recipe_text(r, asked=asked, derived=derived, machine=machine, **plugged))
        if isinstance(config, ModelConfig) and isinstance(task, TextTask):
            as_trained = derive.as_trained(config, r.training)
            about: Any = {"sizes": task.sizes(), "tokenizer": task.tokenizer, "world_size": world.size}
            write_json(run.plan, predict_run(as_trained, r, machine, **about, started=started))
        for text in task.warnings(config):
            trainer.event("warning", text)
            log(f"warning: {text}")
    done = run_to_its_end(trainer, task, started)
    if world.is_main and before is not None and trainer.best and trainer.best["estimate"]["loss"] > before + ROUNDING:
        worse = (
            f"the validation loss was {before:.4f} before the first step and was never that low again: try a tenth of "
            "training.learning_rate, or fewer steps"
        )
        trainer.event("warning", worse)
        write_report(trainer.run)
        log(f"warning: {worse}")
    return done


def _loss_before(trainer: Trainer, task: Task, log: Callable[[str], None]) -> float:
    """What the model to start from scores on the data of the run, measured as the run will be."""
    loss = trainer.evaluate().estimate().loss
    log(f"validation loss before the first step: {loss:.4f}")
    return loss


def _check_shape(r: Recipe, start: Start | None, *, fresh: bool) -> None:
    """Find what does not fit together before the text is read."""
    if start is not None:
        r.training.start_from = start.name
        start.configuration(r, {"n_classes": 1})
    elif not fresh or r.model.get("n_layer") is not None:
        derive.model_config(r, **derive.PLACEHOLDERS)


def _shape(r: Recipe, task: Task, start: Start | None) -> Any:
    """The configuration, from the recipe, the data, and the model to start from."""
    if start is None:
        return derive.model_config(r, **task.facts())
    return start.configuration(r, start.facts(task.facts(), task.tokenizer, task.source_tokenizer))[0]


def _fill_in(
    r: Recipe, task: Task, start: Start | None, device: str, choices: Choices, asked: list[str], *, fresh: bool
) -> None:
    """What is not set, from the data, this machine and the model to start from. asked: the overrides. fresh: there is
    no recipe."""
    if start is not None:
        choices.add(start.tokenizer_choices(r, task.tokenizer, task.source_tokenizer))
        facts = start.facts(task.facts(), task.tokenizer, task.source_tokenizer)
        config, changes = start.configuration(r, facts)
        choices.add(changes)
        if fresh and isinstance(task, TextTask):
            gflops = derive.typical_gflops(device)
            choices.add(finetuning.text_choices(r, config, **task.sizes(), gflops=gflops))
        elif fresh:
            choices.add(finetuning.example_choices(r, task.n_train))
        choices.add(finetuning.rate_choices(r, config))
    elif fresh and isinstance(task, TextTask) and r.model.kind in (None, "decoder"):
        gflops = derive.typical_gflops(device)
        choices.add(derive.size_choices(r, task.n_train, task.tokenizer.vocab_size, gflops))
    elif fresh and not isinstance(task, TextTask):
        choices.add(derive.example_choices(r, task.n_train, task.longest))
    choices.add(derive.optimizer_choices(r))
    derive.check_optimizer_keys(r.training, asked)
    if start is None:
        choices.add(derive.init_choice(r, derive.model_config(r, **task.facts())))


def _fit_the_machine(
    r: Recipe, task: Task, config: Any, machine: dict[str, Any], world: World, choices: Choices
) -> None:
    """What follows from memory and from trying things here."""
    t = r.training
    derive.fill_training(t)
    choices.add(thread_choice(t, config, machine, world.size))
    if isinstance(config, ModelConfig) and isinstance(task, TextTask):
        config = derive.as_trained(config, t)
        least = t.model_copy(update={"batch_size": world.size, "micro_batch_size": 1}) if t.batch_size == "auto" else t
        derive.check_memory(config, least, machine["device"], world.size)  # before anything is tried
        choices.show()
        choices.add(measured_choices(t, config, machine, task.n_train, world, choices.log))
    elif t.batch_size == "auto":
        raise UsageError("training.batch_size=auto is measured for decoders on texts; give a number here")
    else:
        choices.show()


def _make_portable(r: Recipe) -> None:
    """Absolute paths in place of relative ones: `resume` may be typed in another folder."""
    t = r.tokenizer
    if r.data.source not in CORPORA and not Path(r.data.source).exists() and "," in r.data.source:
        files = [Path(name) for name in r.data.source.split(",")]
        if all(file.exists() for file in files):  # sources and targets, line by line
            r.data.source = ",".join(str(file.resolve()) for file in files)
    elif r.data.source not in CORPORA and Path(r.data.source).exists():
        r.data.source = str(Path(r.data.source).resolve())
    if t.path is not None and Path(t.path).exists():
        t.path = str(Path(t.path).resolve())


def evaluate(path: str | os.PathLike[str], *, data: str | None = None, split: str = "validation") -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole split (default: validation, of the run's own data).

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, and `data` is missing or the model is no decoder.
    """
    model, task = open_run(path, data)
    return task.evaluate(model, whole=True, split=split).estimate()


def open_run(path: str | os.PathLike[str], data: str | None = None) -> tuple[Any, Task]:
    """The model of a run, a checkpoint or a model folder, and the data that it is measured on.

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, and `data` is missing or the model is no decoder.
    """
    set_threads()
    folder = model_folder_of(path)
    model = load_model(folder)
    r = recipe_of(path)
    if r is None:
        if data is None:
            raise UsageError(f"{path} belongs to no run; name a text with --data")
        if "next_token" not in model.answers:
            raise UsageError(
                f"{path} belongs to no run, and its {type(model).__name__} does not continue texts, so that no loss on "
                "a text can be measured; evaluate a run: glassformer train ... training.start_from=" + str(path)
            )
        r = Recipe()
    r.data.source = r.data.source if data is None else keep_source(data)
    task, _ = open_task(r, folder, load_labels(folder))
    task.check(None)
    return model, task
