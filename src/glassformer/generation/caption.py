"""Images in, captions out: an encoder of patches reads the image, a decoder writes what is to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from glassformer.errors import UsageError
from glassformer.generation.beam import beam_search
from glassformer.generation.seq2seq import Answer, answer_of, with_text
from glassformer.processors.image import ImageProcessor
from glassformer.processors.tokenizers import Tokenizer


def check_captions(model: Any, processor: Any) -> None:
    """Raise `UsageError` unless a model writes captions of the images of the processor."""
    if model.reads != "patches" or "target" not in model.answers:
        raise UsageError(
            f"this {type(model).__name__} writes no captions of images; train one: glassformer train captions"
        )
    if not isinstance(processor, ImageProcessor):
        raise UsageError("the model's folder has no preprocessor_config.json, which says how images are read; add it")


def caption(
    model: Any,
    tokenizer: Tokenizer,
    processor: Any,
    images: Sequence[Any],
    *,
    beam: int = 1,
    n_best: int = 1,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
) -> list[Answer]:
    """The caption of each image, a path, an array or a `PIL.Image`.

    Args:
        beam: width of the search; 1 takes the most likely token each time. n_best: captions of each image.
        max_new_tokens: None: as many as the model writes.

    Raises:
        UsageError: the model writes no captions, or a setting is out of range. DataError: an image cannot be read.
    """
    check_captions(model, processor)
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} is out of range; use 1 or more")
    device, found = next(model.parameters()).device, list[Answer]()
    settings: dict[str, Any] = {"n_tokens": tokenizer.vocab_size, "missing": tokenizer.missing_ids}
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(processor.encode_batch(images[start : start + batch_size])).to(device)
        rows = beam_search(
            model,
            pixels,
            beam=beam,
            n_best=n_best,
            max_new_tokens=max_new_tokens or model.config.block_size,
            **settings,
        )
        found += [with_text(answer_of(hypotheses), tokenizer) for hypotheses in rows]
    return found
