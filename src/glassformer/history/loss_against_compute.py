"""Experiment: what does a loss cost? The models of seventy years on the same text, at the same size.

Each neural one has about a third of a million parameters and sees the same batches in the same order; n-grams count the
training text once, for n = 1 to 6. All predict every target of the held-out text, in windows of block_size, so
the text before a window is not read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from glassformer.data import TokenBatches, TokenStore, tokenizer_for, windows
from glassformer.data.batches import check_length
from glassformer.data.prepare import prepare
from glassformer.errors import UsageError
from glassformer.history import HISTORY, build_history
from glassformer.history.small_loop import check_kinds, fresh_models, halvings, stopwatch, training
from glassformer.models import Decoder, ModelConfig, flops_per_token
from glassformer.tasks import NextToken, window_losses
from glassformer.threads import set_threads
from glassformer.training import choose_device

Log = Callable[[str], None]

# Widths that make about 335,000 parameters of each with 65 characters; the size of a bigram table is fixed. The rates
# come from a few short trials (docs/history.md) and not from a search.
SHAPES: dict[str, dict[str, Any]] = {
    "bigram": {"learning_rate": 0.1},
    "mlp": {"n_embd": 64, "n_hidden": 1280, "learning_rate": 0.005},
    "rnn": {"n_embd": 64, "n_hidden": 520, "learning_rate": 0.002},
    "gru": {"n_embd": 64, "n_hidden": 288, "learning_rate": 0.008},
    "lstm": {"n_embd": 64, "n_hidden": 246, "learning_rate": 0.008},
    "transformer": {"n_embd": 96, "n_layer": 3, "n_head": 4, "learning_rate": 0.004},
}
NAMES = {
    "n-gram": "n-grams, counted",
    "bigram": "bigram table",
    "mlp": "MLP, 3 tokens (2003)",
    "rnn": "RNN (1990)",
    "gru": "GRU (2014)",
    "lstm": "LSTM (1997)",
    "transformer": "Transformer (2017)",
}


def loss_against_compute(
    source: str = "tinyshakespeare",
    *,
    steps: int = 200,
    batch_size: int = 32,
    block_size: int = 64,
    longest_n_gram: int = 6,
    shapes: Mapping[str, Mapping[str, Any]] = SHAPES,
    seed: int = 0,
    device: str = "auto",
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Train them all on a text's characters and measure as they go.

    Args:
        source: a corpus or a file. steps: of each neural model, batch_size x block_size targets each.
        shapes: fields of the configurations by kind, and `learning_rate`: which models take part, how large.
        log: is given a line after each measurement.

    Returns:
        plain data: `settings`, `text` (its name and sizes) and `curves`, one a model: kind, name, parameters,
        flops_per_token (forward and backward) and `points`: n or step, tokens learned from, flops, seconds
        (`stopwatch`), validation loss in nats a token and half its 95 % interval.

    Raises:
        UsageError: a kind is unknown; a number makes no sense.
        DataError: the text cannot be read or is too short.
    """
    check_kinds(shapes, SHAPES)
    if steps < 1 or longest_n_gram < 1:
        raise UsageError(f"steps={steps} and longest_n_gram={longest_n_gram} must be 1 or more; try steps=50")
    device = choose_device(device)
    threads = set_threads()
    store = prepare(source, tokenizer_for(source, "characters"), progress=False)
    train, held_out, V = store.split("train"), store.split("validation"), store.vocab_size
    check_length(train, block_size)
    curves = [_counted(store, V, block_size, longest_n_gram, device, log)]
    build = functools.partial(_built, vocab_size=V, block_size=block_size)
    for kind, model, rate in fresh_models(shapes, build, seed=seed, device=device):
        flops = model.flops_per_token().training if kind in HISTORY else flops_per_token(model.config).training
        batches = TokenBatches(train, block_size=block_size, batch_size=batch_size, seed=seed)
        curve = _curve(kind, model.parameter_count(), flops)
        for at in training(model, NextToken(), batches, steps=steps, learning_rate=rate, stops=halvings(steps, 5)):
            point = {"step": at.step, **_point(at.targets, flops, at.seconds, model, held_out, block_size)}
            curve["points"].append(point)
            log(f"{NAMES[kind]}: step {at.step:,} of {steps:,}, {at.seconds:.1f} s, loss {point['loss']:.3f}")
        curves.append(curve)
    settings = {"steps": steps, "batch_size": batch_size, "block_size": block_size, "seed": seed}
    machine = {"device": device, "threads": threads, "torch": torch.__version__}
    text = {"source": source, "train_tokens": len(train), "validation_tokens": len(held_out), "vocab_size": V}
    shown = {kind: dict(shape) for kind, shape in shapes.items()}
    return {"settings": {**settings, "shapes": shown}, "machine": machine, "text": text, "curves": curves}


def _counted(store: TokenStore, V: int, block_size: int, longest: int, device: str, log: Log) -> dict[str, Any]:
    """The curve of the n-grams: no steps, but n."""
    train, held_out = store.split("train"), store.split("validation")
    ids, clock = torch.from_numpy(train.read(0, len(train))), stopwatch(device)
    curve = _curve("n-gram", 0, 0)
    for n in range(1, longest + 1):
        model = build_history("n-gram", vocab_size=V, block_size=block_size, n_gram=n).to(device)
        started = clock()
        model.fit(ids)
        seconds = clock() - started
        flops = model.flops_per_token().training
        point = {"n": n, "parameters": model.parameter_count()}
        curve["points"].append({**point, **_point(len(train), flops, seconds, model, held_out, block_size)})
        log(f"{n}-grams: counted in {seconds:.2f} s, loss {curve['points'][-1]['loss']:.3f}")
    return curve


def _built(kind: str, **fields: Any) -> Any:
    return build_history(kind, **fields) if kind in HISTORY else Decoder(ModelConfig.make(family="modern", **fields))


def _curve(kind: str, parameters: int, flops: int) -> dict[str, Any]:
    costs = {"parameters": parameters, "flops_per_token": flops}
    return {"kind": kind, "name": NAMES[kind], **costs, "points": []}


def _point(tokens: int, flops: int, seconds: float, model: Any, held_out: Any, block_size: int) -> dict[str, Any]:
    """What was paid and what was had for it."""
    estimate = window_losses(model, windows(held_out, block_size=block_size, batch_size=64)).estimate()
    paid = {"tokens": tokens, "flops": tokens * flops, "seconds": round(seconds, 6)}
    return {**paid, "loss": estimate.loss, "interval": estimate.to_dict()["interval"]}
