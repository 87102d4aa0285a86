"""Decision Transformer: returns, states and actions through the blocks of a GPT-2. `DecisionTransformerModel`.

Chen et al. 2021, https://arxiv.org/abs/2106.01345. It adds the first row of GPT-2's positions to every token: here that
is part of the bias of the norm before the blocks, and zeros in what is written. Heads for states and returns, which the
paper does not train and which do not act, are left out, and written as zeros.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.gpt2 import GPT2
from glassformer.hub.families.weight_table import Row, Tensors, layer, one
from glassformer.models import TrajectoryDecoderConfig

NORM_EPS = 1e-5  # of the norm in front of the blocks, which no key of config.json decides
TABLES = "encoder.wte.weight", "encoder.wpe.weight"
HEADS = tuple(f"predict_{what}.{part}" for what in ("state", "return") for part in ("weight", "bias"))
LEFT_OUT = (*TABLES, *HEADS)


class DecisionTransformer(GPT2):
    """`decision_transformer`. Biases are always there; those of a model without any are zeros."""

    model_type = "decision_transformer"
    architecture = "DecisionTransformerModel"
    configuration = TrajectoryDecoderConfig
    keys: ClassVar = {
        "state_dim": "state_size",
        "act_dim": "action_size",
        "max_ep_len": "max_timestep",
        "action_tanh": "action_tanh",
        "hidden_size": "n_embd",
        "n_positions": "block_size",
        "n_layer": "n_layer",
        "n_head": "n_head",
        "n_inner": "n_hidden",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_eps",
    }
    defaults: ClassVar = {
        "state_dim": 17,
        "act_dim": 4,
        "max_ep_len": 4096,
        "action_tanh": True,
        "hidden_size": 128,
        "n_positions": 1024,
        "n_layer": 3,
        "n_head": 1,
        "n_inner": None,
        "activation_function": "relu",
        "layer_norm_epsilon": NORM_EPS,
    }
    constants: ClassVar = {**GPT2.constants, "vocab_size": 1}
    fixed: ClassVar = {
        "positions": "none",
        "norm": "layernorm",
        "feedforward": "plain",
        "qk_norm": False,
        "embedding_norm": True,
    }
    free = frozenset({"bias"})
    fixed_keys: ClassVar = {
        "add_cross_attention": False,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
    }
    base_prefix = ""
    embedding = ""

    def fits(self, c: Any) -> bool:
        return super().fits(c) and c.norm_eps == NORM_EPS

    def extra_keys(self, c: Any) -> dict[str, Any]:
        return {}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["layer_norm_epsilon"] != NORM_EPS:
            raise ModelFolderError(f"config.json sets layer_norm_epsilon={given['layer_norm_epsilon']}; use {NORM_EPS}")
        sizes = {"vocab_size": 1, "block_size": given["n_positions"] // 3 * 3}
        return {**sizes, "n_hidden": given["n_inner"] or 4 * given["hidden_size"]}

    def table(self, c: Any) -> list[Row]:
        rows = [one("embedding.timestep.weight", "embed_timestep.weight")]
        for part in ("return", "state", "action"):
            rows += layer(f"embedding.read_{part}", f"embed_{part}")
        rows += layer("embedding.norm", "embed_ln")
        for number in range(c.n_layer):
            rows += self.block_rows(f"blocks.{number}", f"encoder.h.{number}")
        return [*rows, *layer("final_norm", "encoder.ln_f"), *layer("head", "predict_action.0")]

    def names(self, c: Any) -> set[str]:
        return {*super().names(c), *LEFT_OUT}

    def normalize_keys(self, theirs: Tensors, c: Any) -> Tensors:
        theirs = {name: tensor for name, tensor in theirs.items() if not name.endswith(self.unused)}
        kept = {name: tensor for name, tensor in theirs.items() if name not in LEFT_OUT}
        everywhere, bias = theirs.get(TABLES[1]), kept.get("embed_ln.bias")
        if everywhere is not None and bias is not None and everywhere.shape[1:] == bias.shape and len(everywhere):
            kept["embed_ln.bias"] = bias + everywhere[0]
        return kept

    def write_tensors(self, ours: Tensors, c: Any) -> Tensors:
        theirs = super().write_tensors(ours, c)
        zeros = ours["head.weight"].new_zeros
        C, S = c.n_embd, c.state_size
        shapes = (1, C), (c.block_size, C), (S, C), (S,), (1, C), (1,)
        return {**theirs, **{name: zeros(shape) for name, shape in zip(LEFT_OUT, shapes, strict=True)}}
