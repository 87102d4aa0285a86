"""`SmolLM3ForCausalLM`: a Llama whose every fourth layer has no positions (NoPE).

https://huggingface.co/blog/smollm3; Yang et al. 2025, https://arxiv.org/abs/2501.18795.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError, plural
from glassformer.hub.families.layer_types import FULL, LOCAL, MOST_LAYERS, shortest
from glassformer.hub.families.llama import ATTENTION_BIASES, MLP_BIASES, Windowed
from glassformer.models import ModelConfig


class SmolLM3(Windowed):
    """`smollm3`. `no_rope_layers` has a 1 for each layer that turns by positions, for all its name."""

    model_type = "smollm3"
    architecture = "SmolLM3ForCausalLM"
    free = Windowed.free | {"positioned_layers"}
    defaults: ClassVar = {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
    }
    base = 2_000_000.0
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        keys = super().extra_keys(c)
        return {
            **keys,
            "no_rope_layers": [int(c.is_positioned(layer)) for layer in range(c.n_layer)],
            "use_sliding_window": keys["sliding_window"] is not None,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        rotated = _rotated_layers(given)
        return {**super().extra_fields(given), "positioned_layers": None if all(rotated) else shortest(rotated)}

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        windowed = given["use_sliding_window"] and self.window(given) is not None
        return given.get("layer_types") or [
            LOCAL if windowed and not rotated else FULL for rotated in _rotated_layers(given)
        ]


def _rotated_layers(given: dict[str, Any]) -> list[bool]:
    """Of each layer, whether it has rotary positions."""
    n_layer, rotated = given["num_hidden_layers"], given.get("no_rope_layers")
    if rotated is None:
        interval = given["no_rope_layer_interval"]
        rotated = [(layer + 1) % interval != 0 for layer in range(min(n_layer, MOST_LAYERS))]
    if len(rotated) != n_layer and n_layer <= MOST_LAYERS:
        n = plural(len(rotated), "layer")
        raise ModelFolderError(f"no_rope_layers names {n} where num_hidden_layers={n_layer}; give each a 0 or a 1")
    return [bool(layer) for layer in rotated]
