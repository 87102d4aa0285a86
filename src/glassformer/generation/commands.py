"""Which commands of `glassformer` use a model."""

from __future__ import annotations

from typing import Any

from glassformer.generation.fill_mask import mask_of, sentinels_of
from glassformer.processors.tokenizers import Tokenizer


def commands_for(model: Any, tokenizer: Tokenizer) -> list[str]:
    """The commands that use this model, the most fitting one first."""
    config = model.config
    if model.reads == "patches" and "class" in model.answers:
        return ["classify"] if model.classifier is not None else []
    if model.reads != "text":
        return []
    if hasattr(model, "encode"):
        return ["fill", "translate"] if sentinels_of(tokenizer) else ["translate"]
    if not hasattr(config, "stem"):
        return ["generate"] if hasattr(model, "logits") else []  # word vectors answer nothing
    uses = {
        "classify": model.classifier is not None,
        "tag": config.token_head == "classes",
        "fill": mask_of(model, tokenizer) is not None,
    }
    return [command for command, fits in uses.items() if fits]
