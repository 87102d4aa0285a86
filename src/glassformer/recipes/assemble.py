"""Put a recipe's parts together and run it; take a run folder apart again and go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glassformer.data import CORPORA, TokenStore
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, DivergenceError, RunError, UsageError, plural
from glassformer.evaluation import LossEstimate, evaluate_loss
from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.loss import window_losses
from glassformer.files import write_json
from glassformer.interchange import load, load_model
from glassformer.models import Decoder, ModelConfig
from glassformer.recipes import derive
from glassformer.recipes.measured import measured_choices
from glassformer.recipes.parts import (
    build_trainer,
    check_lengths,
    detect_machine,
    differences,
    share,
    store_of,
    text_report,
    tokenizer_of,
    whole_split,
)
from glassformer.recipes.plan import predict_run
from glassformer.recipes.record import read_recipe_text, recipe_text
from glassformer.recipes.schema import Recipe, read_recipe
from glassformer.tokenizers import Tokenizer, load_tokenizer
from glassformer.training import (
    Interrupted,
    Listener,
    RunFolder,
    Trainer,
    World,
    choose_device,
    latest_checkpoint,
    load_checkpoint,
    set_threads,
)
from glassformer.training.checkpoints import tokenizer_folder
from glassformer.training.precision import peak_memory
from glassformer.training.report import ReportWriter, write_report
from glassformer.training.tracking import trackers


@dataclass(frozen=True)
class Run:
    """What a finished run came to. `loss` is that of `model/` (the best weights) on the whole validation split."""

    path: Path
    loss: LossEstimate
    best_step: int
    steps: int
    tokens: int
    seconds: float
    parameters: int
    peak_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        loss = {f"val_{key}" if key in ("loss", "bits_per_byte") else key: v for key, v in self.loss.to_dict().items()}
        rest = {key: v for key, v in asdict(self).items() if key not in ("loss", "path")}
        return {"run": str(self.path), **loss, **rest}


def train(
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    listeners: Sequence[Listener] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Run | None:
    """Train by a recipe (built in, or a path; None: sizes follow from the text and the machine).

    Args:
        overrides: `section.key=value`, laid over the recipe. data, seed, device: short for three of them.
        out: the run folder; default `runs/<recipe>-<n>`. tell: is given one line for each thing worth knowing.

    Returns:
        What it came to; under `torchrun` in the main process alone, None in the others.

    Raises:
        UsageError: the recipe or an override is wrong. DataError: the text is. RunError: `out` holds a run.
        Interrupted, DivergenceError: see `Trainer.train`.
    """
    world = World.join()
    with world.telling_who_is_lost():
        run = _train(recipe, list(overrides), data, out, seed, device, listeners, tell, world)
        world.wait_for_all()
    world.leave()
    return run


def resume(
    path: str | os.PathLike[str], *, listeners: Sequence[Listener] = (), tell: Callable[[str], None] = lambda line: None
) -> Run | None:
    """Go on with a run from its newest whole checkpoint (before the first one: from the start), exactly as if it had
    never stopped.

    What the machine decided (precision, compilation, threads) is read from `recipe.toml` and not decided again. The
    number of processes may be another one; then, and on another processor, the rest is equal to rounding.

    Raises:
        RunError: there is no run, no checkpoint is whole, the run is finished, or its text has changed.
    """
    world = World.join()
    with world.telling_who_is_lost():
        run = _resume(path, listeners, tell, world)
        world.wait_for_all()
    world.leave()
    return run


def _train(
    recipe: str | None,
    overrides: list[str],
    data: str | None,
    out: str | os.PathLike[str] | None,
    seed: int | None,
    device: str | None,
    listeners: Sequence[Listener],
    tell: Callable[[str], None],
    world: World,
) -> Run | None:
    asked = {"recipe": recipe or "", "overrides": overrides, "data": data or ""}
    with world.one_first():  # the first process of a machine finds every mistake, and prepares the text for the others
        r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"seed": seed, "device": device}})
        if recipe is None:
            r.name = "stdin" if r.data.source == "-" else Path(r.data.source).stem or "run"
        if recipe is not None or r.model.n_layer is not None:
            derive.model_config(r.model, vocab_size=1)  # what does not fit together is said before the text is read
        path = Path(out) if out is not None else RunFolder.next_free("runs", r.name)
        if world.is_main:
            RunFolder.check_free(path)
        machine = detect_machine(r)
        r.data.source = keep_source(r.data.source)
        tokenizer, choices = tokenizer_of(r)
        store = store_of(r, tokenizer)
        if recipe is None:
            gflops = derive.measure_gflops(machine["device"])
            choices += derive.size_choices(r, len(store.split("train")), tokenizer.vocab_size, gflops)
        config = derive.model_config(r.model, tokenizer.vocab_size)
        check_lengths(store, config.block_size)
        if world.is_main:
            derive.fill_training(r.training)
            least = r.training
            if r.training.batch_size == "auto":
                least = r.training.model_copy(update={"batch_size": world.size, "micro_batch_size": 1})
            derive.check_memory(config, least, machine["device"], world.size)  # before anything is tried
            choices += measured_choices(r.training, config, machine, len(store.split("train")), world)
            share(r.training, world)
    path, r, machine = world.tell_all((path, r, machine))  # what was measured is measured once
    config = derive.model_config(r.model, tokenizer.vocab_size)  # a shape that follows from it is the same for all
    if world.is_main:
        for choice in choices:
            tell(str(choice))
    trainer = _build(r, config, tokenizer, store, machine, path, listeners, world)
    if world.is_main:
        shape = f"{plural(config.n_layer, 'layer')}, {plural(config.n_head, 'head')}, {config.n_embd} wide"
        context = f"{plural(config.block_size, 'token')} of context, {plural(tokenizer.vocab_size, 'logit')}"
        count = plural(trainer.model.parameter_count(), "parameter")
        spread = f"; {world.size} processes" if world.size > 1 else ""
        tell(f"{count}: {config.family}, {shape}, {context}{spread}")
        if r.data.source not in CORPORA and Path(r.data.source).exists():
            r.data.source = str(Path(r.data.source).resolve())  # `resume` may be typed in another folder
        train_split, held_out = store.split("train"), store.split("validation")
        derived = {
            "model": config.model_dump(),
            "choices": [str(choice) for choice in choices],
            "store": store.meta["key"],
            "bigram_loss": bigram_loss(train_split, held_out, tokenizer.vocab_size),
        }
        run = RunFolder.create(path, recipe_text(r, asked=asked, derived=derived, machine=machine))
        sizes = {"train_tokens": len(train_split), "val_tokens": len(held_out), "world_size": world.size}
        write_json(run.plan, predict_run(config, r, machine, **sizes))
        for text in text_report(r, config, store):
            trainer.event("warning", text)
            tell(f"warning: {text}")
    return _go(trainer, store)


def _resume(
    path: str | os.PathLike[str], listeners: Sequence[Listener], tell: Callable[[str], None], world: World
) -> Run | None:
    with world.one_first():
        run = RunFolder.open(path)
        r, rest = read_recipe_text(run)
        if world.is_main:
            run.clear_litter()
        folder, complaints = latest_checkpoint(run)
        machine = rest["machine"]
        choose_device(machine["device"])
        notices = [f"damaged, passed over: {complaint}" for complaint in complaints] + differences(machine, world)
        try:
            tokenizer = tokenizer_of(r)[0] if folder is None else load_tokenizer(tokenizer_folder(folder))
            store = store_of(r, tokenizer)
        except DataError as error:
            raise RunError(f"{run.path}: the text it learns from cannot be read again: {error}") from None
        if store.meta["key"] != rest["derived"]["store"]:
            raise RunError(f"{run.path}: the text {r.data.source} has changed since; put it back, or train anew")
        config = ModelConfig(**rest["derived"]["model"])
        share(r.training, world)
    trainer = _build(r, config, tokenizer, store, machine, run.path, listeners, world)
    if folder is not None:
        state = load_checkpoint(folder, trainer.model, trainer.optimizer, world)
        if state["step"] >= trainer.settings.steps and run.summary.exists():
            raise RunError(
                f"{run.path} is finished ({state['step']} steps); write with it: glassformer generate {run.path}"
            )
        trainer.restore(state)
        if len(state["random"]) != world.size:
            torch.manual_seed(r.training.seed + trainer.step + world.rank)
            notices.append(
                f"{len(state['random'])} processes before, {world.size} now: equal to rounding, not to the bit"
            )
    elif world.is_main:
        run.cut({})
    if world.is_main:
        steps = trainer.settings.steps
        notices.append(
            f"going on after step {trainer.step} of {steps}" if folder else "no checkpoint yet: from the start"
        )
        for notice in notices:
            tell(notice)
            trainer.event("resumed", notice)
    world.wait_for_all()
    return _go(trainer, store)


def _build(
    r: Recipe,
    config: ModelConfig,
    tokenizer: Tokenizer,
    store: TokenStore,
    machine: dict[str, Any],
    path: Path,
    listeners: Sequence[Listener],
    world: World,
) -> Trainer:
    """The trainer at step 0: weights drawn from the seed, the same in every process; then each has its own dropout."""
    torch.manual_seed(r.training.seed)
    model = Decoder(config, **r.training.dropouts)
    if r.training.init != "gpt2":  # what a decoder has anyhow
        model.init_weights(r.training.init)
    model.to(machine["device"])
    watchers = (*listeners, *trackers(r.training.track, RunFolder(path)), ReportWriter())
    heard = watchers if world.is_main else ()
    trainer = build_trainer(r, model, tokenizer, store, machine, path, heard, world)
    if world.size > 1:
        torch.manual_seed(r.training.seed + world.rank)
    return trainer


def evaluate(path: str | os.PathLike[str], *, data: str | None = None) -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole validation split (default: the run's own text).

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, so that `data` is needed.
    """
    set_threads()
    model, tokenizer = load(path)
    recipes = [folder / "recipe.toml" for folder in (Path(path), *Path(path).resolve().parents[:2])]
    r = next((read_recipe_text(RunFolder(recipe.parent))[0] for recipe in recipes if recipe.is_file()), None)
    if r is None:
        if data is None:
            raise UsageError(f"{path} belongs to no run; name a text with --data")
        r = Recipe()
    r.data.source = r.data.source if data is None else keep_source(data)
    store = store_of(r, tokenizer)
    check_lengths(store)
    batches, bytes_per_token = whole_split(model, store)
    return evaluate_loss(model, batches, bytes_per_token=bytes_per_token)


def _go(trainer: Trainer, store: TokenStore) -> Run | None:
    """Train, then measure. The main process has the result, others None."""
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
    best, run, world = trainer.best, trainer.run, trainer.world
    assert best is not None  # the last step always evaluates
    if not world.is_main:
        return None
    if trainer.settings.whole_split:
        estimate = LossEstimate(**best["estimate"])
    else:
        batches, bytes_per_token = whole_split(trainer.model, store)
        losses = window_losses(load_model(run.model, device=str(trainer.update.device)), batches)
        losses.save(run.windows)
        estimate = losses.estimate(bytes_per_token)
    result = Run(
        run.path,
        estimate,
        best["step"],
        trainer.step,
        trainer.tokens,
        round(trainer.seconds, 3),
        trainer.model.parameter_count(),
        peak_memory(str(trainer.update.device)),
    )
    write_json(run.summary, result.to_dict())
    write_report(run)
    return result
