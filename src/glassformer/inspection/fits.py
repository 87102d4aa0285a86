"""Which views apply to a model, found without running them: the checks with which the views themselves begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from glassformer.errors import UsageError
from glassformer.generation.encoders import check_encoder
from glassformer.generation.fill_mask import mask_of
from glassformer.inspection.look import Subject
from glassformer.inspection.options import options_of
from glassformer.inspection.promoters import check_linear_neurons
from glassformer.inspection.reading import check_writes, reader_of, stack_of
from glassformer.inspection.stream import answers_of, check_token_head
from glassformer.inspection.vectors import embedding_of
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.taps import named_taps
from glassformer.view_options import inputs_of
from glassformer.views import VIEWS, find


def why_not(view: str, subject: Subject) -> str | None:
    """Why a view does not apply to a model, in a line; None: it applies, as far as its parts show; it is not run."""
    function = find(view).load()
    needs = inputs_of(function)
    if getattr(subject.model, "reads", "") == "image_text" and "model_or_size" not in needs:
        sides = [
            replace(subject, model=subject.model.image, processor=None),
            replace(subject, model=subject.model.text),
        ]
        if subject.processor is not None:
            sides[1] = replace(sides[1], tokenizer=subject.processor.tokenizer, processor=None)
        reasons = [why_not(view, side) for side in sides]
        return None if None in reasons else reasons[0]
    try:
        if "vectors" in needs:
            embedding_of(subject.model)
        if "input_tokenizer" in needs and not isinstance(subject.input_tokenizer, Tokenizer):
            raise UsageError("this model reads no text and has no tokens")
        check = CHECKS.get(find(view).function if view in VIEWS else view)
        if check is not None:
            check(subject)
    except UsageError as error:
        return str(error)
    return None


def takes_file(view: str, subject: Subject) -> bool:
    """Whether a view opens a file of what the model reads: a picture, a sound, an episode."""
    function = find(view).load()
    named = {"text", "sound"} & options_of(function).model_fields.keys()
    return subject.processor is not None and bool(named) and "model" in inputs_of(function)


def _writes_text(s: Subject) -> None:
    check_writes(s.model)


def _stack(s: Subject) -> Any:
    return stack_of(s.model)[0]


def _attends(s: Subject) -> None:
    if "attention.pattern" not in named_taps(s.model):
        _stack(s)


def _links_words(s: Subject) -> None:
    _attends(s)
    if s.model.reads != "text" and "target" not in s.model.answers:
        raise UsageError(f"this {type(s.model).__name__} reads no text")


def _is_steered(s: Subject) -> None:
    _writes_text(s)
    if not isinstance(s.model, Decoder):
        raise UsageError(f"a {type(s.model).__name__} is not steered; take a model that continues a text")


def _patches(s: Subject) -> None:
    check_token_head(s.model)
    if "target" in s.model.answers or s.model.reads != "text":
        raise UsageError(f"a {type(s.model).__name__} is not patched; take a decoder, or an encoder with a mask")


def _reads_text(s: Subject) -> None:
    reader_of(s.model, s.input_tokenizer)  # type: ignore[arg-type]


def _hides_tokens(s: Subject) -> None:
    check_encoder(s.model, "write by diffusion")
    if not isinstance(s.tokenizer, Tokenizer) or mask_of(s.model, s.tokenizer) is None:
        raise UsageError("this encoder writes no hidden tokens; train one with task.kind=diffusion")


def _continues(s: Subject) -> None:
    if not isinstance(s.model, Decoder):
        raise UsageError(f"induction is measured on models that continue a text, not on {type(s.model).__name__}")


def _reads(kind: str, what: str) -> Callable[[Subject], None]:
    def check(s: Subject) -> None:
        if s.model.reads != kind:
            raise UsageError(f"this {type(s.model).__name__} reads no {what}")

    return check


def _one_stack(s: Subject) -> None:
    _stack(s)
    if "target" in s.model.answers:
        raise UsageError(f"a {type(s.model).__name__} attends to two texts; roll-out is of a model with one stack")


def _adds_positions(s: Subject) -> None:
    if (positions := _stack(s).config.positions) not in ("learned", "sinusoidal"):
        raise UsageError(f"positions={positions} add no vectors")


def _has_parameters(s: Subject) -> None:
    if s.model is not None and next(iter(s.model.parameters()), None) is None:
        raise UsageError(f"this {type(s.model).__name__} has no parameters: it counts what it has seen")


CHECKS: dict[Any, Callable[[Subject], Any]] = {
    VIEWS[name].function: check
    for names, check in {
        "next surprise compare": _writes_text,
        "diffusion": _hides_tokens,
        "attention attention-grid": _attends,
        "links": _links_words,
        "patching": _patches,
        "promoters": lambda s: check_linear_neurons(s.model),
        "steering": _is_steered,
        "attention-walkthrough residual": _stack,
        "speech": _reads("frames", "sound"),
        "induction": _continues,
        "context neurons": _reads_text,
        "image-attention": _reads("patches", "images"),
        "rollout": _one_stack,
        "positions": _adds_positions,
        "lens attribution ablation": lambda s: answers_of(s.model, s.tokenizer, s.labels),
        "parameters": _has_parameters,
    }.items()
    for name in names.split()
}
"""By the function of a view, so that another view under the same name is not checked for it."""
