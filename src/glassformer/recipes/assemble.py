"""Put a recipe's parts together and run it; take a run folder apart again and go on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from glassformer import __version__
from glassformer.data import (
    CORPORA,
    TokenBatches,
    TokenStore,
    describe,
    fixed_batches,
    read_documents,
    tokenizer_for,
    windows,
)
from glassformer.data.batches import check_length
from glassformer.data.prepare import prepare
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, RunError, UsageError, did_you_mean, plural
from glassformer.evaluation import LossEstimate, evaluate_loss
from glassformer.files import write_json
from glassformer.generation import generate
from glassformer.interchange import load, load_model
from glassformer.models import Decoder
from glassformer.objectives import OBJECTIVES
from glassformer.recipes import derive
from glassformer.recipes.schema import SECTIONS, Recipe, read_recipe, tomllib
from glassformer.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.training import (
    Listener,
    RunFolder,
    Schedule,
    Trainer,
    TrainingSettings,
    build_optimizer,
    choose_device,
    choose_precision,
    latest_checkpoint,
    load_checkpoint,
    set_threads,
)

EVAL_WINDOW = 256  # evaluation reads the split in consecutive windows of at most this, every target once
EVAL_TOKENS = {"cpu": 4_096, "cuda": 65_536}  # at once; a CPU's cache holds no more


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
) -> Run:
    """Train by a recipe (built in, or a path; None: sizes follow from the text and the machine).

    Args:
        overrides: `section.key=value`, laid over the recipe. data, seed, device: short for three of them.
        out: the run folder; default `runs/<recipe>-<n>`. tell: is given one line for each thing worth knowing.

    Raises:
        UsageError: the recipe or an override is wrong. DataError: the text is. RunError: `out` holds a run.
        Interrupted, DivergenceError: see `Trainer.train`.
    """
    overrides = list(overrides)
    asked = {"recipe": recipe or "", "overrides": overrides, "data": data or ""}
    r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"seed": seed, "device": device}})
    if recipe is None:
        r.name = "stdin" if r.data.source == "-" else Path(r.data.source).stem or "run"
    if recipe is not None or r.model.n_layer is not None:
        derive.model_config(r.model, vocab_size=1)  # what does not fit together is said before the text is read
    path = Path(out) if out is not None else RunFolder.next_free("runs", r.name)
    RunFolder.check_free(path)
    machine = _machine(r)
    r.data.source = keep_source(r.data.source)
    tokenizer, choices = _tokenizer(r)
    store = _store(r, tokenizer)
    if recipe is None:
        gflops = derive.measure_gflops(machine["device"])
        choices += derive.size_choices(r, len(store.split("train")), tokenizer.vocab_size, gflops)
    derive.fill_training(r.training)
    config = derive.model_config(r.model, tokenizer.vocab_size)
    _check_lengths(store, config.block_size)
    derive.check_memory(config, r.training, machine["device"])
    for choice in choices:
        tell(str(choice))
    torch.manual_seed(r.training.seed)
    model = Decoder(config, dropout=r.training.dropout)
    if r.training.init != "gpt2":  # what a decoder has anyhow
        model.init_weights(r.training.init)
    model.to(machine["device"])
    shape = f"{plural(config.n_layer, 'layer')}, {plural(config.n_head, 'head')}, {config.n_embd} wide"
    context = f"{plural(config.block_size, 'token')} of context, {plural(tokenizer.vocab_size, 'logit')}"
    tell(f"{plural(model.parameter_count(), 'parameter')}: {config.family}, {shape}, {context}")
    trainer = _trainer(r, model, tokenizer, store, machine, path, tuple(listeners))
    derived = {"model": config.model_dump(), "choices": [str(choice) for choice in choices], "store": store.meta["key"]}
    if r.data.source not in CORPORA and Path(r.data.source).exists():
        r.data.source = str(Path(r.data.source).resolve())  # `resume` may be typed in another folder
    RunFolder.create(path, _recipe_text(r, asked=asked, derived=derived, machine=machine))
    return _go(trainer, store)


def resume(
    path: str | os.PathLike[str], *, listeners: Sequence[Listener] = (), tell: Callable[[str], None] = lambda line: None
) -> Run:
    """Go on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    What the machine decided (precision, compilation, threads) is read from `recipe.toml` and not decided again.

    Raises:
        RunError: there is no run, no whole checkpoint, the run is finished, or its text has changed.
    """
    run = RunFolder.open(path)
    r, rest = _read_recipe_text(run)
    folder, complaints = latest_checkpoint(run)
    for complaint in complaints:
        tell(f"damaged, passed over: {complaint}")
    machine = rest["machine"]
    choose_device(machine["device"])
    torch.set_num_threads(machine["threads"])
    tokenizer = load_tokenizer(folder / "model")
    try:
        store = _store(r, tokenizer)
    except DataError as error:
        raise RunError(f"{run.path}: the text it learns from cannot be read again: {error}") from None
    if store.meta["key"] != rest["derived"]["store"]:
        raise RunError(f"{run.path}: the text {r.data.source} has changed since; put it back, or train anew")
    model = Decoder(load_model(folder / "model").config, dropout=r.training.dropout).to(machine["device"])
    trainer = _trainer(r, model, tokenizer, store, machine, run.path, tuple(listeners))
    state = load_checkpoint(folder, model, trainer.optimizer)
    if state["step"] >= trainer.settings.steps:
        raise RunError(
            f"{run.path} is finished ({state['step']} steps); write with it: glassformer generate {run.path}"
        )
    trainer.restore(state)
    tell(f"going on after step {trainer.step} of {trainer.settings.steps}")
    return _go(trainer, store)


def evaluate(path: str | os.PathLike[str], *, data: str | None = None) -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole validation split (default: the run's own text).

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, so that `data` is needed.
    """
    set_threads()
    model, tokenizer = load(path)
    recipes = [folder / "recipe.toml" for folder in (Path(path), *Path(path).resolve().parents[:2])]
    r = next((_read_recipe_text(RunFolder(recipe.parent))[0] for recipe in recipes if recipe.is_file()), None)
    if r is None:
        if data is None:
            raise UsageError(f"{path} belongs to no run; name a text with --data")
        r = Recipe()
    r.data.source = r.data.source if data is None else keep_source(data)
    store = _store(r, tokenizer)
    _check_lengths(store)
    batches, bytes_per_token = _whole(model, store)
    return evaluate_loss(model, batches, bytes_per_token=bytes_per_token)


def _go(trainer: Trainer, store: TokenStore) -> Run:
    try:
        trainer.train()
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"the model cannot be compiled here ({reason}); try training.compile=off") from error
    best, run = trainer.best, trainer.run
    assert best is not None  # the last step always evaluates
    if trainer.settings.whole_split:
        estimate = LossEstimate(**best["estimate"])
    else:
        batches, bytes_per_token = _whole(trainer.model, store)
        estimate = evaluate_loss(
            load_model(run.model, device=str(trainer.device)), batches, bytes_per_token=bytes_per_token
        )
    result = Run(
        run.path,
        estimate,
        best["step"],
        trainer.step,
        trainer.tokens,
        round(trainer.seconds, 3),
        trainer.model.parameter_count(),
    )
    write_json(run.path / "summary.json", result.to_dict())
    return result


def _trainer(
    r: Recipe,
    model: Decoder,
    tokenizer: Tokenizer,
    store: TokenStore,
    machine: dict[str, Any],
    path: Path,
    listeners: tuple[Listener, ...],
) -> Trainer:
    t, config = r.training, model.config
    assert t.steps and t.batch_size and t.micro_batch_size and t.learning_rate and t.warmup_steps is not None
    batches = TokenBatches(store.split("train"), block_size=config.block_size, batch_size=t.batch_size, seed=t.seed)
    held_out = store.split("validation")
    fixed = (
        list(
            fixed_batches(
                held_out, block_size=config.block_size, batch_size=t.batch_size, n=t.eval_batches, seed=t.seed
            )
        )
        if t.eval_batches
        else None
    )

    def evaluate() -> LossEstimate:
        if fixed:
            return evaluate_loss(model, fixed, bytes_per_token=held_out.bytes / len(held_out))
        batches, bytes_per_token = _whole(model, store)
        return evaluate_loss(model, batches, bytes_per_token=bytes_per_token)

    def sample() -> str:
        settings: dict[str, Any] = {
            "max_new_tokens": t.sample_tokens,
            "temperature": 0.8,
            "seed": t.seed + trainer.step,
        }
        model.eval()
        text = generate(model, tokenizer, t.sample_prompt, **settings)[0].text
        model.train()
        return t.sample_prompt + text

    trainer = Trainer(
        model=model,
        tokenizer=tokenizer,
        objective=OBJECTIVES[r.objective.kind](),
        batches=batches,
        optimizer=build_optimizer(
            t.optimizer,
            model,
            learning_rate=t.learning_rate,
            matrix_learning_rate=t.matrix_learning_rate,
            momentum=t.momentum,
            betas=(t.beta1, t.beta2),
            weight_decay=t.weight_decay,
        ),
        schedule=Schedule(t.schedule, t.steps, t.warmup_steps, t.final_lr_fraction, t.cooldown_fraction),
        settings=TrainingSettings(
            steps=t.steps,
            micro_batch_size=t.micro_batch_size,
            grad_clip=t.grad_clip,
            eval_every=t.eval_every or 0,
            sample_every=t.sample_every or 0,
            checkpoint_every=t.checkpoint_every or 0,
            keep_checkpoints=t.keep_checkpoints,
            precision=machine["precision"],
            whole_split=fixed is None,
        ),
        run=RunFolder(path),
        evaluate=evaluate,
        sample=sample,
        forward=torch.compile(model, dynamic=False) if machine["compile"] else None,
        listeners=listeners,
    )
    return trainer


def _whole(model: Decoder, store: TokenStore) -> tuple[Iterator[tuple[torch.Tensor, torch.Tensor]], float]:
    """The whole validation split in windows, and its bytes per token."""
    held_out = store.split("validation")
    T = min(model.config.block_size, EVAL_WINDOW)
    batch_size = max(1, EVAL_TOKENS[next(model.parameters()).device.type] // T)
    return windows(held_out, block_size=T, batch_size=batch_size), held_out.bytes / len(held_out)


def _check_lengths(store: TokenStore, block_size: int | None = None) -> None:
    """Raise unless a window of training text and a prediction of held-out text can be had."""
    if block_size is not None:
        check_length(store.split("train"), block_size)
    if (n := len(store.split("validation"))) < 2:
        raise DataError(
            f"{store.meta['source']}: {plural(n, 'token')} held out for validation, and a prediction needs 2; "
            "give more text, or data.validation_fraction=0.1"
        )


def _machine(r: Recipe) -> dict[str, Any]:
    """What is detected here, once."""
    device = choose_device(r.training.device)
    threads = set_threads()
    precision = choose_precision(r.training.precision, device)
    compiled = r.training.compile == "on" or (r.training.compile == "auto" and device.startswith("cuda"))
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
    return {
        "device": device,
        "threads": threads,
        "precision": precision,
        "compile": compiled,
        "torch": torch.__version__,
        "glassformer": __version__,
        "python": sys.version.split()[0],
    }


def _tokenizer(r: Recipe) -> tuple[Tokenizer, list[derive.Choice]]:
    """Load the tokenizer that is named, or make it from the text."""
    t, choices = r.tokenizer, []
    if t.path is not None and t.kind is None:
        return load_tokenizer(t.path), []
    if t.kind is None or (t.kind == "bpe" and t.vocab_size is None):
        info = describe(r.data.source, text_field=r.data.text_field)
        if t.kind is None:
            alphabet: set[str] = set()
            if info.bytes is not None and info.bytes < derive.SMALL_TEXT:
                pieces = read_documents(r.data.source, text_field=r.data.text_field)
                alphabet = set().union(*(set(piece.text) for piece in pieces))
            choices.append(derive.tokenizer_choice(info.bytes, len(alphabet)))
            t.kind = choices[-1].value
        if t.kind == "bpe" and t.vocab_size is None:
            choices.append(derive.vocab_size_choice(info.bytes))
            t.vocab_size = choices[-1].value
    if t.kind not in TOKENIZERS:
        raise UsageError(f"tokenizer.kind={t.kind!r} is unknown; {did_you_mean(str(t.kind), TOKENIZERS)}")
    tokenizer = tokenizer_for(
        r.data.source,
        t.kind,
        vocab_size=t.vocab_size,
        path=t.path,
        text_field=r.data.text_field,
        validation_fraction=r.data.validation_fraction,
    )
    return tokenizer, choices


def _store(r: Recipe, tokenizer: Tokenizer) -> TokenStore:
    return prepare(
        r.data.source,
        tokenizer,
        validation_fraction=r.data.validation_fraction,
        text_field=r.data.text_field,
        max_tokens=r.data.max_tokens,
    )


def _recipe_text(r: Recipe, **rest: Any) -> str:
    """recipe.toml: the recipe with every value in it, then what was asked, derived and decided."""
    return tomli_w.dumps(_without_none({**r.model_dump(), **rest}))


def _read_recipe_text(run: RunFolder) -> tuple[Recipe, dict[str, Any]]:
    try:
        data = tomllib.loads(run.recipe.read_text(encoding="utf-8"))
        rest = {key: data.pop(key) for key in list(data) if key not in (*SECTIONS, "name")}
        machine, derived = rest["machine"], rest["derived"]
        missing = [key for key in ("device", "threads", "precision", "compile") if key not in machine]
        if missing or "store" not in derived:
            raise KeyError((missing or ["store"])[0])
        return Recipe.model_validate(data), {"machine": machine, "derived": derived}
    except (ValueError, KeyError, TypeError) as error:
        line = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).splitlines()[:3])
        raise RunError(f"{run.recipe}: damaged or edited ({line}); put it back to resume") from None


def _without_none(value: Any) -> Any:
    """TOML has no null: leave such keys out."""
    if isinstance(value, dict):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    return value
