"""`Olmo2ForCausalLM`: norms on what a layer writes and none on what it reads, and QK-norm over all heads together.

OLMo Team 2024, https://arxiv.org/abs/2501.00656, sect. 3.2.
"""

from __future__ import annotations

from typing import ClassVar

from glassformer.hub.families.llama import ATTENTION_BIASES, FIXED, LlamaLike


class Olmo2(LlamaLike):
    """`olmo2`."""

    model_type = "olmo2"
    architecture = "Olmo2ForCausalLM"
    fixed: ClassVar = {**FIXED, "qk_norm": True, "qk_norm_over": "all", "norm_place": "output"}
    defaults: ClassVar = {"rms_norm_eps": 1e-5}
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES}
    norms: ClassVar = {
        "attention_norm": "post_attention_layernorm",
        "feedforward_norm": "post_feedforward_layernorm",
    }
