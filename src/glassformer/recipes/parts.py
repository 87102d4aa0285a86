"""The parts of a run, each made from its section of the recipe."""

from __future__ import annotations

import contextlib
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glassformer import __version__
from glassformer.data import (
    TokenBatches,
    TokenStore,
    describe,
    fixed_batches,
    prefetched,
    read_documents,
    tokenizer_for,
)
from glassformer.data.batches import check_length
from glassformer.data.prepare import prepare
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.evaluation.loss import WindowLosses, window_losses
from glassformer.generation import generate
from glassformer.models import Decoder, ModelConfig, flops_per_token
from glassformer.objectives import OBJECTIVES
from glassformer.recipes import derive
from glassformer.recipes.held_out import few_at_once, whole_split
from glassformer.recipes.schema import Recipe, TrainingSection
from glassformer.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.training import (
    Listener,
    LossModule,
    RunFolder,
    Schedule,
    Trainer,
    TrainingSettings,
    Update,
    World,
    build_optimizer,
    choose_device,
    choose_precision,
    set_threads,
)
from glassformer.training.compiling import compiled
from glassformer.training.diagnostics import NEVER_NEGATIVE, activations
from glassformer.training.doctor import text_warnings
from glassformer.training.sharding import shard
from glassformer.training.utilisation import peak_flops

MOST_COUNTED = 20_000_000  # tokens of a text in which the doctor looks for every token of the vocabulary


def build_trainer(
    r: Recipe,
    model: Decoder,
    tokenizer: Tokenizer,
    store: TokenStore,
    machine: dict[str, Any],
    path: Path,
    listeners: tuple[Listener, ...],
    world: World,
) -> Trainer:
    """Everything a run needs, put together; nothing is written yet. The model is spread over processes if asked."""
    t, config = r.training, model.config
    assert t.steps and isinstance(t.batch_size, int) and t.micro_batch_size and t.learning_rate
    assert t.warmup_steps is not None
    batches = TokenBatches(
        store.split("train"),
        block_size=config.block_size,
        batch_size=t.batch_size // world.size,
        seed=t.seed,
        order=r.data.order,
        rank=world.rank,
        world_size=world.size,
    )
    held_out = store.split("validation")
    fixed = fixed_batches(held_out, config.block_size, t.batch_size, t.eval_batches, t.seed) if t.eval_batches else None

    def evaluate() -> tuple[WindowLosses, float]:
        whole, bytes_per_token = whole_split(model, store)
        return window_losses(model, few_at_once(fixed, config, machine["device"]) if fixed else whole), bytes_per_token

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

    def look() -> dict[str, dict[str, float]]:
        pattern = "*" if t.watch_activations else "*.feedforward.hidden"
        if not t.watch_activations and config.activation not in NEVER_NEGATIVE:
            return {}
        ids_BT = next(iter(whole_split(model, store)[0]))[0]
        return activations(model, ids_BT.to(machine["device"]), pattern)

    if t.sharding == "full":
        shard(model, precision=machine["precision"])
    optimizer = build_optimizer(
        t.optimizer,
        model,
        learning_rate=t.learning_rate,
        matrix_learning_rate=t.matrix_learning_rate,
        momentum=t.momentum,
        betas=(t.beta1, t.beta2),
        weight_decay=t.weight_decay,
    )
    loss: torch.nn.Module = LossModule(model, OBJECTIVES[r.objective.kind]())
    if machine["compile"]:
        loss = compiled(loss, machine["device"])
    trainer = Trainer(
        model=model,
        tokenizer=tokenizer,
        update=Update(
            loss,
            optimizer,
            world=world,
            micro_batch_size=t.micro_batch_size,
            grad_clip=t.grad_clip,
            precision=machine["precision"],
        ),
        batches=prefetched(batches, machine["device"]),
        schedule=Schedule(t.schedule, t.steps, t.warmup_steps, t.final_lr_fraction, t.cooldown_fraction),
        settings=TrainingSettings(
            steps=t.steps,
            eval_every=t.eval_every or 0,
            sample_every=t.sample_every or 0,
            checkpoint_every=t.checkpoint_every or 0,
            keep_checkpoints=t.keep_checkpoints,
            whole_split=fixed is None,
            on_divergence=t.on_divergence,
        ),
        run=RunFolder(path),
        evaluate=evaluate,
        sample=sample,
        look=look,
        operations=flops_per_token(config).training,
        peak=peak_flops(machine["device"], machine["precision"]) * world.size,
        listeners=listeners,
    )
    return trainer


def check_lengths(store: TokenStore, block_size: int | None = None) -> None:
    """Raise unless a window of training text and a prediction of held-out text can be had."""
    if block_size is not None:
        check_length(store.split("train"), block_size)
    if (n := len(store.split("validation"))) < 2:
        raise DataError(
            f"{store.meta['source']}: {plural(n, 'token')} held out for validation, and a prediction needs 2; "
            "give more text, or data.validation_fraction=0.1"
        )


def detect_machine(r: Recipe) -> dict[str, Any]:
    """What is detected here, once."""
    device = choose_device(r.training.device)
    threads = set_threads()
    precision = choose_precision(r.training.precision, device)
    compiled = r.training.compile == "on" or (r.training.compile == "auto" and device.startswith("cuda"))
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
    return {
        "device": device,
        "processor": processor(),
        "threads": threads,
        "precision": precision,
        "compile": compiled,
        "torch": torch.__version__,
        "glassformer": __version__,
        "python": sys.version.split()[0],
    }


def differences(machine: dict[str, Any], world: World) -> list[str]:
    """Set the threads that the run had, and tell in what this machine differs so that results may too, by rounding."""
    here = {"processor": processor(), "torch": torch.__version__}
    threads, wanted = set_threads(), machine["threads"]
    if threads >= wanted:
        torch.set_num_threads(wanted)
    else:
        here["threads"] = str(threads)
    return [
        f"{name}: {machine.get(name, 'not told')} before, {now} now: equal to rounding, not to the bit"
        for name, now in here.items()
        if str(machine.get(name)) != now
    ]


def share(t: TrainingSection, world: World) -> None:
    """Every process takes an equal part of each step's sequences.

    Raises:
        UsageError: they cannot be divided.
    """
    assert isinstance(t.batch_size, int) and t.micro_batch_size
    ours, rest = divmod(t.batch_size, world.size)
    if rest:
        raise UsageError(
            f"training.batch_size={t.batch_size} cannot be divided among {world.size} processes; "
            f"try training.batch_size={(ours + 1) * world.size}"
        )
    if t.sharding != "none" and world.size == 1:
        raise UsageError(
            "training.sharding=full spreads weights over processes, and there is one; "
            "start it with: torchrun --nproc-per-node N -m glassformer train ..."
        )
    t.micro_batch_size = min(t.micro_batch_size, ours)


def text_report(r: Recipe, config: ModelConfig, store: TokenStore) -> list[str]:
    """What the doctor says of the text before the first step. A long text is taken to hold every token."""
    assert isinstance(r.training.batch_size, int)
    view = store.split("train")
    counted = len(view) <= MOST_COUNTED
    return text_warnings(
        train_tokens=len(view),
        tokens_a_step=r.training.batch_size * config.block_size,
        seen=len(np.unique(view.gather(np.array([0]), len(view)))) if counted else config.vocab_size,
        vocab_size=config.vocab_size,
    )


def processor() -> str:
    """The name of the processor: another one may round another way."""
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return platform.processor() or platform.machine()


def tokenizer_of(r: Recipe) -> tuple[Tokenizer, list[derive.Choice]]:
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


def store_of(r: Recipe, tokenizer: Tokenizer) -> TokenStore:
    """The text of a recipe in tokens: prepared now, or found in the cache."""
    return prepare(
        r.data.source,
        tokenizer,
        validation_fraction=r.data.validation_fraction,
        text_field=r.data.text_field,
        max_tokens=r.data.max_tokens,
    )
