"""The families of models elsewhere that ours can be written as and read from."""

from __future__ import annotations

from typing import Any

from glassformer.interchange.bart import BART
from glassformer.interchange.bert import BERT
from glassformer.interchange.family import Family
from glassformer.interchange.gemma2 import Gemma2
from glassformer.interchange.gemma3 import Gemma3
from glassformer.interchange.gpt2 import GPT2
from glassformer.interchange.gpt_neo import GPTNeo
from glassformer.interchange.gpt_neox import GPTNeoX
from glassformer.interchange.gpt_oss import GptOss
from glassformer.interchange.llama import Llama, Qwen3
from glassformer.interchange.marian import Marian
from glassformer.interchange.mistral import Mistral
from glassformer.interchange.mixtral import Mixtral
from glassformer.interchange.olmo2 import Olmo2
from glassformer.interchange.own import Glassformer
from glassformer.interchange.phi3 import Phi3
from glassformer.interchange.qwen2 import Qwen2
from glassformer.interchange.qwen3_moe import Qwen3Moe
from glassformer.interchange.smollm3 import SmolLM3
from glassformer.interchange.t5 import T5
from glassformer.interchange.vit import ViT
from glassformer.interchange.whisper import Whisper

# In the order in which they are asked; ours holds anything.
INTERCHANGE_FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        *(GPT2(), GPTNeo(), GPTNeoX()),
        *(Qwen3(), Llama(), Qwen2(), Mistral(), Phi3(), Olmo2(), SmolLM3(), Gemma2(), Gemma3()),
        *(Mixtral(), Qwen3Moe(), GptOss()),
        *(BERT(), ViT(), T5(), Marian(), BART(), Whisper(), Glassformer()),
    )
}


def family_that_expresses(config: Any) -> Family:
    """The first family that can hold this configuration; ours can hold any."""
    return next(
        family
        for family in INTERCHANGE_FAMILIES.values()
        if family.configuration in (None, type(config)) and family.expresses(config)
    )
