"""`Qwen2ForCausalLM` (Qwen 2 and 2.5): a Llama with biases on query, key and value alone. https://arxiv.org/abs/2407.10671"""

from __future__ import annotations

from typing import ClassVar

from glassformer.hub.families.llama import LastLayersWindowed
from glassformer.models import ModelConfig


class Qwen2(LastLayersWindowed):
    """`qwen2`. Its heads fill the width: transformers has no word for another one."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    fixed: ClassVar = {"qk_norm": False, "qkv_bias": True}

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and c.head_width * c.n_head == c.n_embd
