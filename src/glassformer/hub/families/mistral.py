"""`MistralForCausalLM`: a Llama in which every layer may have a window. https://arxiv.org/abs/2310.06825, sect. 2."""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.hub.families.layer_types import (
    FULL,
    LOCAL,
    MOST_LAYERS,
    are_windows_of_one_width,
    patterns_of,
    window_of,
)
from glassformer.hub.families.modern import Modern
from glassformer.models import ModelConfig


class OneWindow(Modern):
    """Families in which all layers have the window of `sliding_window` tokens, or none has."""

    free = frozenset({"patterns"})

    def fits(self, c: ModelConfig) -> bool:
        return are_windows_of_one_width(c) and len({*c.layer_patterns()}) == 1

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        return {"sliding_window": window_of(c)}

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        window, n_layer = given.get("sliding_window"), given["num_hidden_layers"]
        types = [LOCAL if window is not None else FULL] * min(n_layer, MOST_LAYERS)
        return {"patterns": patterns_of(types, n_layer, window)}


class Mistral(OneWindow):
    """`mistral`."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    fixed: ClassVar = {"qk_norm": False}
    defaults: ClassVar = {"num_key_value_heads": 8, "sliding_window": 4096}
