"""`Gemma3ForCausalLM`, the text models of Gemma 3: windows between layers that see all, norms on both sides.

Gemma Team 2025, https://arxiv.org/abs/2503.19786, sect. 2. What sets it apart from a Qwen3:

    norms       before and behind each layer, their scales kept as the difference from one
    layers      `layer_types` names each: a window of `sliding_window` tokens (a query and the w - 1 before it), or all
    rotary      in windows by a base of its own, unscaled
    embedding   times sqrt(C). transformers rounds this number to the weights' format, here it is exact: in bf16
                sqrt(1152) = 33.94 is 34 there
    scores      times `query_pre_attn_scalar`^(-1/2), which need not be the head's width
"""

from __future__ import annotations

import math
from typing import Any

from glassformer.errors import ModelFolderError, plural
from glassformer.interchange.family import Family, activation, agrees, refuse
from glassformer.interchange.llama import SCALINGS, modern_table, scaling_of
from glassformer.interchange.tables import Row, Tensors, with_head
from glassformer.layers import Causal, Window
from glassformer.models import ModelConfig

LOCAL, FULL = "sliding_attention", "full_attention"


class Gemma3(Family):
    """`gemma3_text`. It insists on n_embd being a multiple of n_head."""

    model_type = "gemma3_text"
    configuration = ModelConfig

    def expresses(self, c: ModelConfig) -> bool:
        patterns = c.layer_patterns()
        windows = {pattern for pattern in patterns if isinstance(pattern, Window)}
        return (
            agrees(
                c,
                free={
                    *("n_kv_head", "head_width", "norm_eps", "activation", "tied_head", "logit_softcap", "patterns"),
                    *("rotary_base", "rotary_base_local", "rotary_scaling", "embedding_scale", "attention_scale"),
                },
                positions="rotary",
                norm="zero_centered_rmsnorm",
                norm_place="sandwich",
                feedforward="gated",
                bias=False,
                qk_norm=True,
            )
            and c.activation in ("silu", "gelu", "gelu_new", "relu", "relu2")
            and c.n_embd % c.n_head == 0
            and math.isclose(c.embedding_scale, math.sqrt(c.n_embd))
            and (c.attention_scale is None or math.isclose(c.attention_scale, _query_scalar(c) ** -0.5))
            and len(windows) <= 1
            and all(isinstance(pattern, (Causal, Window)) for pattern in patterns)
            and (c.rotary_scaling is None or c.rotary_scaling.rope_type in SCALINGS)
            and (c.rotary_scaling is None or c.rotary_base_local is not None or not windows)
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        scaling = {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()
        local_base = c.rotary_base_local or c.rotary_base
        patterns = c.layer_patterns()
        types = [LOCAL if isinstance(pattern, Window) else FULL for pattern in patterns]
        period = next((n for n in range(1, c.n_layer + 2) if _every(n, c.n_layer) == types), None)
        return {
            "architectures": ["Gemma3ForCausalLM"],
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.block_size,
            "hidden_size": c.n_embd,
            "num_hidden_layers": c.n_layer,
            "num_attention_heads": c.n_head,
            "num_key_value_heads": c.n_kv_head,
            "head_dim": c.head_width,
            "intermediate_size": c.n_hidden,
            "hidden_activation": {"gelu_new": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
            "rms_norm_eps": c.norm_eps,
            "query_pre_attn_scalar": _query_scalar(c),
            "final_logit_softcapping": c.logit_softcap,
            "attn_logit_softcapping": None,
            "sliding_window": next((p.width for p in patterns if isinstance(p, Window)), c.block_size),
            # every n-th layer sees all: transformers before 4.53 knows no other way to say which are which
            **({} if period is None else {"sliding_window_pattern": period}),
            "layer_types": types,
            # the old keys and the new one: transformers 4 reads the first three, transformers 5 the last
            "rope_theta": c.rotary_base,
            "rope_local_base_freq": local_base,
            **({} if c.rotary_scaling is None else {"rope_scaling": scaling}),
            "rope_parameters": {
                FULL: {**scaling, "rope_theta": c.rotary_base},
                LOCAL: {"rope_type": "default", "rope_theta": local_base},
            },
            "attention_bias": False,
            "tie_word_embeddings": c.tied_head,
            "attention_dropout": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        refuse(given, "use_bidirectional_attention", "vision_config", "attention_bias")
        if given.get("attn_logit_softcapping"):
            raise ModelFolderError(
                "config.json sets attn_logit_softcapping, which transformers does not apply in this family; "
                "set it to null to read the model as it computes there"
            )
        heads, width = given["num_attention_heads"], given.get("head_dim", 256)
        full, local = _rope(given)
        scaling = scaling_of(full, given["max_position_embeddings"])
        patterns = _patterns(given)
        one_base = patterns is None or (scaling is None and local["rope_theta"] == full["rope_theta"])
        scalar = given.get("query_pre_attn_scalar", 256)
        return ModelConfig.make(
            family="modern",
            vocab_size=given["vocab_size"],
            block_size=given["max_position_embeddings"],
            n_embd=given["hidden_size"],
            n_layer=given["num_hidden_layers"],
            n_head=heads,
            n_kv_head=given["num_key_value_heads"],
            head_width=width,
            n_hidden=given["intermediate_size"],
            activation=activation(given.get("hidden_activation", "gelu_pytorch_tanh")),
            norm="zero_centered_rmsnorm",
            norm_place="sandwich",
            norm_eps=given.get("rms_norm_eps", 1e-6),
            embedding_scale=math.sqrt(given["hidden_size"]),
            attention_scale=None if scalar == width else scalar**-0.5,
            logit_softcap=given.get("final_logit_softcapping"),
            patterns=patterns,
            rotary_base=float(full["rope_theta"]),
            rotary_base_local=None if one_base else float(local["rope_theta"]),
            rotary_scaling=scaling,
            tied_head=given.get("tie_word_embeddings", True),
        )

    def table(self, c: ModelConfig) -> list[Row]:
        return modern_table(
            c,
            attention_norm="input_layernorm",
            attention_norm_after="post_attention_layernorm",
            feedforward_norm="pre_feedforward_layernorm",
            feedforward_norm_after="post_feedforward_layernorm",
        )

    def tidy(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        return with_head(theirs, "model.embed_tokens.weight", "lm_head.weight", tied=c.tied_head)


def _query_scalar(c: ModelConfig) -> int:
    """The whole number that comes nearest to the square of what scores are divided by."""
    divisor = math.sqrt(c.head_width) if c.attention_scale is None else 1 / c.attention_scale
    return max(1, round(min(divisor * divisor, 1e9)))


def _every(n: int, n_layer: int) -> list[str]:
    """The types of layers of which every n-th sees all."""
    return [LOCAL if (number + 1) % n else FULL for number in range(n_layer)]


def _patterns(given: dict[str, Any]) -> list[str] | None:
    """Our patterns for their layers, as few as say it; None where all see all."""
    n_layer = min(given["num_hidden_layers"], 1000)  # more is refused afterwards
    window = given.get("sliding_window", 4096)
    types = given.get("layer_types") or _every(given.get("sliding_window_pattern", 6), n_layer)
    if len(types) != n_layer:
        raise ModelFolderError(f"layer_types names {plural(len(types), 'layer')} where num_hidden_layers={n_layer}")
    if unknown := [kind for kind in types if kind not in (LOCAL, FULL)]:
        raise ModelFolderError(f"layer_types: {unknown[0]!r} is not supported; {LOCAL} and {FULL} are")
    if LOCAL not in types:
        return None
    if not window:
        raise ModelFolderError(f"sliding_window={window} where layer_types has windows; give it a width")
    period = next(n for n in range(1, n_layer + 1) if all(types[i] == types[i % n] for i in range(n_layer)))
    return [f"window({window})" if kind == LOCAL else "causal" for kind in types[:period]]


def _rope(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Base and scaling of the layers that see all, and of the windows; both have a `rope_theta`.

    transformers 5 says them by the type of layer in `rope_parameters`, transformers 4 in three keys, and where the
    first lacks a word both take it from the others.
    """
    rope = given.get("rope_parameters") or {}
    if rope and not {FULL, LOCAL} & rope.keys():
        raise ModelFolderError(f"rope_parameters says nothing of {FULL} or {LOCAL}, which this family tells apart")
    full = {"rope_theta": given.get("rope_theta") or 1e6, **(rope.get(FULL) or {}), **(given.get("rope_scaling") or {})}
    local = {"rope_theta": given.get("rope_local_base_freq") or 1e4, **(rope.get(LOCAL) or {})}
    if any((words.get("partial_rotary_factor") or 1.0) != 1.0 for words in (given, full, local)):
        raise ModelFolderError(
            "config.json turns a part of each head only (partial_rotary_factor), which this family cannot say"
        )
    if local.get("rope_type", "default") != "default":
        raise ModelFolderError(
            f"rotary scaling {local['rope_type']!r} of {LOCAL} is not supported; only {FULL} is scaled"
        )
    return full, local
