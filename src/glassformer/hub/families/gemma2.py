"""`Gemma2ForCausalLM`: norms on both sides of each layer, soft caps, windows in every second layer.

Gemma Team 2024, https://arxiv.org/abs/2408.00118, sect. 2. What sets the Gemmas apart from a Llama:

    norms       before and behind each layer, their scales kept as the difference from one
    layers      `layer_types` names each: a window of `sliding_window` tokens (a query and the w - 1 before it), or all
    embedding   times sqrt(C). transformers rounds this number to the weights' format, here it is exact: in bf16
                sqrt(1152) = 33.94 is 34 there
    scores      times `query_pre_attn_scalar`^(-1/2), which need not be the head's width; in Gemma 2 soft-capped
    logits      soft-capped (in Gemma 3 no longer)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from glassformer.hub.families.family import refuse
from glassformer.hub.families.layer_types import (
    MOST_LAYERS,
    are_windows_of_one_width,
    every,
    patterns_of,
    types_of,
    window_of,
)
from glassformer.hub.families.modern import Modern
from glassformer.models import ModelConfig

SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_norm_after": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_norm_after": "post_feedforward_layernorm",
}


class Gemma(Modern):
    """What Gemma 2 and Gemma 3 share. They insist on n_embd being a multiple of n_head."""

    free = frozenset({"patterns", "embedding_scale", "attention_scale", "logit_softcap"})
    norms = SANDWICH
    activation_word = "hidden_activation"
    defaults: ClassVar = {
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    }
    period = 2  # every so many layers one sees all, where config.json names none

    def fits(self, c: ModelConfig) -> bool:
        return (
            c.n_embd % c.n_head == 0
            and math.isclose(c.embedding_scale, math.sqrt(c.n_embd))
            and (c.attention_scale is None or math.isclose(c.attention_scale, _query_scalar(c) ** -0.5))
            and are_windows_of_one_width(c)
        )

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        return {
            "hidden_activation": {"gelu_new": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
            "query_pre_attn_scalar": _query_scalar(c),
            "final_logit_softcapping": c.logit_softcap,
            "attn_logit_softcapping": c.attention_softcap,
            "sliding_window": window_of(c) or c.block_size,
            "layer_types": types_of(c),
            "attention_bias": False,
        }

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse(given, "use_bidirectional_attention", "vision_config", "attention_bias")
        n_layer, scalar = given["num_hidden_layers"], given["query_pre_attn_scalar"]
        period = given.get("sliding_window_pattern", self.period)
        types = given.get("layer_types") or every(period, min(n_layer, MOST_LAYERS))
        return {
            "embedding_scale": math.sqrt(given["hidden_size"]),
            "attention_scale": None if scalar == given["head_dim"] else scalar**-0.5,
            "logit_softcap": given.get("final_logit_softcapping"),
            "patterns": patterns_of(types, n_layer, given["sliding_window"]),
        }


class Gemma2(Gemma):
    """`gemma2`."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    free = Gemma.free | {"attention_softcap"}
    fixed: ClassVar = {"qk_norm": False, "norm": "zero_centered_rmsnorm", "norm_place": "sandwich"}
    defaults: ClassVar = {**Gemma.defaults, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super().own_fields(given), "attention_softcap": given["attn_logit_softcapping"]}


def _query_scalar(c: ModelConfig) -> int:
    """The whole number that comes nearest to the square of what scores are divided by."""
    divisor = math.sqrt(c.head_width) if c.attention_scale is None else 1 / c.attention_scale
    return max(1, round(min(divisor * divisor, 1e9)))
