"""Experiment: how much of a sentence fits into one vector?

Strings of random letters are to be copied: nothing in them can be guessed, so what is not remembered is wrong. A
recurrent network that reads the string into one vector must get all of it into that vector; with attention it may look
back at every letter, and so may a Transformer. All are trained on strings of mixed lengths and then asked for each
length by itself, as in Bahdanau et al. 2014, https://arxiv.org/abs/1409.0473, figure 2, for real sentences.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from glassformer.errors import UsageError
from glassformer.evaluation.estimate import wilson_interval
from glassformer.history import HISTORY, build_history
from glassformer.history.loss_against_compute import Log
from glassformer.history.small_loop import check_kinds, fresh_models, halvings, training
from glassformer.models import EncoderDecoder, EncoderDecoderConfig
from glassformer.tasks import Translate
from glassformer.threads import set_threads
from glassformer.training import choose_device

SHAPES: dict[str, dict[str, Any]] = {
    "seq2seq": {"cell": "lstm", "n_embd": 32, "n_hidden": 96, "learning_rate": 0.004},
    "seq2seq-attention": {"cell": "lstm", "n_embd": 32, "n_hidden": 96, "learning_rate": 0.004},
    "transformer": {"n_embd": 64, "n_layer": 2, "n_head": 4, "learning_rate": 0.003},
}
NAMES = {
    "seq2seq": "LSTM through one vector",
    "seq2seq-attention": "LSTM with attention",
    "transformer": "Transformer",
}


class CopyBatches:
    """Strings to copy, for ever: each batch of one length, drawn evenly from shortest to longest, of letters drawn
    evenly. What step n holds is a function of (seed, n)."""

    def __init__(self, objective: Translate, *, letters: int, lengths: tuple[int, int], batch_size: int, seed: int):
        self.objective, self.letters, self.lengths = objective, letters, lengths
        self.batch_size, self.seed, self.step = batch_size, seed, 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, ...]:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, self.step]))
        self.step += 1
        length = int(random.integers(self.lengths[0], self.lengths[1] + 1))
        strings = random.integers(0, self.letters, size=(self.batch_size, length)).tolist()
        return self.objective.collate([(string, string) for string in strings])


def bottleneck(
    *,
    steps: int = 1200,
    batch_size: int = 32,
    shortest: int = 4,
    longest: int = 40,
    every: int = 4,
    letters: int = 20,
    examples: int = 200,
    shapes: Mapping[str, Mapping[str, Any]] = SHAPES,
    seed: int = 0,
    device: str = "auto",
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Train them all to copy and ask for each length.

    Args:
        steps, batch_size: of each model. shortest, longest: letters of a string in training; it is asked for
            shortest, shortest + every, ... up to longest, `examples` strings each.
        shapes: fields of the configurations by kind, and `learning_rate`: which models take part, how large.
        log: is given a line now and then.

    Returns:
        plain data: `settings`, `machine` and `curves`, one a model: kind, name, parameters, seconds of training, the
        last training loss, and `points`: length, n (strings), exact (the share that greedy decoding copies without a
        mistake), half the width of its 95 % interval, and tokens (the share predicted right, given all before).

    Raises:
        UsageError: a kind is unknown; a number makes no sense.
    """
    check_kinds(shapes, SHAPES)
    if not 1 <= shortest <= longest or min(steps, letters, examples, every) < 1:
        raise UsageError(f"shortest={shortest} and longest={longest} are no lengths; try shortest=4 and longest=40")
    device = choose_device(device)
    threads = set_threads()
    objective = Translate(start_token=letters, end_token=letters + 1, label_smoothing=0.0)
    curves = []
    build = functools.partial(_built, letters=letters, block_size=longest + 1)
    for kind, model, rate in fresh_models(shapes, build, seed=seed, device=device):
        draw: dict[str, Any] = {"letters": letters, "batch_size": batch_size, "seed": seed}
        batches = CopyBatches(objective, lengths=(shortest, longest), **draw)
        curve: dict[str, Any] = {"kind": kind, "name": NAMES[kind], "parameters": model.parameter_count()}
        for at in training(model, objective, batches, steps=steps, learning_rate=rate, stops=halvings(steps, 4)):
            curve.update(seconds=round(at.seconds, 3), train_loss=at.loss)
            log(f"{NAMES[kind]}: step {at.step:,} of {steps:,}, {at.seconds:.1f} s, loss {at.loss:.3f}")
        lengths = range(shortest, longest + 1, every)
        curve["points"] = [_asked(model, objective, length, letters, examples, seed, device) for length in lengths]
        curves.append(curve)
    settings = {"steps": steps, "batch_size": batch_size, "shortest": shortest, "longest": longest, "every": every}
    settings |= {"letters": letters, "examples": examples, "seed": seed}
    machine = {"device": device, "threads": threads, "torch": torch.__version__}
    shown = {kind: dict(shape) for kind, shape in shapes.items()}
    return {"settings": {**settings, "shapes": shown}, "machine": machine, "curves": curves}


def _built(kind: str, *, letters: int, block_size: int, **fields: Any) -> Any:
    """A fresh model; the last two tokens of its vocabulary begin and end a target."""
    ends = {"start_token": letters, "end_token": letters + 1}
    if kind in HISTORY:
        return build_history(kind, vocab_size=letters + 2, block_size=block_size, **ends, **fields)
    # as in 2017 (sect. 3.4 and 3.5): positions are sinusoids, and letters are scaled up so as not to drown in them
    shape = {"positions": "sinusoidal", "embedding_scale": math.sqrt(fields["n_embd"]), "block_size": block_size}
    config = EncoderDecoderConfig.make(family="modern", vocab_size=letters + 2, **{**shape, **ends, **fields})
    model = EncoderDecoder(config)
    model.init_weights("xavier")
    return model


@torch.inference_mode()
def _asked(
    model: Any, objective: Translate, length: int, letters: int, n: int, seed: int, device: str
) -> dict[str, Any]:
    """n strings of one length that training has not drawn. Greedy decoding copies a string exactly if the most likely
    token is right at every place given all before it, so one forward pass answers both questions."""
    asked = CopyBatches(objective, letters=letters, lengths=(length, length), batch_size=n, seed=seed + (1 << 32))
    model.eval()
    rows = objective.rows(model, tuple(part.to(device) for part in next(asked)))
    exact = float((rows.correct_B == rows.counts_B).double().mean())
    tokens = float(rows.correct_B.sum()) / float(rows.counts_B.sum())
    low, high = wilson_interval(round(exact * n), n)
    return {"length": length, "n": n, "exact": exact, "interval": (high - low) / 2, "tokens": tokens}
