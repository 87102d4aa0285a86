"""`GptOssForCausalLM`: experts with clamped gates, a sink in every head, biases, windows in every second layer.

OpenAI 2025, https://arxiv.org/abs/2508.10925. The matrices of all experts of a layer lie in one tensor there, gate and
up row by row in turn, and as (in, out). The published weights are MXFP4, which is not read; in bf16 they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from glassformer.hub.families.layer_types import every, window_of
from glassformer.hub.families.llama import ATTENTION_BIASES, FIXED
from glassformer.hub.families.mistral import Mixture
from glassformer.hub.families.weight_table import IDENTITY, TRANSPOSE, Layout, Row, Stack, layer, one
from glassformer.models import ModelConfig

ALPHA = 1.702  # of `quick_gelu`, x sigmoid(1.702 x)


class GptOss(Mixture):
    """`gpt_oss`."""

    model_type = "gpt_oss"
    architecture = "GptOssForCausalLM"
    free = Mixture.free | {"feedforward_limit"}
    fixed: ClassVar = {
        **FIXED,
        "attention_sinks": True,
        "feedforward": "clamped",
        "activation": "quick_gelu",
        "feedforward_bias": True,
        "router_bias": True,
    }
    defaults: ClassVar = {
        "head_dim": 64,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "attention_bias": True,
    }
    fixed_keys: ClassVar = {"swiglu_alpha": ALPHA}
    base = 150_000.0
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES}

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and c.activation == "quick_gelu"

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {
            **super().extra_keys(c),
            "hidden_act": "silu",  # which nothing there looks at
            "experts_per_token": c.n_expert_active,
            "swiglu_alpha": ALPHA,
            "swiglu_limit": c.feedforward_limit,
            "sliding_window": window_of(c) or c.block_size,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        own = {"activation": "quick_gelu", "feedforward_limit": given["swiglu_limit"]}
        return {**super().extra_fields(given), **own}

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        return given.get("layer_types") or every(2, given["num_hidden_layers"])

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        yarn = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
        if not given.get("rope_parameters") and not given.get("rope_scaling"):
            given = {**given, "rope_parameters": {**yarn, "original_max_position_embeddings": 4096}}
        return super().rope_fields(given)

    def attention_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row]:
        yield from super().attention_rows(c, here, there)
        yield one(f"{here}.sinks", f"{there}.sinks")

    def feedforward_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row | Stack]:
        yield from layer(f"{here}.router", f"{there}.router")
        layouts = {
            "gate_up.weight": TRANSPOSED_PAIRS,
            "gate_up.bias": PAIRS,
            "down.weight": TRANSPOSE,
            "down.bias": IDENTITY,
        }
        for part, layout in layouts.items():
            names = tuple(f"{here}.experts.{number}.{part}" for number in range(c.n_expert))
            theirs = part.replace(".weight", "_proj").replace(".bias", "_proj_bias")
            yield Stack(names, (f"{there}.experts.{theirs}",), layout)


def _in_turn(rows: Tensor) -> Tensor:
    """(2 F, ...) with all gates first -> gate and up in turn."""
    return rows.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def _gates_first(rows: Tensor) -> Tensor:
    """The way back."""
    return rows.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)


PAIRS = Layout(_in_turn, _gates_first)
TRANSPOSED_PAIRS = Layout(lambda ours: _in_turn(ours).t(), lambda theirs: _gates_first(theirs.t()))
