"""Experiment: who remembers a fact that is far back?  "I grew up in France ... I speak fluent ___"

    dream Spain of grew France rain Italy a boat ... walk speak ──► French
                        |<----------- distance ----------->|

The place after the word `grew` counts; the words between name other places, so the model must know which one. The
last word asks for the language. A recurrent network must carry the fact through every word between; attention is one
step away from it, whatever the distance. All models learn mixed distances and are then asked at each by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from glassformer.errors import UsageError
from glassformer.evaluation.estimate import wilson_interval
from glassformer.history import HISTORY, build_history
from glassformer.history.loss_against_compute import Log
from glassformer.history.small_loop import check_kinds, fresh_models, halvings, stopwatch, training
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import NextToken
from glassformer.tasks.losses import IGNORED
from glassformer.threads import set_threads
from glassformer.training import choose_device

PLACES, FILLERS = 20, 40  # tokens: places, their languages, fillers, `grew`, `speak`
GREW, SPEAK = 2 * PLACES + FILLERS, 2 * PLACES + FILLERS + 1
V = SPEAK + 1
PREFIX = 16  # up to so many words before the fact, so that it is not always at the same position
SHARE_OF_PLACES = 0.1  # of the words between
TIMED = 3  # passes for the seconds of a length

RATES = (0.001, 0.003, 0.01)  # the same for every model: each is trained with all, the best is kept
# widths that make about 120,000 parameters of each
SHAPES: dict[str, dict[str, Any]] = {
    "lstm": {"n_embd": 64, "n_hidden": 128},
    "lstm-attention": {"n_embd": 64, "n_hidden": 104},
    "transformer": {"n_embd": 64, "n_layer": 2, "n_head": 4},
}
NAMES = {
    "rnn": "RNN",
    "gru": "GRU",
    "lstm": "LSTM",
    "lstm-attention": "LSTM with attention",
    "transformer": "Transformer",
}


class RecallBatches:
    """Texts to be asked about, for ever: (inputs, targets), where only the last place has a target. The texts of a
    batch have one distance, drawn from `distances`. What step n holds is a function of (seed, n)."""

    def __init__(self, distances: Sequence[int], *, batch_size: int, seed: int):
        self.distances, self.batch_size, self.seed, self.step = distances, batch_size, seed, 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, self.step]))
        self.step += 1
        distance, before = int(random.choice(self.distances)), int(random.integers(0, PREFIX + 1))
        shape = (self.batch_size, before + 1 + distance)
        inputs_BT = random.integers(2 * PLACES, 2 * PLACES + FILLERS, size=shape)
        by_the_way_BT = random.random(shape) < SHARE_OF_PLACES
        inputs_BT[by_the_way_BT] = random.integers(0, PLACES, size=int(by_the_way_BT.sum()))
        place_B = random.integers(0, PLACES, size=self.batch_size)
        inputs_BT[:, before], inputs_BT[:, before + 1], inputs_BT[:, -1] = GREW, place_B, SPEAK
        targets_BT = np.full(shape, IGNORED)
        targets_BT[:, -1] = PLACES + place_B
        return torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)


def recall(
    *,
    steps: int = 1500,
    batch_size: int = 32,
    distances: Sequence[int] = (8, 16, 32, 64, 128, 256, 512),
    examples: int = 500,
    learning_rates: Sequence[float] = RATES,
    shapes: Mapping[str, Mapping[str, Any]] = SHAPES,
    seed: int = 0,
    device: str = "auto",
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Train them all to recall, with each learning rate, and ask at each distance.

    Args:
        steps, batch_size: of each model and rate. distances: tokens from the place to the answer, at least 2.
        examples: texts that are asked at each distance. learning_rates: the best by the loss at all distances is kept.
        shapes: fields of the configurations by kind: which models take part, how large.
        log: is given a line now and then.

    Returns:
        plain data: `settings`, `machine` and `curves`, one a model: kind, name, parameters, learning_rate, `tried`
        (rate and loss), seconds of training, and `points`: distance, right (share), interval (half of the 95 %
        interval), loss (nats), gradient_before and gradient (norm of the loss' gradient at the embedding of the
        place, mean of the texts, before training and after), and seconds (of forward and backward of a batch).

    Raises:
        UsageError: a kind is unknown; a number makes no sense.
    """
    check_kinds(shapes, NAMES)
    if min(steps, examples, batch_size) < 1 or not learning_rates or min(distances, default=0) < 2:
        raise UsageError(
            f"distances={list(distances)}, steps={steps}: distances of 2 and more, a step and a learning rate are "
            "needed; try distances=(8, 64) and steps=500"
        )
    device = choose_device(device)
    threads = set_threads()
    build = functools.partial(_built, block_size=PREFIX + 1 + max(distances))
    curves = []
    for kind, shape in shapes.items():
        tried = []
        for rate in learning_rates:
            ((_, model, _),) = fresh_models({kind: {**shape, "learning_rate": rate}}, build, seed=seed, device=device)
            before = [_gradient(model, distance, seed, device) for distance in distances]
            batches = RecallBatches(distances, batch_size=batch_size, seed=seed)
            for at in training(model, NextToken(), batches, steps=steps, learning_rate=rate, stops=halvings(steps, 3)):
                log(f"{NAMES[kind]}, rate {rate:g}: step {at.step:,} of {steps:,}, {at.seconds:.1f} s, {at.loss:.3f}")
            points = [_asked(model, distance, examples, seed, device) for distance in distances]
            loss = sum(p["loss"] for p in points) / len(points)
            tried.append((loss, rate, at.seconds, before, points, model))
        loss, rate, seconds, before, points, model = min(tried, key=lambda run: run[0])
        for point, start in zip(points, before, strict=True):
            point["gradient_before"] = start
            point["gradient"] = _gradient(model, point["distance"], seed, device)
            point["seconds"] = _seconds(model, point["distance"], batch_size, seed, device)
        about: dict[str, Any] = {"kind": kind, "name": NAMES[kind], "parameters": model.parameter_count()}
        about |= {"learning_rate": rate, "tried": [{"learning_rate": run[1], "loss": run[0]} for run in tried]}
        curves.append({**about, "train_seconds": round(seconds, 3), "points": points})
    settings = {"steps": steps, "batch_size": batch_size, "distances": list(distances), "examples": examples}
    settings |= {"learning_rates": list(learning_rates), "seed": seed}
    machine = {"device": device, "threads": threads, "torch": torch.__version__}
    shown = {kind: dict(shape) for kind, shape in shapes.items()}
    return {"settings": {**settings, "shapes": shown}, "machine": machine, "curves": curves}


def _built(kind: str, *, block_size: int, **fields: Any) -> Any:
    if kind in HISTORY:
        return build_history(kind, vocab_size=V, block_size=block_size, **fields)
    return Decoder(ModelConfig.make(family="modern", vocab_size=V, block_size=block_size, **fields))


def _fresh_texts(distance: int, n: int, seed: int, device: str) -> list[torch.Tensor]:
    """n texts that training has not drawn."""
    return [part.to(device) for part in next(RecallBatches([distance], batch_size=n, seed=seed + (1 << 32)))]


@torch.inference_mode()
def _asked(model: Any, distance: int, n: int, seed: int, device: str) -> dict[str, Any]:
    model.eval()
    inputs_BT, targets_BT = _fresh_texts(distance, n, seed, device)
    logits_BV = torch.cat([model.logits(model.hidden(part)[:, -1:])[:, 0] for part in inputs_BT.split(64)])
    right = int((logits_BV.argmax(-1) == targets_BT[:, -1]).sum())
    low, high = wilson_interval(right, n)
    loss = float(nn.functional.cross_entropy(logits_BV, targets_BT[:, -1]))
    return {"distance": distance, "n": n, "right": right / n, "interval": (high - low) / 2, "loss": loss}


def _gradient(model: Any, distance: int, seed: int, device: str, n: int = 32) -> float:
    """Norm of the gradient of a text's loss at the embedding of its place, mean of n texts."""
    model.eval()
    inputs_BT, targets_BT = _fresh_texts(distance, n, seed, device)
    found: list[torch.Tensor] = []
    table = next(m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == V)
    hook = table.register_forward_hook(lambda module, given, x_BTC: found.append(x_BTC))
    try:
        logits_BV = model.logits(model.hidden(inputs_BT)[:, -1:])[:, 0]
    finally:
        hook.remove()
    loss = nn.functional.cross_entropy(logits_BV, targets_BT[:, -1], reduction="sum")
    (gradient_BTC,) = torch.autograd.grad(loss, found)
    return float(gradient_BTC[:, -distance].norm(dim=-1).mean())


def _seconds(model: Any, distance: int, batch_size: int, seed: int, device: str) -> float:
    """Seconds (`stopwatch`) of forward and backward of a batch: the least of a few."""
    model.train()
    batch = _fresh_texts(distance, batch_size, seed, device)
    clock, spent = stopwatch(device), math.inf
    for _ in range(TIMED):
        started = clock()
        NextToken().loss(model, tuple(batch)).sum.backward()
        spent = min(spent, clock() - started)
    model.zero_grad(set_to_none=True)
    return round(spent, 6)
