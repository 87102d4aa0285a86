"""`SmolLM3ForCausalLM`: a Llama whose every fourth layer has no positions (NoPE).

https://huggingface.co/blog/smollm3; Yang et al. 2025, https://arxiv.org/abs/2501.18795.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError, plural
from glassformer.hub.families.layer_types import (
    FULL,
    LOCAL,
    MOST_LAYERS,
    are_windows_of_one_width,
    patterns_of,
    shortest,
    types_of,
    window_of,
)
from glassformer.hub.families.llama import ATTENTION_BIASES, MLP_BIASES, LlamaLike
from glassformer.models import ModelConfig


class SmolLM3(LlamaLike):
    """`smollm3`. `no_rope_layers` has a 1 for each layer that turns by positions, for all its name."""

    model_type = "smollm3"
    architecture = "SmolLM3ForCausalLM"
    free = frozenset({"patterns", "positioned_layers"})
    defaults: ClassVar = {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
    }
    base = 2_000_000.0
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}

    def fits(self, c: ModelConfig) -> bool:
        return are_windows_of_one_width(c)

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        window = window_of(c)
        return {
            "no_rope_layers": [int(c.is_positioned(layer)) for layer in range(c.n_layer)],
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "layer_types": types_of(c),
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        n_layer, window = given["num_hidden_layers"], given.get("sliding_window")
        layers = range(min(n_layer, MOST_LAYERS))
        turned = given.get("no_rope_layers")
        if turned is None:
            turned = [(layer + 1) % given["no_rope_layer_interval"] != 0 for layer in layers]
        if len(turned) != n_layer and n_layer <= MOST_LAYERS:
            raise ModelFolderError(
                f"no_rope_layers names {plural(len(turned), 'layer')} where num_hidden_layers={n_layer}; give each "
                "layer a 0 or a 1"
            )
        turned = [bool(layer) for layer in turned]
        windowed = given["use_sliding_window"] and window is not None
        types = given.get("layer_types") or [LOCAL if windowed and not turned[layer] else FULL for layer in layers]
        return {
            **super().extra_fields(given),
            "positioned_layers": None if all(turned) else shortest(turned),
            "patterns": patterns_of(types, n_layer, window),
        }
