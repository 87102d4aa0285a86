"""What nobody set: the shape from the dial, and everything from the amount of text and the machine.

Each rule gives its reason; the reasons are printed and kept in `recipe.toml`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from glassformer.errors import DataError, DeviceError, UsageError, did_you_mean, plural
from glassformer.models import (
    MODELS,
    SIZES,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    config_fields,
    dial,
    kinds_that_answer,
    make_config,
)
from glassformer.recipes.memory import memory_plan
from glassformer.recipes.probe import tokens_per_second
from glassformer.recipes.schema import Recipe, TrainingSection
from glassformer.tasks import OBJECTIVES
from glassformer.tasks.cross_entropy import rows_at_once
from glassformer.threads import processors
from glassformer.training import OPTIMIZERS, available_memory
from glassformer.training.precision import resident_bytes
from glassformer.training.utilisation import peak_flops

MINUTES = 5.0  # what a run with no recipe may take
UTILISATION = 0.4  # of the measured product speed; the rest goes into small operations
GFLOPS_A_CORE = {"AVX512": 80.0, "AVX2": 50.0}  # of fp32 products, by the capability that PyTorch reports
SMALL_TEXT = 5_000_000  # bytes; up to here characters are good enough
LEAST_TOKENS = 200  # of text to learn from, for a run with no recipe
LARGEST_STEP = 524_288  # tokens; GPT-3's smaller models took as many (Brown et al. 2020, table 2.1)
PASSES = 20  # how often a text may be read before more reading only learns it by heart


# stand for what the data will decide, to find mistakes before they are read
PLACEHOLDERS = {
    "vocab_size": 3,
    "source_vocab_size": 3,
    "start_token": 0,
    "end_token": 1,
    "pad_token": 2,
    "n_classes": 2,
}


@dataclass(frozen=True)
class Choice:
    """One derived value and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}  ({self.why})"


def kind_for(r: Recipe) -> str:
    """The kind of model that a recipe names, or else what its objective asks first.

    Raises:
        UsageError: this kind cannot be asked that.
    """
    kinds = kinds_that_answer(OBJECTIVES[r.task.kind].asks)
    kind = r.model.kind or kinds[0]
    if kind == "n-gram":
        raise UsageError("model.kind=n-gram is counted and not trained; see: glassformer compare-history --help")
    if kind not in kinds:
        raise UsageError(f"model.kind={kind} cannot be asked for task.kind={r.task.kind}; use {' or '.join(kinds)}")
    return kind


def is_transformer(kind: str) -> bool:
    """Whether a model of this kind is made of blocks, so that sizes, the dial and families mean something to it."""
    return issubclass(MODELS[kind][0], (ModelConfig, EncoderDecoderConfig))


def heads_for(r: Recipe, kind: str) -> dict[str, str]:
    """What an encoder's head over its tokens chooses from: a matter of what is asked."""
    head = {"masked_token": "vocabulary", "token_class": "classes"}.get(OBJECTIVES[r.task.kind].asks, "none")
    return {"token_head": head} if kind == "encoder" else {}


def facts_for(r: Recipe, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Of what the data decide (`Task.facts`), the fields of this kind's configuration."""
    known = set(config_fields(kind))
    if facts.get("source_vocab_size") == facts.get("vocab_size"):
        known.discard("source_vocab_size")  # one vocabulary for both
    if OBJECTIVES[r.task.kind].asks == "masked_token":
        known.discard("n_classes")
    return {key: value for key, value in facts.items() if key in known}


def model_config(r: Recipe, **facts: Any) -> Any:
    """The full configuration of a fresh model of the recipe's kind: what is set stands; `size` fills in, then the dial
    `n_layer`, then the family; `facts` are what the data decide (`Task.facts`), of which each kind takes what it knows.

    Raises:
        UsageError: something does not fit.
    """
    kind = kind_for(r)
    given, base = r.model.fields, dict[str, Any]()
    if is_transformer(kind):
        base = {"family": "classic", "block_size": 256}
        if r.model.size is not None:
            base |= named_size(r.model.size)
        elif n_layer := given.get("n_layer"):
            derived = dial(n_layer)
            if "n_embd" in given and "n_head" not in given:
                derived["n_head"] = max(1, given["n_embd"] // 64)
            base |= derived
        else:
            base |= dial(6)
    elif r.model.size is not None:
        raise UsageError(f"model.size={r.model.size!r} is that of a Transformer; give model.kind={kind} its own sizes")
    return checked_stem(make_config(kind, **{**base, **heads_for(r, kind), **given, **facts_for(r, kind, facts)}))


def named_size(name: str) -> dict[str, Any]:
    """The fields of a size by name.

    Raises:
        UsageError: there is no such size.
    """
    if name not in SIZES:
        raise UsageError(f"model.size={name!r} is unknown; {did_you_mean(name, SIZES)}")
    return SIZES[name]


def checked_stem(config: Any) -> Any:
    """The configuration again.

    Raises:
        UsageError: it reads images or sound, and every source of data gives texts.
    """
    if config.reads != "text":
        raise UsageError(
            f"model.stem={config.reads} reads {'images' if config.reads == 'patches' else 'sound'}, and recipes learn "
            "from texts; leave it out, or train such a model from Python (glassformer.training)"
        )
    return config


def sequence_length(config: Any, t: TrainingSection) -> int:
    """Tokens of a training sequence: as many as the model reads, or fewer.

    Raises:
        UsageError: more than it reads.
    """
    reads: int = config.block_size
    if t.sequence_length is not None and t.sequence_length > reads:
        raise UsageError(
            f"training.sequence_length={t.sequence_length} is more than the model reads (model.block_size={reads}); "
            f"use {reads} or less"
        )
    return t.sequence_length or reads


def as_trained(config: ModelConfig, t: TrainingSection) -> ModelConfig:
    """The configuration whose block_size is the length of a training sequence: what time and memory follow from."""
    return config.model_copy(update={"block_size": sequence_length(config, t)})


def shape_in_words(config: Any) -> str:
    """A configuration in a line."""
    if isinstance(config, ModelConfig):
        shape = f"{plural(config.n_layer, 'layer')}, {plural(config.n_head, 'head')}, {config.n_embd} wide"
        context = f"{plural(config.block_size, 'token')} of context"
        said = "" if isinstance(config, EncoderConfig) else f", {plural(config.vocab_size, 'logit')}"
        return f"{config.family}, {shape}, {context}{said}"
    if isinstance(config, EncoderDecoderConfig):
        e, d = config.encoder, config.decoder
        shape = f"{e.n_layer} + {plural(d.n_layer, 'layer')}, {plural(d.n_head, 'head')}, {d.n_embd} wide"
        return f"{d.family}, {shape}, {plural(d.block_size, 'token')} at most, {plural(d.vocab_size, 'logit')}"
    sizes = config.model_dump(exclude={"kind"}, exclude_none=True)
    return f"{config.kind}, " + ", ".join(f"{name} {value}" for name, value in sizes.items())


def tokenizer_choice(n_bytes: int | None, n_characters: int | None) -> Choice:
    """Characters while the alphabet is small and the text too; else byte-level BPE, growing with the text. None: a
    hub dataset, whose size is not known before it is read."""
    if n_bytes is None:
        return Choice("tokenizer.kind", "bpe", "a dataset of unknown size")
    if n_bytes < SMALL_TEXT and (n_characters or 0) <= 256:
        return Choice("tokenizer.kind", "characters", f"{n_characters} different characters in {_mb(n_bytes)} of text")
    if n_bytes < SMALL_TEXT:
        return Choice("tokenizer.kind", "bpe", f"{n_characters} different characters, too many for one token each")
    return Choice("tokenizer.kind", "bpe", f"{_mb(n_bytes)} of text, more than characters are good for")


def vocab_size_choice(n_bytes: int | None) -> Choice:
    """A power of two between 512 and 32768: about the square root of the bytes, so that tokens are seen often."""
    if n_bytes is None:
        return Choice("tokenizer.vocab_size", 32_768, "a dataset of unknown size")
    size = 2 ** round(math.log2(max(512.0, min(32_768.0, math.sqrt(n_bytes)))))
    return Choice("tokenizer.vocab_size", size, f"a power of two near the square root of {n_bytes:,} bytes")


def chooser(recipe: Recipe, choices: list[Choice]) -> Callable[[str, str, Any, str], Any]:
    """A function that sets `section.name` where the recipe does not, notes that in `choices`, and gives what holds."""

    def choose(section: str, name: str, value: Any, why: str) -> Any:
        if section == "model":
            if recipe.model.get(name) is None:
                recipe.model.set(name, value)
                choices.append(Choice(f"model.{name}", value, why))
            return recipe.model.get(name)
        if getattr(recipe.training, name) is None or name not in recipe.training.model_fields_set:
            setattr(recipe.training, name, value)
            choices.append(Choice(f"training.{name}", value, why))
        return getattr(recipe.training, name)

    return choose


def size_choices(recipe: Recipe, train_tokens: int, vocab_size: int, gflops: float) -> list[Choice]:
    """Sizes for a run with no recipe: what fits into a few minutes here and does not outgrow the text.

    Raises:
        DataError: the text is too short to learn anything from.
    """
    if train_tokens < LEAST_TOKENS and recipe.model.get("block_size") is None:
        raise DataError(
            f"{recipe.data.source}: {plural(train_tokens, 'token')} to train on, too few to learn from "
            f"(at least {LEAST_TOKENS}); give more text, a few pages at the least"
        )
    m = recipe.model
    choices: list[Choice] = []
    choose = chooser(recipe, choices)

    budget = MINUTES * 60 * gflops * 1e9 * UTILISATION  # floating-point operations
    why_budget = f"{MINUTES:g} minutes at about {gflops:.0f} GFLOP/s"
    choose("model", "family", "modern", "rotary, RMSNorm, gated feed-forward and QK-norm learn faster")
    longest = max(2, train_tokens // 20)
    block = choose(
        "model", "block_size", min(128, 2 ** int(math.log2(longest))), f"context, for {train_tokens:,} tokens of text"
    )
    if m.size is None:
        # 6 N D operations for N parameters and D tokens; 20 tokens a parameter suits both (Hoffmann et al. 2022)
        for_machine, for_text = math.sqrt(budget / 120), train_tokens * PASSES / 20
        room = min(for_machine, for_text)
        depth = next((n for n in range(12, 1, -1) if 12 * n * (64 * n) ** 2 <= room), 1)
        limit = (
            f"{why_budget}, 20 tokens a parameter," if for_machine < for_text else f"{train_tokens:,} tokens of text"
        )
        at_most = f"{limit} leave room for {_amount(room)} parameters"
        choose("model", "n_layer", max(2, depth), at_most if depth > 1 else f"the smallest shape: {at_most}")
        if depth == 1 and m.get("n_embd") is None:
            choose("model", "n_embd", 64, "little text")
            choose("model", "n_head", 2, "heads of 32")
    batch = choose("training", "batch_size", max(1, 2048 // block), "about 2,048 tokens a step")
    n = model_config(recipe, vocab_size=vocab_size).parameter_count()
    tokens = min(budget / (6 * n), train_tokens * PASSES)
    reason = why_budget if budget / (6 * n) < train_tokens * PASSES else f"{PASSES} passes over the text"
    choose("training", "steps", max(20, round(tokens / (batch * block))), f"{_amount(tokens)} tokens: {reason}")
    for name, value, why in (
        ("optimizer", "muon", "needs about half the steps of AdamW"),
        ("schedule", "wsd", "warm up, stay, and come down at the end"),
        ("final_lr_fraction", 0.05, "where the way down ends"),
    ):
        choose("training", name, value, why)
    return choices


def example_choices(recipe: Recipe, n_examples: int, longest: int) -> list[Choice]:
    """Sizes for a run on examples with no recipe: small, for a few minutes on two cores.

    longest: tokens of the text that all but a twentieth of the examples do not exceed.
    """
    m, t = recipe.model, recipe.training
    choices: list[Choice] = []
    choose = chooser(recipe, choices)

    big = n_examples >= 5_000
    if is_transformer(kind_for(recipe)):
        choose("model", "family", "modern", "rotary, RMSNorm, gated feed-forward and QK-norm learn faster")
        if m.get("n_embd") is None and m.get("n_head") is None:
            choose("model", "n_head", 4, "heads of a quarter of the width")
    choose("model", "n_layer", 3 if big else 2, f"{n_examples:,} examples")
    choose("model", "n_embd", 192 if big else 96, f"{n_examples:,} examples")
    room = 2 ** math.ceil(math.log2(max(16, longest + 2)))
    choose("model", "block_size", min(256, room), f"19 of 20 texts have at most {longest} tokens")
    choose("training", "batch_size", 32 if n_examples >= 640 else max(1, n_examples // 20), "examples a step")
    batch_size = t.batch_size if isinstance(t.batch_size, int) else 32
    choose("training", "steps", max(20, min(4_000, 10 * n_examples // batch_size)), "ten passes, 4,000 steps at most")
    for name, value, why in (("optimizer", "muon", "needs about half the steps of AdamW"), ("schedule", "linear", "")):
        choose("training", name, value, why or "down to the end")
    return choices


def optimizer_choices(r: Recipe) -> list[Choice]:
    """Muon moves the matrices of blocks; a model without blocks is AdamW's alone, and its recipe says so."""
    if is_transformer(kind_for(r)) or r.training.optimizer != "muon":
        return []
    r.training.optimizer = "adamw"
    return [Choice("training.optimizer", "adamw", "Muon is for the blocks of a Transformer")]


def check_optimizer_keys(t: TrainingSection, overrides: Iterable[str]) -> None:
    """Refuse a setting on the command line that belongs to another optimizer than the one in use.

    Raises:
        UsageError: it would change nothing.
    """
    given = {override.partition("=")[0].strip().removeprefix("training.") for override in overrides}
    known = set().union(*OPTIMIZERS.values())
    for key in sorted(given & known - set(OPTIMIZERS[t.optimizer])):
        owners = " and ".join(name for name, keys in OPTIMIZERS.items() if key in keys)
        raise UsageError(
            f"training.{key} belongs to {owners}, and training.optimizer is {t.optimizer}; leave it out, or set "
            f"training.optimizer"
        )


def init_choice(r: Recipe, config: Any) -> list[Choice]:
    """`training.init` of a model with sinusoidal positions, where the recipe does not say: that of 2017, whose tables
    have a deviation of C^-1/2, which `embedding_scale` makes one; GPT-2's 0.02 is small beside sines (the table of
    positions in `docs/shapes.md`)."""
    stacks = [getattr(config, side, config) for side in ("encoder", "decoder")]
    sines = any(getattr(c, "positions", "") == "sinusoidal" for c in stacks)
    if not sines or "init" in r.training.model_fields_set:
        return []
    r.training.init = "xavier"
    return [Choice("training.init", "xavier", "embeddings as large as the sines of their positions")]


def batch_size_choice(
    config: ModelConfig,
    t: TrainingSection,
    train_tokens: int,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    world_size: int = 1,
) -> Choice:
    """`training.batch_size=auto`: the largest power of two a device that memory, speed and text have room for.

    Doubled while (1) the planned peak leaves a tenth of the free memory, (2) tokens a second, measured here, still grow
    by a twentieth, and (3) a step reads at most a hundredth of the text, and at most half a million tokens: beyond,
    larger steps buy little (McCandlish et al. 2018, https://arxiv.org/abs/1812.06162).

    Raises:
        DeviceError: not even one sequence fits.
    """
    free = available_memory(device)
    room = None if free is None else free + (resident_bytes() if device == "cpu" else 0)
    best, speed, why = 0, 0.0, ""
    while not why:
        tried = best * 2 or 1
        tokens = tried * world_size * config.block_size
        if best and tokens > min(train_tokens / 100, LARGEST_STEP):
            limit = f"a hundredth of {train_tokens:,} tokens of text"
            why = limit if train_tokens / 100 < LARGEST_STEP else "half a million tokens a step are enough"
            break
        planned = t.model_copy(update={"batch_size": tried * world_size, "micro_batch_size": tried})
        peak = memory_plan(config, planned, device=device, precision=precision, world_size=world_size).peak
        if room is not None and peak > 0.9 * room:
            why = f"{tried} at once would take {_gb(peak)} of the {_gb(room)} there are"
            break
        rate = tokens_per_second(config, planned, tried, device=device, precision=precision)
        if rate < 1.05 * speed:
            why = f"{tried} at once are no faster: {rate:,.0f} tokens/s after {speed:,.0f}"
            break
        best, speed = tried, rate
    if not best:
        raise DeviceError(f"not even one sequence fits: {why}; try a smaller model.block_size or model.n_layer")
    return Choice("training.batch_size", best * world_size, f"{speed:,.0f} tokens/s measured here; {why}")


def check_memory(config: ModelConfig, t: TrainingSection, device: str, world_size: int = 1) -> None:
    """Refuse, before anything is built, what cannot fit: the system would end the process with no word about why.

    Counted is what is certainly needed (weight, gradient and optimizer state of every parameter, a step's windows,
    one piece of a micro-batch's logits, the vectors between its blocks), so what is refused could not have worked; what
    passes may still need more, which `glassformer plan` estimates.

    Raises:
        DeviceError: with the bytes needed, the bytes free, and what to make smaller.
    """
    assert isinstance(t.batch_size, int) and t.micro_batch_size
    n = config.parameter_count()
    averages = {"adamw": 2, "sgd": 1 if t.momentum else 0}.get(t.optimizer, 1)
    state = 4 * (2 + averages) * n  # weight, gradient, running averages
    state //= world_size if t.sharding == "full" else 1
    tokens = t.batch_size // world_size * config.block_size * 16  # inputs and targets
    piece = rows_at_once(config.vocab_size, device.split(":")[0])
    at_once = min(t.micro_batch_size, t.batch_size // world_size or 1) * config.block_size
    logits = min(at_once, piece) * config.vocab_size * 4
    if at_once > piece:  # then the vectors in the blocks are more: what both norms read, what the last matrix reads
        logits += config.n_layer * at_once * (2 * 4 * config.n_embd + 2 * config.n_hidden)
    needed, free = state + tokens + logits, available_memory(device)
    if free is None or needed <= free:
        return
    smaller = "model.n_layer or model.n_embd" if state > tokens + logits else "training.micro_batch_size"
    if tokens > state + logits:
        smaller = "training.batch_size"
    raise DeviceError(
        f"training needs at least {_gb(needed)} of memory ({n:,} parameters, {plural(t.batch_size, 'sequence')} of "
        f"{config.block_size:,} tokens a step) and {_gb(free)} are free; try a smaller {smaller}"
    )


def fill_training(t: TrainingSection) -> None:
    """The small numbers of a recipe that follow from the number of steps."""
    if t.steps is None:
        t.steps = 1000
    if t.batch_size is None:
        t.batch_size = 32
    if t.learning_rate is None:
        t.learning_rate = {"muon": 3e-3, "sgd": 0.1}.get(t.optimizer, 1e-3)
    if t.warmup_steps is None:
        t.warmup_steps = min(100, t.steps // 20)
    if t.eval_every is None:
        t.eval_every = max(1, t.steps // 10)
    if t.checkpoint_every is None:
        t.checkpoint_every = t.eval_every
    if t.sample_every is None:
        t.sample_every = t.eval_every
    if t.micro_batch_size is None and isinstance(t.batch_size, int):
        t.micro_batch_size = t.batch_size


def typical_gflops(device: str) -> float:
    """GFLOP/s of fp32 matrix products on a machine like this one, the same at each call.

    A measurement would not do: beside other work a machine gives half, and the same text would get another model. A CPU
    is known by its cores and the width of its vectors, a GPU by what is measured, to the nearest power of two.
    """
    if device.startswith("cuda"):
        return 2.0 ** round(math.log2(peak_flops(device, "fp32") / 1e9))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(processors(), int(asked) if asked.isdecimal() and int(asked) else 1 << 30)
    return threads * GFLOPS_A_CORE.get(torch.backends.cpu.get_cpu_capability(), 25.0)


def _amount(n: float) -> str:
    return f"{n / 1e6:.2g} M" if n >= 1e5 else f"{n:,.0f}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 100_000 else f"{n_bytes / 1e3:.1f} kB"
