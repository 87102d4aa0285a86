"""Values that the user left open: sizes of a run without a recipe, from the data and the machine; gentle settings of a
run that starts from a model (the figures behind them: `docs/fine-tuning.md`); what optimizer and positions need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from glassformer.errors import DataError, UsageError, plural
from glassformer.models import parameter_count
from glassformer.recipes.draft import Draft
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import is_transformer, kind_for, model_config
from glassformer.tasks import Choice, Task
from glassformer.training import OPTIMIZERS

MINUTES = 5.0  # what a run without a recipe may take
UTILISATION = 0.4  # of the speed of a matrix product; the rest goes into small operations
LEAST_TOKENS = 200  # of text to learn from
TOKENS_A_STEP = 2048
PASSES = 20  # how often a text may be read before more reading only learns it by heart
FINE_TUNING_PASSES = 3
FINE_TUNING_LENGTH = 256  # tokens of a training sequence at most
TUNING_MINUTES, TUNING_UTILISATION = 10.0, 0.7  # a published model is large enough to spend nearly all in products
TUNING_SHARE = 0.8  # of the minutes; the rest is for evaluations and answers
TUNING_LENGTH = 1024  # tokens of a training sequence at most; TRL's default too
CHAT_TOKENS_A_STEP = 4096
MANY_TOKENS = 5_000  # in a vocabulary: a token is several characters
ANSWERS_A_STEP, ROLL_OUT_STEPS = 64, 100
LORA_RATE = 10
"""Adapters take about ten times the rate of whole weights (Schulman et al. 2025, "LoRA Without Regret")."""
MUON_FINE_TUNING_RATE = 0.002  # a tenth of what fresh matrices get
MUON = "needs about half the steps of AdamW"


def sizes_for_text(draft: Draft, train_tokens: int, vocab_size: int, gflops: float) -> None:
    """Sizes for a text: what fits into a few minutes here and does not outgrow the text.

    Raises:
        DataError: the text is too short to learn anything from.
    """
    if draft.recipe.is_open("model.block_size"):
        _check_length(draft, train_tokens)
    choose = draft.choose
    budget = _budget(gflops)
    why_budget = f"{MINUTES:g} minutes at about {gflops:.0f} GFLOP/s"
    choose("model.family", "modern", "rotary, RMSNorm, gated feed-forward and QK-norm learn faster")
    longest = min(128, _power_of_two(train_tokens // 20))
    block = choose("model.block_size", longest, f"context, for {train_tokens:,} tokens of text")
    if draft.recipe.model.size is None:
        # 6 N D operations for N parameters and D tokens; 20 tokens a parameter suits both (Hoffmann et al. 2022)
        for_machine, for_text = math.sqrt(budget / 120), train_tokens * PASSES / 20
        most = min(for_machine, for_text)
        depth = next((n for n in range(12, 1, -1) if 12 * n * (64 * n) ** 2 <= most), 1)
        text = f"{train_tokens:,} tokens of text"
        limit = f"{why_budget}, 20 tokens a parameter," if for_machine < for_text else text
        at_most = f"{limit} allow {_amount(most)} parameters"
        choose("model.n_layer", max(2, depth), at_most if depth > 1 else f"the smallest shape: {at_most}")
        if depth == 1 and draft.recipe.is_open("model.n_embd"):
            choose("model.n_embd", 64, "little text")
            choose("model.n_head", 2, "heads of 32")
    batch = choose("training.batch_size", max(1, TOKENS_A_STEP // block), f"about {TOKENS_A_STEP:,} tokens a step")
    batch = batch if isinstance(batch, int) else max(1, TOKENS_A_STEP // block)
    tokens = budget / (6 * parameter_count(model_config(draft.recipe, vocab_size=vocab_size)))
    reason = why_budget if tokens < train_tokens * PASSES else f"{PASSES} passes over the text"
    tokens = min(tokens, train_tokens * PASSES)
    choose("training.steps", max(20, round(tokens / (batch * block))), f"{_amount(tokens)} tokens: {reason}")
    choose("training.optimizer", "muon", MUON)
    choose("training.schedule", "wsd", "warm up, stay, and come down at the end")
    choose("training.final_lr_fraction", 0.05, "where the way down ends")


def sizes_for_examples(draft: Draft, n_examples: int, longest: int) -> None:
    """Sizes for examples: small, for a few minutes on two cores.

    longest: tokens of the text that all but a twentieth of the examples do not exceed.
    """
    choose = draft.choose
    big, count = n_examples >= 5_000, f"{n_examples:,} examples"
    if is_transformer(kind_for(draft.recipe)):
        choose("model.family", "modern", "rotary, RMSNorm, gated feed-forward and QK-norm learn faster")
        if draft.recipe.is_open("model.n_embd") and draft.recipe.is_open("model.n_head"):
            choose("model.n_head", 4, "heads of a quarter of the width")
    choose("model.n_layer", 3 if big else 2, count)
    choose("model.n_embd", 192 if big else 96, count)
    longest_power = 2 ** math.ceil(math.log2(max(16, longest + 2)))
    if longest:
        choose("model.block_size", min(256, longest_power), f"19 of 20 texts have at most {longest} tokens")
    steps = 10 * n_examples // _examples_a_step(draft, n_examples)
    choose("training.steps", max(20, min(4_000, steps)), "ten passes, 4,000 steps at most")
    choose("training.optimizer", "muon", MUON)
    choose("training.schedule", "linear", "down to the end")


def fine_tuning_on_text(draft: Draft, config: Any, train_tokens: int, val_tokens: int, gflops: float) -> None:
    """Everything but the shape for a text and a trained model: a few passes, in sequences that this machine has time
    for.

    Raises:
        DataError: the text is too short to learn anything from.
    """
    _check_length(draft, train_tokens)
    choose = draft.choose
    fitting = min(FINE_TUNING_LENGTH, _power_of_two(train_tokens // 20), config.block_size)
    length = choose("training.sequence_length", fitting, f"the model reads up to {config.block_size:,} tokens")
    batch = choose("training.batch_size", max(1, TOKENS_A_STEP // length), f"about {TOKENS_A_STEP:,} tokens a step")
    batch = batch if isinstance(batch, int) else 1
    tokens, why = FINE_TUNING_PASSES * train_tokens, f"{FINE_TUNING_PASSES} passes over the text"
    if tokens > (budget := _budget(gflops) / (6 * parameter_count(config))):
        tokens, why = int(budget), f"{budget / train_tokens:.2g} passes take {MINUTES:g} minutes here"
    steps = choose("training.steps", max(20, math.ceil(tokens / (batch * length))), why)
    choose("training.eval_every", max(1, steps // 5), "five evaluations")
    if val_tokens > (most := steps * batch * length // 10):
        choose("training.eval_batches", max(1, most // (batch * length)), "an evaluation reads a tenth of that")
    _gentle(draft, steps)


def fine_tuning_on_examples(draft: Draft, task: Task, config: Any, gflops: float) -> None:
    """The same for examples; for chats in steps of about as many tokens, and within `TUNING_MINUTES`."""
    choose = draft.choose
    if task.on_policy:
        group = getattr(task.settings, "samples", 1)
        choose("training.batch_size", max(1, ANSWERS_A_STEP // group) * group, "answers of a step")
        _gentle(draft, choose("training.steps", ROLL_OUT_STEPS, "updates; the reward shows whether more pay"))
        return
    if not task.tuned:
        n = task.source.n_train
        steps = max(20, FINE_TUNING_PASSES * n // _examples_a_step(draft, n))
        _gentle(draft, choose("training.steps", steps, f"{FINE_TUNING_PASSES} passes"))
        return
    longest = max(1, task.longest)
    fitting = min(config.block_size, TUNING_LENGTH, 2 ** math.ceil(math.log2(max(16, longest))))
    length = choose("training.sequence_length", fitting, f"19 of 20 rows have at most {longest:,} tokens")
    n = task.training_rows(length)
    usual = min(length, longest) if n == task.source.n_train else length
    fit = min(32, CHAT_TOKENS_A_STEP // usual, max(4, n // 20))
    batch = choose("training.batch_size", max(1, fit), f"{n:,} sequences; about {CHAT_TOKENS_A_STEP:,} tokens at most")
    batch = batch if isinstance(batch, int) else 1
    steps, why = max(20, FINE_TUNING_PASSES * n // batch), f"{FINE_TUNING_PASSES} passes"
    tokens = batch * (max(1.0, task.usual) if n == task.source.n_train else length)
    if (parts := math.ceil(tokens / CHAT_TOKENS_A_STEP)) > 1:  # several answers a row
        micro = math.ceil(batch / parts)
        choose("training.micro_batch_size", micro, f"rows in memory together: {CHAT_TOKENS_A_STEP:,} tokens or so")
    one_pass = 2 * parameter_count(config)
    passes = (3 if draft.recipe.training.lora_rank is None else 2) + task.extra_passes  # frozen: no gradient
    budget = _budget(gflops, TUNING_MINUTES, TUNING_UTILISATION)
    affordable = int(TUNING_SHARE * budget / (passes * one_pass * tokens))
    if steps > max(20, affordable):
        steps, why = max(20, affordable), f"{TUNING_MINUTES:g} minutes at about {gflops:.0f} GFLOP/s"
    steps = choose("training.steps", steps, why)
    an_evaluation = one_pass * max(1.0, task.usual) * len(task.source.examples["validation"])
    evaluations = max(1, min(5, int((1 - TUNING_SHARE) * budget / an_evaluation)))
    choose("training.eval_every", max(1, steps // evaluations), plural(evaluations, "evaluation"))
    choose("training.sample_every", steps, "answers before the first step and after the last")
    if getattr(config, "vocab_size", 0) > MANY_TOKENS:
        choose("training.sample_tokens", 60, "about what is shown of an answer")
    _gentle(draft, steps)


def fine_tuning_rates(draft: Draft, config: Any, *, stays_near_start: bool = False) -> None:
    """The rate of a run that starts from a model, where its recipe has none."""
    width = getattr(getattr(config, "decoder", config), "n_embd", 64)
    rate = fine_tuning_rate(width, stays_near_start=stays_near_start)
    why = (
        "small: it must stay near the model that it starts from"
        if stays_near_start
        else "gentle: the weights are good already"
    )
    if draft.recipe.training.lora_rank is not None:
        rate, why = float(f"{min(1e-3, LORA_RATE * rate):.1e}"), f"{LORA_RATE} times that of whole weights, for LoRA"
    draft.choose("training.learning_rate", rate, why)
    if draft.recipe.training.optimizer == "muon":
        draft.choose("training.matrix_learning_rate", MUON_FINE_TUNING_RATE, "a tenth of what fresh weights get")


def fine_tuning_rate(width: int, *, stays_near_start: bool = False) -> float:
    """AdamW's rate for weights that are good already: 0.03 / width, to two digits, between 1e-5 and 3e-4.

    stays_near_start: for preferences and rewards: 3.3 / width^2 instead, between 5e-7 and 3e-4; what people use for DPO
    falls so (1e-6 at 2,048, Zephyr's 5e-7 at 4,096).

    >>> fine_tuning_rate(64), fine_tuning_rate(576), fine_tuning_rate(4096)
    (0.0003, 5.2e-05, 1e-05)
    >>> [fine_tuning_rate(width, stays_near_start=True) for width in (64, 576, 4096)]
    [0.0003, 9.9e-06, 5e-07]
    """
    rate = max(5e-7, 3.3 / width**2) if stays_near_start else max(1e-5, 0.03 / width)
    return float(f"{min(3e-4, rate):.1e}")


def optimizer_of_kind(draft: Draft) -> None:
    """Muon moves the matrices of blocks; a model without blocks takes AdamW, even if the recipe sets muon."""
    if draft.recipe.training.optimizer == "muon" and not is_transformer(kind_for(draft.recipe)):
        draft.add([Choice("training.optimizer", "adamw", "Muon is for the blocks of a Transformer")])


def check_optimizer_keys(r: Recipe, overrides: Iterable[str]) -> None:
    """Refuse a setting on the command line that belongs to another optimizer than the one in use.

    Raises:
        UsageError: it would change nothing.
    """
    given = {override.partition("=")[0].strip().removeprefix("training.") for override in overrides}
    known, used = set().union(*OPTIMIZERS.values()), r.training.optimizer
    for key in sorted(given & known - set(OPTIMIZERS[used])):
        owners = " and ".join(name for name, keys in OPTIMIZERS.items() if key in keys)
        raise UsageError(
            f"training.{key} belongs to {owners}, and training.optimizer is {used}; leave it out, or set "
            "training.optimizer"
        )


def init_of_sines(draft: Draft, config: Any) -> None:
    """`training.init` of a model with sinusoidal positions: that of 2017, whose tables have a deviation of C^-1/2,
    which `embedding_scale` makes one; GPT-2's 0.02 is small beside sines (`docs/shapes.md`)."""
    stacks = [getattr(config, side, config) for side in ("encoder", "decoder")]
    if any(getattr(stack, "positions", "") == "sinusoidal" for stack in stacks):
        draft.choose("training.init", "xavier", "embeddings as large as the sines of their positions")


def _gentle(draft: Draft, steps: int) -> None:
    draft.choose("training.optimizer", "adamw", "for weights that are good already")
    draft.choose("training.schedule", "linear", "down to the end")
    draft.choose("training.final_lr_fraction", 0.0, "where it ends")
    draft.choose("training.warmup_steps", max(1, steps // 10), "the first tenth")
    draft.choose("training.weight_decay", 0.01, "little")


def _examples_a_step(draft: Draft, n_examples: int) -> int:
    few = 32 if n_examples >= 640 else max(1, n_examples // 20)
    batch = draft.choose("training.batch_size", few, "examples a step")
    return batch if isinstance(batch, int) else 32


def _check_length(draft: Draft, train_tokens: int) -> None:
    if train_tokens < LEAST_TOKENS:
        raise DataError(
            f"{draft.recipe.data.source}: {plural(train_tokens, 'token')} to train on, too few to learn from "
            f"(at least {LEAST_TOKENS}); give more text, a few pages at the least"
        )


def _budget(gflops: float, minutes: float = MINUTES, utilisation: float = UTILISATION) -> float:
    """Operations of a run that takes so many minutes."""
    return minutes * 60 * gflops * 1e9 * utilisation


def _power_of_two(n: int) -> int:
    return 2 ** int(math.log2(max(2, n)))


def _amount(n: float) -> str:
    return f"{n / 1e6:.2g} M" if n >= 1e5 else f"{n:,.0f}"
