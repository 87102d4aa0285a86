"""The Gemmas, text models: norms on both sides of each layer, windows in most of them.

`Gemma2ForCausalLM`    soft caps, every second layer sees all; 2024, https://arxiv.org/abs/2408.00118, sect. 2
`Gemma3ForCausalLM`    QK-norm and no soft caps, every sixth layer sees all, windows have a rotary base of their own,
                       unscaled; 2025, https://arxiv.org/abs/2503.19786, sect. 2

What sets them apart from a Llama:

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

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import refuse
from glassformer.hub.families.layer_types import FULL, LOCAL, every, types_of, window_of
from glassformer.hub.families.llama import FIXED, PARTIAL, LlamaLike, Windowed
from glassformer.hub.families.rope import scaling_keys, scaling_of
from glassformer.models import ModelConfig

NORMS = {**FIXED, "norm": "zero_centered_rmsnorm", "norm_place": "sandwich"}


class Gemma(Windowed):
    """What Gemma 2 and Gemma 3 share. They insist on n_embd being a multiple of n_head."""

    free = Windowed.free | {"embedding_scale", "attention_scale", "logit_softcap"}
    norms: ClassVar = {
        "attention_norm": "input_layernorm",
        "attention_norm_after": "post_attention_layernorm",
        "feedforward_norm": "pre_feedforward_layernorm",
        "feedforward_norm_after": "post_feedforward_layernorm",
    }
    keys: ClassVar = {
        **{key: field for key, field in LlamaLike.keys.items() if field != "activation"},
        "hidden_activation": "activation",
    }
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
            super().fits(c)
            and c.n_embd % c.n_head == 0
            and math.isclose(c.embedding_scale, math.sqrt(c.n_embd))
            and (c.attention_scale is None or math.isclose(c.attention_scale, _query_scalar(c) ** -0.5))
        )

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {
            **super().extra_keys(c),
            "hidden_activation": {"gelu_new": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
            "query_pre_attn_scalar": _query_scalar(c),
            "final_logit_softcapping": c.logit_softcap,
            "attn_logit_softcapping": c.attention_softcap,
            "sliding_window": window_of(c) or c.block_size,
            "attention_bias": False,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse(given, "use_bidirectional_attention", "vision_config", "attention_bias")
        scalar = given["query_pre_attn_scalar"]
        return {
            **super().extra_fields(given),
            "embedding_scale": math.sqrt(given["hidden_size"]),
            "attention_scale": None if scalar == given["head_dim"] else scalar**-0.5,
            "logit_softcap": given.get("final_logit_softcapping"),
        }

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        period = given.get("sliding_window_pattern", self.period)
        return given.get("layer_types") or every(period, given["num_hidden_layers"])


class Gemma2(Gemma):
    """`gemma2`."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    free = Gemma.free | {"attention_softcap"}
    fixed: ClassVar = NORMS
    defaults: ClassVar = {**Gemma.defaults, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super().extra_fields(given), "attention_softcap": given["attn_logit_softcapping"]}


class Gemma3(Gemma):
    """`gemma3_text`."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    free = Gemma.free | {"rotary_base_local"}
    fixed: ClassVar = {**NORMS, "qk_norm": True}
    period = 6

    def fits(self, c: ModelConfig) -> bool:
        unscaled = c.rotary_scaling is None or c.rotary_base_local is not None or window_of(c) is None
        return super().fits(c) and unscaled

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        local_base = c.rotary_base_local or c.rotary_base
        period = next((n for n in range(1, c.n_layer + 2) if every(n, c.n_layer) == types_of(c)), None)
        return {
            **super().extra_keys(c),
            # every n-th layer sees all: transformers before 4.53 has no other way to list them
            **({} if period is None else {"sliding_window_pattern": period}),
            # the old keys and the new one: transformers 4 reads rope_theta, this one and rope_scaling, 5 the last
            "rope_local_base_freq": local_base,
            "rope_parameters": {
                FULL: {**scaling_keys(c), "rope_theta": c.rotary_base},
                LOCAL: {"rope_type": "default", "rope_theta": local_base},
            },
        }

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        full, local = _rope(given)
        scaling = scaling_of(full, given["max_position_embeddings"])
        has_windows = LOCAL in self.layer_types(given)
        one_base = not has_windows or (scaling is None and local["rope_theta"] == full["rope_theta"])
        return {
            "rotary_base": float(full["rope_theta"]),
            "rotary_base_local": None if one_base else float(local["rope_theta"]),
            "rotary_scaling": scaling,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("attn_logit_softcapping"):
            raise ModelFolderError("transformers ignores attn_logit_softcapping in this family; set it to null")
        return super().extra_fields(given)


def _query_scalar(c: ModelConfig) -> int:
    """The whole number that comes nearest to the square of what scores are divided by."""
    divisor = math.sqrt(c.head_width) if c.attention_scale is None else 1 / c.attention_scale
    return max(1, round(min(divisor * divisor, 1e9)))


def _rope(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Base and scaling of the layers that see all, and of the windows; both have a `rope_theta`.

    transformers 5 has them by the type of layer in `rope_parameters`, transformers 4 in three keys, and where the
    first lacks a word both take it from the others.
    """
    rope = given.get("rope_parameters") or {}
    if rope and not {FULL, LOCAL} & rope.keys():
        raise ModelFolderError(f"rope_parameters lacks {FULL} or {LOCAL}, which differ in this family")
    full = {"rope_theta": given.get("rope_theta") or 1e6, **(rope.get(FULL) or {}), **(given.get("rope_scaling") or {})}
    local = {"rope_theta": given.get("rope_local_base_freq") or 1e4, **(rope.get(LOCAL) or {})}
    if any((words.get("partial_rotary_factor") or 1.0) != 1.0 for words in (given, full, local)):
        raise ModelFolderError(PARTIAL)
    if local.get("rope_type", "default") != "default":
        kind = local["rope_type"]
        raise ModelFolderError(f"rotary scaling {kind!r} of {LOCAL} is not supported; only {FULL} is scaled")
    return full, local
