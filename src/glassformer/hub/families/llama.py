"""`LlamaForCausalLM`, which the others of its kind follow, and `Qwen3ForCausalLM`, with QK-norm and windows."""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.hub.families.layer_types import (
    MOST_LAYERS,
    are_windows_of_one_width,
    behind,
    patterns_of,
    types_of,
    window_of,
)
from glassformer.hub.families.modern import ATTENTION_BIASES, MLP_BIASES, Modern
from glassformer.models import ModelConfig


class Llama(Modern):
    """`llama`. It insists on n_embd being a multiple of n_head."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    fixed: ClassVar = {"qk_norm": False}
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}

    def fits(self, c: ModelConfig) -> bool:
        return c.n_embd % c.n_head == 0


class LastLayersWindowed(Modern):
    """Families in which the first `max_window_layers` layers see all and the others a window, or `layer_types` names
    them; no windows at all where `use_sliding_window` is false."""

    free = frozenset({"patterns"})
    defaults: ClassVar = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

    def fits(self, c: ModelConfig) -> bool:
        return are_windows_of_one_width(c)

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        types, window = types_of(c), window_of(c)
        first = next((n for n in range(c.n_layer + 1) if behind(n, c.n_layer) == types), None)
        return {
            "use_sliding_window": window is not None,
            "sliding_window": window,
            # the only way to say it before transformers 4.53
            **({} if first is None else {"max_window_layers": first}),
            "layer_types": types,
        }

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        n_layer = given["num_hidden_layers"]
        window = given["sliding_window"] if given["use_sliding_window"] else None
        first = given["max_window_layers"] if window is not None else n_layer
        types = given.get("layer_types") or behind(first, min(n_layer, MOST_LAYERS))
        return {"patterns": patterns_of(types, n_layer, window)}


class Qwen3(LastLayersWindowed):
    """`qwen3`."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    fixed: ClassVar = {"qk_norm": True}
    defaults: ClassVar = {**LastLayersWindowed.defaults, "head_dim": 128}
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES}
