"""`Phi3ForCausalLM` (Phi-3, Phi-3.5 and Phi-4-mini): a Llama whose fused matrices are fused there too.

Abdin et al. 2024, https://arxiv.org/abs/2404.14219. Its rotary scaling, `longrope`, exchanges all frequencies as soon
as a text is longer than `original_max_position_embeddings`, so that keys kept from before no longer fit. Ours has those
of texts up to that length, and a model reads no longer ones: for them it computes what transformers does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.errors import GlassformerWarning
from glassformer.hub.families.mistral import OneWindow
from glassformer.hub.families.rope import rope_keys, rope_of, scaling_of
from glassformer.hub.families.weight_table import Row, one
from glassformer.models import ModelConfig

LONG = ("longrope", "su", "yarn")  # "su" and "yarn" are what the first files call the same
FACTORS = ("short_factor", "long_factor")


class Phi3(OneWindow):
    """`phi3`. Its heads fill the width: transformers derives the frequencies from that width."""

    model_type = "phi3"
    architecture = "Phi3ForCausalLM"
    free = OneWindow.free | {"rotary_fraction"}
    defaults: ClassVar = {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096}
    scalings = ("longrope",)

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and c.head_width * c.n_head == c.n_embd

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        keys = {
            **super().extra_keys(c),
            "partial_rotary_factor": c.rotary_fraction,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
        }
        scaling = c.rotary_scaling
        if scaling is None:
            return {**keys, **rope_keys(c, partial_rotary_factor=c.rotary_fraction)}
        original = scaling.original_max_position_embeddings or c.block_size
        rope = {
            "rope_type": "longrope",
            **{name: [*(getattr(scaling, name) or ())] for name in FACTORS},
            **({} if scaling.attention_factor is None else {"attention_factor": scaling.attention_factor}),
        }
        return {
            **keys,
            "max_position_embeddings": round(original * scaling.factor),
            "original_max_position_embeddings": original,
            # transformers 4 insists on these three keys
            "rope_scaling": {"type": "longrope", **{name: rope[name] for name in FACTORS}},
            "rope_parameters": {**rope, "rope_theta": c.rotary_base, "partial_rotary_factor": c.rotary_fraction},
        }

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        rope, most = rope_of(given), given["max_position_embeddings"]
        part = rope.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
        fields = {
            "rotary_base": float(rope.get("rope_theta") or given.get("rope_theta") or 10_000.0),
            "rotary_fraction": 1.0 if part is None else float(part),
        }
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in LONG:
            return {**fields, "rotary_scaling": scaling_of(rope, most, self.scalings)}
        original = given["original_max_position_embeddings"]
        scaling = {
            "rope_type": "longrope",
            "factor": rope.get("factor") or max(1.0, most / original),
            "original_max_position_embeddings": original,
            "attention_factor": rope.get("attention_factor"),
            **{name: tuple(rope[name]) for name in FACTORS},
        }
        if most > original:
            warnings.warn(
                f"longrope: texts of up to {original:,} tokens are read, of the {most:,} that the model can; beyond "
                "that its positions change as a text grows",
                GlassformerWarning,
                stacklevel=2,
            )
        return {**fields, "block_size": min(most, original), "rotary_scaling": scaling}

    def attention_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row]:
        yield one(f"{here}.qkv.weight", f"{there}.qkv_proj.weight")
        yield one(f"{here}.out.weight", f"{there}.o_proj.weight")

    def feedforward_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row]:
        yield one(f"{here}.gate_up.weight", f"{there}.gate_up_proj.weight")
        yield one(f"{here}.down.weight", f"{there}.down_proj.weight")
