"""The Qwens.

`Qwen2ForCausalLM`       Qwen 2 and 2.5: biases on query, key and value alone. https://arxiv.org/abs/2407.10671
`Qwen3ForCausalLM`       QK-norm and no biases                                 https://arxiv.org/abs/2505.09388
`Qwen3MoeForCausalLM`    one whose feed-forward is a mixture of experts
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.layer_types import behind
from glassformer.hub.families.llama import ATTENTION_BIASES, FIXED, Windowed
from glassformer.hub.families.mistral import Mixture, OneWindow
from glassformer.models import ModelConfig


class LastLayersWindowed(Windowed):
    """Families in which the first `max_window_layers` layers see all and the others a window, or `layer_types` names
    them; no windows at all where `use_sliding_window` is false."""

    defaults: ClassVar = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        keys = super().extra_keys(c)
        first = next((n for n in range(c.n_layer + 1) if behind(n, c.n_layer) == keys["layer_types"]), None)
        return {
            **keys,
            "use_sliding_window": keys["sliding_window"] is not None,
            # the only form of it before transformers 4.53
            **({} if first is None else {"max_window_layers": first}),
        }

    def window(self, given: dict[str, Any]) -> int | None:
        return given["sliding_window"] if given["use_sliding_window"] else None

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        n_layer = given["num_hidden_layers"]
        first = n_layer if self.window(given) is None else given["max_window_layers"]
        return given.get("layer_types") or behind(first, n_layer)


class Qwen2(LastLayersWindowed):
    """`qwen2`. Its heads fill the width: transformers has no key for another one."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    classifier = "Qwen2ForSequenceClassification"
    fixed: ClassVar = {**FIXED, "qkv_bias": True}

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and c.head_width * c.n_head == c.n_embd


class Qwen3(LastLayersWindowed):
    """`qwen3`."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    classifier = "Qwen3ForSequenceClassification"
    fixed: ClassVar = {**FIXED, "qk_norm": True}
    defaults: ClassVar = {**LastLayersWindowed.defaults, "head_dim": 128}
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES}


class Qwen3Moe(Mixture, OneWindow):
    """`qwen3_moe`. `norm_topk_prob`: whether the shares of the chosen experts sum to 1."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    free = Mixture.free | {"expert_shares"}
    fixed: ClassVar = {**FIXED, "qk_norm": True}
    defaults: ClassVar = {
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    }
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES}
    router, experts = "mlp.gate", "mlp.experts"
    gate_up_down = ("gate_proj", "up_proj", "down_proj")

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        keys = super().extra_keys(c)
        return {
            **keys,
            "num_experts": keys["num_local_experts"],  # the key of transformers 4
            "moe_intermediate_size": c.n_hidden,
            "norm_topk_prob": c.expert_shares == "active",
            "use_sliding_window": keys["sliding_window"] is not None,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        n_layer, step, plain = given["num_hidden_layers"], given["decoder_sparse_step"], given["mlp_only_layers"] or ()
        if step != 1 or any(0 <= layer < n_layer for layer in plain):
            raise ModelFolderError(
                f"decoder_sparse_step={step}, mlp_only_layers={plain}: experts in some layers only are not supported"
            )
        n_expert = given["num_local_experts"] if "num_local_experts" in given else given.get("num_experts", 128)
        return {
            **super().extra_fields({**given, "num_local_experts": n_expert}),
            "n_hidden": given["moe_intermediate_size"],
            "expert_shares": "active" if given["norm_topk_prob"] else "all",
        }

    def window(self, given: dict[str, Any]) -> int | None:
        return given["sliding_window"] if given["use_sliding_window"] else None
