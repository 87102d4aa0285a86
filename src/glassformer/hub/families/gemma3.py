"""`Gemma3ForCausalLM`, the text models of Gemma 3: a Gemma 2 with QK-norm and without soft caps on scores.

Gemma Team 2025, https://arxiv.org/abs/2503.19786, sect. 2. Every sixth layer sees all, and windows turn by a rotary
base of their own, unscaled.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.gemma2 import Gemma
from glassformer.hub.families.layer_types import FULL, LOCAL, every, types_of, window_of
from glassformer.hub.families.modern import scaling_of
from glassformer.models import ModelConfig


class Gemma3(Gemma):
    """`gemma3_text`."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    free = Gemma.free | {"rotary_base_local"}
    fixed: ClassVar = {"qk_norm": True, "norm": "zero_centered_rmsnorm", "norm_place": "sandwich"}
    period = 6

    def fits(self, c: ModelConfig) -> bool:
        unscaled = c.rotary_scaling is None or c.rotary_base_local is not None or window_of(c) is None
        return super().fits(c) and unscaled

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        scaling = {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()
        local_base = c.rotary_base_local or c.rotary_base
        period = next((n for n in range(1, c.n_layer + 2) if every(n, c.n_layer) == types_of(c)), None)
        return {
            **super().own_words(c),
            # every n-th layer sees all: transformers before 4.53 knows no other way to say which are which
            **({} if period is None else {"sliding_window_pattern": period}),
            # the old keys and the new one: transformers 4 reads rope_theta, this one and rope_scaling, 5 the last
            "rope_local_base_freq": local_base,
            "rope_parameters": {
                FULL: {**scaling, "rope_theta": c.rotary_base},
                LOCAL: {"rope_type": "default", "rope_theta": local_base},
            },
        }

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        full, local = _rope(given)
        scaling = scaling_of(full, given["max_position_embeddings"])
        has_windows = self.own_fields(given)["patterns"] is not None
        one_base = not has_windows or (scaling is None and local["rope_theta"] == full["rope_theta"])
        return {
            "rotary_base": float(full["rope_theta"]),
            "rotary_base_local": None if one_base else float(local["rope_theta"]),
            "rotary_scaling": scaling,
        }

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("attn_logit_softcapping"):
            raise ModelFolderError(
                "config.json sets attn_logit_softcapping, which transformers does not apply in this family; "
                "set it to null to read the model as it computes there"
            )
        return super().own_fields(given)


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
