"""Images written pixel by pixel, or patch by patch, from the top left, by a decoder that read the class or caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glassformer.errors import UsageError, plural
from glassformer.generation.engine import Engine
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.guidance import sample_guided
from glassformer.generation.requests import MAX_BIAS, Request
from glassformer.generation.settings import Sampling
from glassformer.processors.image_tokens import ImageTokenProcessor

MAX_IMAGES = 10_000
MAX_GUIDANCE = 100
ROWS = 64  # images written together


def draw_images(
    model: Any,
    processor: ImageTokenProcessor,
    labels: Sequence[str],
    *,
    given: np.ndarray | None = None,
    sampling: Sampling | None = None,
    guidance: float = 1.0,
) -> np.ndarray:
    """An image of each class or caption, as ids of pixels or patches: (images, *grid_size) int64.

    Args:
        given: the first ids of every image in raster order, which are kept.
        sampling: image i has the seed `seed + i`.
        guidance: how many times what the caption adds to the logits is taken (`generation/guidance.py`).

    Raises:
        UsageError: guidance out of range, or of a model that learned no images without captions; an unknown class or
            word, too many images, or more ids given than an image has.
    """
    sampling = sampling or Sampling()
    begin = [] if given is None else np.asarray(given).ravel().tolist()
    left, n_ids = processor.n_pieces - len(begin), processor.n_piece_ids
    if left < 0 or not all(0 <= number < n_ids for number in begin):
        raise UsageError(f"{len(begin)} ids are given; an image has {processor.n_pieces} from 0 to {n_ids - 1}")
    if len(labels) > MAX_IMAGES:
        raise UsageError(f"{len(labels):,} images; at most {MAX_IMAGES:,} are written at once")
    check_guidance(guidance, processor)
    if left == 0 or not labels:
        return np.tile(np.array(begin, dtype=np.int64), (len(labels), 1)).reshape(len(labels), *processor.grid_size)
    prompts = [[*processor.condition(label), *begin] for label in labels]
    if guidance != 1:
        without = [[*processor.no_condition, *begin] for _ in labels]
        found: list[list[int]] = []
        for start in range(0, len(labels), ROWS):
            part = slice(start, start + ROWS)
            rest = replace(sampling, seed=sampling.seed + start)
            found += sample_guided(model, prompts[part], without[part], left, rest, guidance=guidance, n_ids=n_ids)
        return np.array([begin + row for row in found]).reshape(len(labels), *processor.grid_size)
    no_pixels = dict.fromkeys(range(n_ids, processor.tokenizer.vocab_size), -MAX_BIAS)
    requests = [
        Request(
            tuple(prompt),
            max_new_tokens=left,
            sampling=replace(sampling, seed=sampling.seed + number),
            end_tokens=frozenset(),
            logit_bias=no_pixels,
        )
        for number, prompt in enumerate(prompts)
    ]
    written: dict[int, list[int]] = {}
    for event in Engine(model, processor.tokenizer, max_rows=min(ROWS, len(labels))).run(*requests):
        if event.piece is not None:
            written.setdefault(event.request, list(begin)).append(event.piece.token)
    return np.array([written[number] for number in range(len(labels))]).reshape(len(labels), *processor.grid_size)


def check_guidance(guidance: float, processor: ImageTokenProcessor) -> None:
    """Raise `UsageError` where guidance is out of range, or the model learned no images without captions."""
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise UsageError(f"guidance={guidance:g} is out of range; use 0 to {MAX_GUIDANCE}; 1 is none")
    if guidance != 1 and not processor.drops_captions:
        raise UsageError("the model learned no images without captions; train one with task.drop_captions=0.1")


def class_log_probabilities(
    model: Any, processor: ImageTokenProcessor, ids_ND: np.ndarray, labels: Sequence[str] | None = None
) -> np.ndarray:
    """log p(image | class) in nats of the first D pixels or patches of images in raster order, for every class, or for
    each of `labels`, classes or captions: (N, labels). The one with the largest number is Bayes' answer where all are
    equally frequent.

    Raises:
        UsageError: more than an image has; an unknown class or word.
    """
    N, D = ids_ND.shape
    if not 1 <= D <= processor.n_pieces:
        raise UsageError(f"{plural(D, 'id')}; an image has {processor.n_pieces}")
    device = next(model.parameters()).device
    pixels_ND = torch.from_numpy(ids_ND.astype(np.int64)).to(device)
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
