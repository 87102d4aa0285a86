"""Which commands of `glassformer` use a model."""

from __future__ import annotations

from typing import Any

from glassformer.generation.fill_mask import mask_of, sentinels_of
from glassformer.models import DecoderClassifier
from glassformer.processors.tokenizers import Tokenizer


def commands_for(model: Any, tokenizer: Tokenizer) -> list[str]:
    """The commands that use this model, the most fitting one first."""
    of_text = model.reads == "text"
    if of_text and "target" in model.answers:
        return ["fill", "translate"] if sentinels_of(tokenizer) else ["translate"]
    if model.reads == "frames" and "target" in model.answers:
        return ["transcribe"]
    if model.reads == "patches" and "target" in model.answers:
        return ["caption"]
    if of_text and "next_token" in model.answers:
        return ["generate"]
    if "action" in model.answers:
        return ["play"]
    if "speech" in model.answers:
        return ["say"]
    if "similarity" in model.answers:
        return ["classify"]
    if "class" not in model.answers or model.reads == "frames":
        return []  # word vectors answer nothing
    if isinstance(model, DecoderClassifier):  # one number for a text serves roll-outs, and no command
        return ["classify"] if model.config.n_classes > 1 else []
    uses = {
        "classify": model.config.n_classes > 1 and model.classifier is not None,
        "predict": model.config.n_classes == 1,
        "tag": of_text and model.config.token_head == "classes",
        **dict.fromkeys(("fill", "diffuse"), of_text and mask_of(model, tokenizer) is not None),
    }
    return [command for command, fits in uses.items() if fits]
