"""How a run goes that starts from a model and has no recipe: gently, and not for long.

The weights are good already: a rate for fresh ones would first unlearn what they know. Reasons are printed and kept in
`recipe.toml`; the figures behind the rates stand in `docs/fine-tuning.md`.
"""

from __future__ import annotations

import math
from typing import Any

from glassformer.errors import DataError, plural
from glassformer.recipes.derive import LEAST_TOKENS, MINUTES, UTILISATION, Choice, chooser
from glassformer.recipes.schema import Recipe

PASSES = 3  # over the text: more and it is learned by heart
TOKENS_A_STEP = 2048
LONGEST = 256  # tokens of a training sequence
MUON_RATE = 0.002  # a tenth of what fresh matrices get


def learning_rate(width: int) -> float:
    """AdamW's rate for weights that are good already: 0.03 / width, to two digits, between 1e-5 and 3e-4.

    >>> learning_rate(64), learning_rate(576), learning_rate(4096)
    (0.0003, 5.2e-05, 1e-05)
    """
    return float(f"{min(3e-4, max(1e-5, 0.03 / width)):.1e}")


def rate_choices(r: Recipe, config: Any) -> list[Choice]:
    """The rate of a run that starts from a model, where its recipe has none."""
    choices: list[Choice] = []
    choose = chooser(r, choices)
    choose("training", "learning_rate", learning_rate(_width(config)), "gentle: the weights are good already")
    if r.training.optimizer == "muon":
        choose("training", "matrix_learning_rate", MUON_RATE, "a tenth of what fresh weights get")
    return choices


def text_choices(r: Recipe, config: Any, train_tokens: int, val_tokens: int, gflops: float) -> list[Choice]:
    """Everything but the shape for a text: a few passes, in sequences that this machine has time for.

    Raises:
        DataError: the text is too short to learn anything from.
    """
    if train_tokens < LEAST_TOKENS:
        raise DataError(
            f"{r.data.source}: {plural(train_tokens, 'token')} to train on, too few to learn from "
            f"(at least {LEAST_TOKENS}); give more text, a few pages at the least"
        )
    choices: list[Choice] = []
    choose = chooser(r, choices)
    longest = 2 ** int(math.log2(max(2, train_tokens // 20)))
    fitting = min(LONGEST, longest, config.block_size)
    length = choose("training", "sequence_length", fitting, f"the model reads up to {config.block_size:,} tokens")
    batch = choose("training", "batch_size", max(1, TOKENS_A_STEP // length), f"about {TOKENS_A_STEP:,} tokens a step")
    tokens = PASSES * train_tokens
    budget = MINUTES * 60 * gflops * 1e9 * UTILISATION / (6 * config.parameter_count())
    why = f"{PASSES} passes over the text"
    if tokens > budget:
        tokens, why = int(budget), f"{budget / train_tokens:.2g} passes take {MINUTES:g} minutes here"
    batch_size = batch if isinstance(batch, int) else 1
    steps = choose("training", "steps", max(20, math.ceil(tokens / (batch_size * length))), why)
    choose("training", "eval_every", max(1, steps // 5), "five evaluations")
    if val_tokens > (most := steps * batch_size * length // 10):
        choose("training", "eval_batches", max(1, most // (batch_size * length)), "an evaluation reads a tenth of that")
    return choices + _gentle(r, steps)


def example_choices(r: Recipe, n_examples: int) -> list[Choice]:
    """The same for examples."""
    choices: list[Choice] = []
    choose = chooser(r, choices)
    batch = choose("training", "batch_size", 32 if n_examples >= 640 else max(1, n_examples // 20), "examples a step")
    batch_size = batch if isinstance(batch, int) else 32
    steps = choose("training", "steps", max(20, PASSES * n_examples // batch_size), f"{PASSES} passes")
    return choices + _gentle(r, steps)


def _gentle(r: Recipe, steps: int) -> list[Choice]:
    choices: list[Choice] = []
    choose = chooser(r, choices)
    choose("training", "optimizer", "adamw", "for weights that are good already")
    choose("training", "schedule", "linear", "down to the end")
    choose("training", "final_lr_fraction", 0.0, "where it ends")
    choose("training", "warmup_steps", max(1, steps // 10), "the first tenth")
    choose("training", "weight_decay", 0.01, "little")
    return choices


def _width(config: Any) -> int:
    width: int = getattr(getattr(config, "decoder", config), "n_embd", 64)
    return width
