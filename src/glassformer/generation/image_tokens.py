"""Images written pixel by pixel, from the top left, by a decoder that has read the class or the caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glassformer.errors import UsageError, plural
from glassformer.generation.engine import Engine
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.requests import MAX_BIAS, Request
from glassformer.generation.settings import Sampling
from glassformer.processors.image_tokens import ImageTokenProcessor

MAX_IMAGES = 10_000
ROWS = 64  # images written together


def draw_images(
    model: Any,
    processor: ImageTokenProcessor,
    labels: Sequence[str],
    *,
    given: np.ndarray | None = None,
    sampling: Sampling | None = None,
) -> np.ndarray:
    """An image of each class or caption, as ids of pixels: (images, height, width) int64.

    Args:
        given: the first levels of every image in raster order, (pixels,), which are kept.
        sampling: image i has the seed `seed + i`.

    Raises:
        UsageError: an unknown class or word, too many images, or more pixels given than an image has.
    """
    sampling = sampling or Sampling()
    begin = [] if given is None else np.asarray(given).ravel().tolist()
    left = processor.n_pixels - len(begin)
    if left < 0 or not all(0 <= level < processor.levels for level in begin):
        raise UsageError(
            f"{len(begin)} pixels are given; an image has {processor.n_pixels} of {processor.levels} levels"
        )
    if len(labels) > MAX_IMAGES:
        raise UsageError(f"{len(labels):,} images; at most {MAX_IMAGES:,} are written at once")
    if left == 0 or not labels:
        return np.tile(np.array(begin, dtype=np.int64), (len(labels), 1)).reshape(len(labels), *processor.size)
    no_pixels = dict.fromkeys(range(processor.levels, processor.tokenizer.vocab_size), -MAX_BIAS)
    requests = [
        Request(
            (*processor.condition(label), *begin),
            max_new_tokens=left,
            sampling=replace(sampling, seed=sampling.seed + number),
            end_tokens=frozenset(),
            logit_bias=no_pixels,
        )
        for number, label in enumerate(labels)
    ]
    written: dict[int, list[int]] = {}
    for event in Engine(model, processor.tokenizer, max_rows=min(ROWS, len(labels))).run(*requests):
        if event.piece is not None:
            written.setdefault(event.request, list(begin)).append(event.piece.token)
    return np.array([written[number] for number in range(len(labels))]).reshape(len(labels), *processor.size)


def class_log_probabilities(
    model: Any, processor: ImageTokenProcessor, levels_ND: np.ndarray, labels: Sequence[str] | None = None
) -> np.ndarray:
    """log p(pixels | class) in nats of the first D pixels of images in raster order, for every class, or for each of
    `labels`, classes or captions: (N, labels). The one with the largest number is Bayes' answer where all are equally
    frequent.

    Raises:
        UsageError: more pixels than an image has; an unknown class or word.
    """
    N, D = levels_ND.shape
    if not 1 <= D <= processor.n_pixels:
        raise UsageError(f"{plural(D, 'pixel')}; an image has {processor.n_pixels}")
    device = next(model.parameters()).device
    pixels_ND = torch.from_numpy(levels_ND.astype(np.int64)).to(device)
    found = []
    for label in processor.labels if labels is None else labels:
        before_NW = torch.tensor([processor.condition(label)], device=device).expand(N, -1)
        inputs_NT = torch.cat([before_NW, pixels_ND[:, :-1]], dim=1)
        with evaluating(model):
            parts = [
                model(inputs)[:, -D:].float().log_softmax(dim=-1).gather(2, targets[..., None]).sum(dim=(1, 2)).cpu()
                for inputs, targets in zip(inputs_NT.split(ROWS), pixels_ND.split(ROWS), strict=True)
            ]
        found.append(torch.cat(parts).double())
    return torch.stack(found, dim=1).numpy()
