"""`LlamaForCausalLM` and `Qwen3ForCausalLM`: modern decoders, without and with QK-norm.

Query, key and value are three matrices there and one here, gate and up two and one.
"""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError
from glassformer.interchange.family import Family, activation, agrees, refuse
from glassformer.interchange.tables import Row, Tensors, layer, one, with_head
from glassformer.models import ModelConfig

# The kinds of rotary scaling that both know. Ours has `ntk` besides, theirs `dynamic` and `longrope`.
SCALINGS = ("linear", "yarn", "llama3")


class Qwen3(Family):
    """`qwen3`."""

    model_type = "qwen3"
    configuration = ModelConfig
    architecture = "Qwen3ForCausalLM"
    qk_norm = True

    def expresses(self, c: ModelConfig) -> bool:
        return (
            agrees(
                c,
                free={
                    *("n_kv_head", "head_width", "norm_eps", "activation", "tied_head"),
                    *("rotary_base", "rotary_scaling"),
                },
                positions="rotary",
                norm="rmsnorm",
                feedforward="gated",
                bias=False,
                qk_norm=self.qk_norm,
            )
            and c.activation in ("silu", "gelu", "gelu_new", "relu", "relu2")
            and (c.rotary_scaling is None or c.rotary_scaling.rope_type in SCALINGS)
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        scaling = {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()
        return {
            "architectures": [self.architecture],
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.block_size,
            "hidden_size": c.n_embd,
            "num_hidden_layers": c.n_layer,
            "num_attention_heads": c.n_head,
            "num_key_value_heads": c.n_kv_head,
            "head_dim": c.head_width,
            "intermediate_size": c.n_hidden,
            "hidden_act": c.activation,
            "rms_norm_eps": c.norm_eps,
            # the old keys and the new one: transformers 4 reads the first two, transformers 5 the last
            "rope_theta": c.rotary_base,
            **({} if c.rotary_scaling is None else {"rope_scaling": scaling}),
            "rope_parameters": {**scaling, "rope_theta": c.rotary_base},
            "attention_bias": False,
            "tie_word_embeddings": c.tied_head,
            "attention_dropout": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
        if (rope.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1.0) != 1.0:
            raise ModelFolderError(
                "config.json turns a part of each head only (partial_rotary_factor), which this family cannot say"
            )
        refuse(given, "attention_bias", "mlp_bias", "use_sliding_window")
        return ModelConfig.make(
            family="modern",
            vocab_size=given["vocab_size"],
            block_size=given["max_position_embeddings"],
            n_embd=given["hidden_size"],
            n_layer=given["num_hidden_layers"],
            n_head=given["num_attention_heads"],
            n_kv_head=given.get("num_key_value_heads") or given["num_attention_heads"],
            head_width=given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"],
            n_hidden=given["intermediate_size"],
            activation=activation(given.get("hidden_act", "silu")),
            norm_eps=given.get("rms_norm_eps", 1e-6),
            rotary_base=float(rope.get("rope_theta") or given.get("rope_theta") or 10_000.0),
            rotary_scaling=scaling_of(rope, given["max_position_embeddings"]),
            qk_norm=self.qk_norm,
            tied_head=given.get("tie_word_embeddings", False),
        )

    def table(self, c: ModelConfig) -> list[Row]:
        return modern_table(c, attention_norm="input_layernorm", feedforward_norm="post_attention_layernorm")

    def tidy(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        theirs = {n: t for n, t in theirs.items() if not n.endswith("rotary_emb.inv_freq")}
        return with_head(theirs, "model.embed_tokens.weight", "lm_head.weight", tied=c.tied_head)


class Llama(Qwen3):
    """`llama`. It insists on n_embd being a multiple of n_head."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    qk_norm = False

    def expresses(self, c: ModelConfig) -> bool:
        return super().expresses(c) and c.n_embd % c.n_head == 0


def modern_table(c: ModelConfig, **norms: str) -> list[Row]:
    """All tensors of a decoder of Llama's kind. norms: of a block, under our name theirs."""
    rows = [
        one("embedding.token.weight", "model.embed_tokens.weight"),
        one("final_norm.weight", "model.norm.weight"),
    ]
    qkv = (c.n_head * c.head_width, c.n_kv_head * c.head_width, c.n_kv_head * c.head_width)
    for number in range(c.n_layer):
        here, there = f"blocks.{number}", f"model.layers.{number}"
        attention, mlp = f"{there}.self_attn", f"{there}.mlp"
        rows += [
            *(one(f"{here}.{ours}.weight", f"{there}.{theirs}.weight") for ours, theirs in norms.items()),
            *layer(f"{here}.attention.qkv", *(f"{attention}.{part}_proj" for part in "qkv"), sizes=qkv, bias=False),
            one(f"{here}.attention.out.weight", f"{attention}.o_proj.weight"),
            *layer(f"{here}.feedforward.gate_up", f"{mlp}.gate_proj", f"{mlp}.up_proj", bias=False),
            one(f"{here}.feedforward.down.weight", f"{mlp}.down_proj.weight"),
        ]
        if c.qk_norm:
            rows += [
                one(f"{here}.attention.query_norm.weight", f"{attention}.q_norm.weight"),
                one(f"{here}.attention.key_norm.weight", f"{attention}.k_norm.weight"),
            ]
    return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]


def scaling_of(rope: dict[str, Any], block_size: int) -> dict[str, Any] | None:
    """What `rope_parameters` (transformers 5) or `rope_scaling` (transformers 4) say beside the base."""
    words = {
        n: v for n, v in rope.items() if n not in ("type", "rope_theta", "partial_rotary_factor") and v is not None
    }
    kind = words.setdefault("rope_type", rope.get("type", "default"))  # "type": before 2024
    if kind == "default":
        return None
    if kind not in SCALINGS:
        raise ModelFolderError(f"rotary scaling {kind!r} is not supported; {', '.join(SCALINGS)} and default are")
    if kind == "linear":
        words.pop("original_max_position_embeddings", None)  # it has no use for it
    else:
        words.setdefault("original_max_position_embeddings", block_size)
    return words
