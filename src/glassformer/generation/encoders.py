"""Reading texts with an encoder: the classes of a text, and one vector for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import DivergenceError, UsageError, plural
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.requests import check_ids
from glassformer.generation.shifts import check_shift, class_probabilities
from glassformer.models import DecoderClassifier
from glassformer.processors.tokenizers import Tokenizer

FIRST, LAST = "[CLS]", "[SEP]"
"""What BERT's tokenizers put around every text. Our own encoders read the text alone."""


def classify(model: Any, processor: Any, inputs: Sequence[Any], *, batch_size: int = 64, shift: float = 0.0) -> Tensor:
    """Probability of each class for each input: (N, classes).

    Args:
        processor: a tokenizer for texts, an `ImageProcessor` for images. inputs: texts, of which one longer than the
            model reads loses its end, as in training; or images, as paths, arrays or `PIL.Image`s.
        shift: of images, the mean over five copies that are moved so many pixels (`generation/shifts.py`); 0: off.

    Raises:
        UsageError: the model has no classes, or a text is empty. DataError: an image cannot be read.
    """
    if model.reads == "patches" and model.classifier is not None:
        return _classify_images(model, processor, inputs, batch_size, shift)
    if shift:
        raise UsageError(f"shift={shift:g} is for classifiers of images; leave it out")
    if hasattr(processor, "arguments") and model.config.n_classes > 1:
        found = _read(model, processor, inputs, batch_size, model.sequence_logits)
        return torch.cat(found).softmax(dim=-1) if found else torch.zeros(0, model.config.n_classes)
    if not isinstance(model, DecoderClassifier):
        check_encoder(model, "classify texts")
    if model.classifier is None:
        raise UsageError("this encoder knows no classes of texts; train one with task.kind=classify")
    if model.config.n_classes == 1:
        raise UsageError("this model gives one number and no classes; use glassformer predict")
    rows = [around(processor, text_ids(processor, text, number), model) for number, text in enumerate(inputs, 1)]
    found = read_in_batches(model, rows, batch_size, model.sequence_logits)
    return torch.stack(found).softmax(dim=-1) if found else torch.zeros(0, model.config.n_classes)


def predict(model: Any, processor: Any, inputs: Sequence[Any], *, batch_size: int = 64) -> Tensor:
    """The number that the model predicts for each input, in the unit of what it learned: (N,).

    Args:
        processor, inputs: a tokenizer and texts, or the processor of sets or graphs and what it encodes.

    Raises:
        UsageError: the model predicts no number, or a text is empty. DataError: an input cannot be encoded.
    """
    if "number" not in model.answers or model.config.n_classes != 1:
        raise UsageError(
            f"this {type(model).__name__} predicts no number; train one with task.kind=regress or regress_sets"
        )
    if hasattr(processor, "arguments"):
        found = _read(model, processor, inputs, batch_size, model.number)
        return torch.cat(found) if found else torch.zeros(0)
    rows = [around(processor, text_ids(processor, text, number), model) for number, text in enumerate(inputs, 1)]
    read = read_in_batches(model, rows, batch_size, model.number)
    return torch.stack(read) if read else torch.zeros(0)


def _read(
    model: Any, processor: Any, inputs: Sequence[Any], batch_size: int, head: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """`head(vectors_BTC, lengths_B)` of batches of sets or graphs, in fp32."""
    device, found = next(model.parameters()).device, []
    encoded = [processor.encode(each) for each in inputs]
    with evaluating(model):
        for start in range(0, len(encoded), batch_size):
            arrays = processor.arguments(encoded[start : start + batch_size])
            parts = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            found.append(head(model(**parts), parts["lengths_B"]).float().cpu())
    return found


@torch.inference_mode()
def _classify_images(model: Any, processor: Any, images: Sequence[Any], batch_size: int, shift: float) -> Tensor:
    check_shift(shift)
    device, found = next(model.parameters()).device, []
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(processor.encode_batch(images[start : start + batch_size])).to(device)
            found.append(class_probabilities(model, pixels, shift).cpu())
    return torch.cat(found)


def embed(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str | Sequence[int]],
    *,
    normalise: bool = True,
    batch_size: int = 32,
    cut: bool = True,
) -> Tensor:
    """A vector for each text: (N, C) in fp32, its vectors pooled (Reimers and Gurevych 2019,
    https://arxiv.org/abs/1908.10084).

    Args:
        texts: or their ids, with or without the tokens that this tokenizer puts around a text.
        normalise: to length 1, so that a dot product is a cosine.
        cut: a text longer than the model reads loses its end; otherwise it is an error.

    Raises:
        UsageError: the model is no encoder of text, or a text is empty.
        DivergenceError: a vector is no number.
    """
    if getattr(model.config, "stem", None) != "text":
        raise UsageError(
            f"this {type(model).__name__} gives no vectors for texts: an encoder is needed; for example minilm-l6"
        )
    rows = [_ids(model, tokenizer, text, number, cut) for number, text in enumerate(texts, 1)]
    found = read_in_batches(model, rows, batch_size, model.pool)
    vectors_NC = torch.stack(found) if found else torch.zeros(0, model.config.n_embd)
    if not vectors_NC.isfinite().all():
        raise DivergenceError("the model's vectors are no numbers (NaN or infinite); take an earlier checkpoint")
    return torch.nn.functional.normalize(vectors_NC, dim=-1) if normalise else vectors_NC


def around(tokenizer: Tokenizer, ids: list[int], model: Any, cut: bool = True) -> list[int]:
    """A text with the tokens that its tokenizer puts around it, if any; cut to what the model reads.

    Raises:
        UsageError: the model has no vector for a token, or the text is too long and not `cut`.
    """
    check_ids(ids, tokenizer, model.config.vocab_size)
    known = tokenizer.special_tokens
    bare = not (FIRST in known and LAST in known)
    set_length = tokenizer.settings.get("model_max_length")  # sentence encoders read less than they have positions
    has_length = isinstance(set_length, int) and set_length > 2
    most = min(model.config.block_size, set_length if has_length else model.config.block_size) - (0 if bare else 2)
    if not cut and len(ids) > most:
        raise UsageError(f"the text has {plural(len(ids), 'token')} and the model reads {most} at most; shorten it")
    return ids[:most] if bare else [known[FIRST], *ids[:most], known[LAST]]


def read_rows(model: Any, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Vectors (B, T, C) and lengths (B,) of some texts, read in eval mode."""
    device = next(model.parameters()).device
    ids_BT, lengths_B = (part.to(device) for part in padded(rows))
    with evaluating(model):
        return model(ids_BT, lengths_B), lengths_B


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids (B, T), filled up with zeros that the model does not see, and lengths (B,)."""
    lengths = [len(ids) for ids in rows]
    ids_BT = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for row, ids in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.as_tensor(list(ids))
    return ids_BT, torch.tensor(lengths)


def text_ids(tokenizer: Tokenizer, text: str, number: int) -> list[int]:
    """The ids of a text. Raises `UsageError` if it is empty."""
    if not text.strip():
        raise UsageError(f"text {number} is empty; give it one word or leave it out")
    return tokenizer.encode(text)


def check_encoder(model: Any, what: str) -> None:
    """Raise `UsageError` unless the model is an encoder of text."""
    if getattr(model.config, "stem", None) != "text":
        raise UsageError(
            f"this {type(model).__name__} reads {model.reads} and does not {what}: an encoder of text is needed"
        )


def read_in_batches(
    model: Any, rows: list[list[int]], batch_size: int, head: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """`head(vectors_BTC, lengths_B)` of each row, in fp32. Rows of like length are read together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(rows), batch_size):
        batch = order[start : start + batch_size]
        vectors_BTC, lengths_B = read_rows(model, [rows[i] for i in batch])
        with torch.inference_mode():
            found.update(zip(batch, head(vectors_BTC, lengths_B).float().cpu(), strict=True))
    return [found[i] for i in range(len(rows))]


def _ids(model: Any, tokenizer: Tokenizer, text: str | Sequence[int], number: int, cut: bool) -> list[int]:
    """The ids that the model reads for a text."""
    if isinstance(text, str):
        return around(tokenizer, text_ids(tokenizer, text, number), model, cut)
    check_ids(text, tokenizer, model.config.vocab_size)
    whole = around(tokenizer, [], model)
    if whole and len(text) > len(whole) and [text[0], text[-1]] == whole:  # they stand there already
        text = text[1:-1]
    return around(tokenizer, list(text), model, cut)
