"""`MistralForCausalLM`: a Llama in which every layer may have a window. https://arxiv.org/abs/2310.06825, sect. 2.
`MixtralForCausalLM`: one whose feed-forward is a mixture of experts. https://arxiv.org/abs/2401.04088"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.hub.families.layer_types import behind, window_of
from glassformer.hub.families.llama import Windowed
from glassformer.hub.families.weight_table import Row, Stack, layer, one
from glassformer.models import ModelConfig


class OneWindow(Windowed):
    """Families in which all layers have the window of `sliding_window` tokens, or none has."""

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and len({*c.layer_masks()}) == 1

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {"sliding_window": window_of(c)}

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        n_layer = given["num_hidden_layers"]
        return behind(n_layer if self.window(given) is None else 0, n_layer)


class Mistral(OneWindow):
    """`mistral`."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    classifier = "MistralForSequenceClassification"
    defaults: ClassVar = {"num_key_value_heads": 8, "sliding_window": 4096}


class Mixture(Windowed):
    """What families with experts share. The weight of the balance loss counts in training alone."""

    free = Windowed.free | {"n_expert", "n_expert_active", "balance_weight"}
    router: ClassVar[str]  # names behind the layer's
    experts: ClassVar[str]
    gate_up_down: ClassVar[tuple[str, str, str]]

    def fits(self, c: ModelConfig) -> bool:
        return super().fits(c) and c.n_expert > 0

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {
            **super().extra_keys(c),
            "num_local_experts": c.n_expert,
            "num_experts_per_tok": c.n_expert_active,
            "router_aux_loss_coef": c.balance_weight,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            **super().extra_fields(given),
            "n_expert": given["num_local_experts"],
            "n_expert_active": given["num_experts_per_tok"],
            "balance_weight": given.get("router_aux_loss_coef", 0.001),
        }

    def feedforward_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row | Stack]:
        there = there.removesuffix("mlp")
        gate, up, down = self.gate_up_down
        yield one(f"{here}.router.weight", f"{there}{self.router}.weight")
        for number in range(c.n_expert):
            ours, theirs = f"{here}.experts.{number}", f"{there}{self.experts}.{number}"
            yield from layer(f"{ours}.gate_up", f"{theirs}.{gate}", f"{theirs}.{up}", bias=False)
            yield one(f"{ours}.down.weight", f"{theirs}.{down}.weight")


class Mixtral(Mixture, OneWindow):
    """`mixtral`."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    defaults: ClassVar = {
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    base = 1_000_000.0
    router, experts = "block_sparse_moe.gate", "block_sparse_moe.experts"
    gate_up_down = ("w1", "w3", "w2")
