"""`Qwen3MoeForCausalLM`: a Qwen3 whose feed-forward is a mixture of experts. https://arxiv.org/abs/2505.09388"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.mixtral import Mixture
from glassformer.hub.families.modern import ATTENTION_BIASES
from glassformer.models import ModelConfig


class Qwen3Moe(Mixture):
    """`qwen3_moe`. `norm_topk_prob` says whether the shares of the chosen experts sum to 1."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    free = Mixture.free | {"expert_shares"}
    fixed: ClassVar = {"qk_norm": True}
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

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        words = super().own_words(c)
        return {
            **words,
            "num_experts": words["num_local_experts"],  # the word of transformers 4
            "moe_intermediate_size": c.n_hidden,
            "norm_topk_prob": c.expert_shares == "active",
            "use_sliding_window": words["sliding_window"] is not None,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        n_layer, step, plain = given["num_hidden_layers"], given["decoder_sparse_step"], given["mlp_only_layers"] or ()
        if step != 1 or any(0 <= layer < n_layer for layer in plain):
            raise ModelFolderError(
                f"decoder_sparse_step={step} and mlp_only_layers={plain}: some layers have experts and others none, "
                "which our models cannot express; take a model whose layers are alike"
            )
        window = given["sliding_window"] if given["use_sliding_window"] else None
        n_expert = given["num_local_experts"] if "num_local_experts" in given else given.get("num_experts", 128)
        return {
            **super().own_fields({**given, "sliding_window": window, "num_local_experts": n_expert}),
            "n_hidden": given["moe_intermediate_size"],
            "expert_shares": "active" if given["norm_topk_prob"] else "all",
        }
