"""The families of models elsewhere that ours can be written as and read from."""

from __future__ import annotations

from typing import Any

from glassformer.hub.families.bart import BART
from glassformer.hub.families.bert import BERT
from glassformer.hub.families.clip import CLIP
from glassformer.hub.families.decision_transformer import DecisionTransformer
from glassformer.hub.families.family import Family
from glassformer.hub.families.gemma import Gemma2, Gemma3
from glassformer.hub.families.glassformer import Glassformer
from glassformer.hub.families.gpt2 import GPT2, GPTNeo
from glassformer.hub.families.gpt_neox import GPTNeoX
from glassformer.hub.families.gpt_oss import GptOss
from glassformer.hub.families.llama import Llama
from glassformer.hub.families.marian import Marian
from glassformer.hub.families.mistral import Mistral, Mixtral
from glassformer.hub.families.olmo2 import Olmo2
from glassformer.hub.families.phi3 import Phi3
from glassformer.hub.families.qwen import Qwen2, Qwen3, Qwen3Moe
from glassformer.hub.families.smollm3 import SmolLM3
from glassformer.hub.families.t5 import T5
from glassformer.hub.families.vit import DeiT, ViT
from glassformer.hub.families.whisper import Whisper

# In the order in which they are asked; ours holds anything.
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        *(GPT2(), GPTNeo(), GPTNeoX()),
        *(Qwen3(), Llama(), Qwen2(), Mistral(), Phi3(), Olmo2(), SmolLM3(), Gemma2(), Gemma3()),
        *(Mixtral(), Qwen3Moe(), GptOss()),
        *(BERT(), ViT(), DeiT(), CLIP(), DecisionTransformer(), T5(), Marian(), BART(), Whisper(), Glassformer()),
    )
}


def family_for(config: Any) -> Family:
    """The first family that can hold this configuration; ours can hold any."""
    return next(family for family in FAMILIES.values() if family.is_asked(config) and family.can_represent(config))
