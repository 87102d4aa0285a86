"""Tables between our decoder and the Hugging Face families: which fields, which tensors, turned which way.

A family says whether it can express a configuration, and translates configuration and tensors both ways. What no
family can express is saved under our own names with `model_type: glassformer` and loads with us alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.models import ModelConfig

Tensors = dict[str, Tensor]


class GPT2:
    """`GPT2LMHeadModel`: classic models. Its `Conv1D` keeps matrices as (in, out), so they are turned."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    # our name inside a block -> theirs, turned or not
    BLOCK: ClassVar = {
        "attention_norm": ("ln_1", False),
        "attention.qkv": ("attn.c_attn", True),
        "attention.out": ("attn.c_proj", True),
        "feedforward_norm": ("ln_2", False),
        "feedforward.up": ("mlp.c_fc", True),
        "feedforward.down": ("mlp.c_proj", True),
    }

    def expresses(self, c: ModelConfig) -> bool:
        return (
            (c.positions, c.norm, c.feedforward, c.qk_norm) == ("learned", "layernorm", "plain", False)
            and c.n_kv_head == c.n_head
            and c.n_gram == 1
            and c.head_width * c.n_head == c.n_embd
            and c.activation in ("gelu", "gelu_new", "relu", "silu")
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        return {
            "vocab_size": c.vocab_size,
            "n_positions": c.block_size,
            "n_ctx": c.block_size,
            "n_embd": c.n_embd,
            "n_layer": c.n_layer,
            "n_head": c.n_head,
            "n_inner": c.n_hidden,
            "activation_function": c.activation,
            "layer_norm_epsilon": c.norm_eps,
            "tie_word_embeddings": c.tied_head,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("scale_attn_by_inverse_layer_idx") or not given.get("scale_attn_weights", True):
            raise ModelFolderError("config.json scales attention scores in a way that our decoder cannot express")
        return {
            "family": "classic",
            "vocab_size": given["vocab_size"],
            "block_size": given["n_positions"],
            "n_embd": given["n_embd"],
            "n_layer": given["n_layer"],
            "n_head": given["n_head"],
            "n_hidden": given.get("n_inner") or 4 * given["n_embd"],
            "activation": given.get("activation_function", "gelu_new"),
            "norm_eps": given.get("layer_norm_epsilon", 1e-5),
            "tied_head": given.get("tie_word_embeddings", True),
        }

    def write_tensors(self, ours: Tensors, c: ModelConfig) -> Tensors:
        theirs = {
            "transformer.wte.weight": ours["embedding.token.weight"],
            "transformer.wpe.weight": ours["positions.weight"],
        }
        for layer in range(c.n_layer):
            for name, (hf, turned) in self.BLOCK.items():
                weight = ours[f"blocks.{layer}.{name}.weight"]
                bias = ours.get(f"blocks.{layer}.{name}.bias")
                theirs[f"transformer.h.{layer}.{hf}.weight"] = weight.t().contiguous() if turned else weight
                theirs[f"transformer.h.{layer}.{hf}.bias"] = weight.new_zeros(weight.shape[0]) if bias is None else bias
        norm = ours["final_norm.weight"]
        theirs["transformer.ln_f.weight"] = norm
        theirs["transformer.ln_f.bias"] = ours.get("final_norm.bias", torch.zeros_like(norm))
        if not c.tied_head:
            theirs["lm_head.weight"] = ours["head.weight"]
        return theirs

    def read_tensors(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        # the oldest GPT-2 files have no "transformer." in front, and all keep the causal mask as a tensor
        theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
        theirs = {n: t for n, t in theirs.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
        ours = {"embedding.token.weight": theirs.pop("wte.weight"), "positions.weight": theirs.pop("wpe.weight")}
        for layer in range(c.n_layer):
            for name, (hf, turned) in self.BLOCK.items():
                weight = theirs.pop(f"h.{layer}.{hf}.weight")
                ours[f"blocks.{layer}.{name}.weight"] = weight.t().contiguous() if turned else weight
                ours[f"blocks.{layer}.{name}.bias"] = theirs.pop(f"h.{layer}.{hf}.bias")
        ours["final_norm.weight"], ours["final_norm.bias"] = theirs.pop("ln_f.weight"), theirs.pop("ln_f.bias")
        head = theirs.pop("lm_head.weight", None)
        if not c.tied_head:
            ours["head.weight"] = ours["embedding.token.weight"] if head is None else head
        return _all_used(ours, theirs)


class Qwen3:
    """`Qwen3ForCausalLM`: modern models with QK-norm. Query, key and value are three matrices there, one here."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    qk_norm = True
    BLOCK: ClassVar = {
        "attention_norm": "input_layernorm",
        "attention.out": "self_attn.o_proj",
        "feedforward_norm": "post_attention_layernorm",
        "feedforward.down": "mlp.down_proj",
    }

    def expresses(self, c: ModelConfig) -> bool:
        return (
            (c.positions, c.norm, c.feedforward, c.bias) == ("rotary", "rmsnorm", "gated", False)
            and c.qk_norm == self.qk_norm
            and c.n_gram == 1
            and c.activation in ("silu", "gelu", "gelu_new", "relu", "relu2")
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        return {
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
            # the old key and the new one: transformers 4 reads the first, transformers 5 the second
            "rope_theta": c.rotary_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": c.rotary_base},
            "attention_bias": False,
            "tie_word_embeddings": c.tied_head,
            "attention_dropout": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> dict[str, Any]:
        rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
        kind = rope.get("rope_type") or rope.get("type") or "default"  # older files say "type"
        if kind != "default":
            raise ModelFolderError(f"rotary scaling {kind!r} is not supported yet; only 'default' is")
        if (rope.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1.0) != 1.0:
            raise ModelFolderError(
                "config.json turns a part of each head only (partial_rotary_factor), which ours cannot"
            )
        for field in ("attention_bias", "mlp_bias", "use_sliding_window"):
            if given.get(field):
                raise ModelFolderError(f"config.json sets {field}, which our decoder cannot express yet")
        return {
            "family": "modern",
            "vocab_size": given["vocab_size"],
            "block_size": given["max_position_embeddings"],
            "n_embd": given["hidden_size"],
            "n_layer": given["num_hidden_layers"],
            "n_head": given["num_attention_heads"],
            "n_kv_head": given.get("num_key_value_heads") or given["num_attention_heads"],
            "head_width": given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"],
            "n_hidden": given["intermediate_size"],
            "activation": given.get("hidden_act", "silu"),
            "norm_eps": given.get("rms_norm_eps", 1e-6),
            "rotary_base": float(rope.get("rope_theta") or given.get("rope_theta") or 10_000.0),
            "qk_norm": self.qk_norm,
            "tied_head": given.get("tie_word_embeddings", False),
        }

    def write_tensors(self, ours: Tensors, c: ModelConfig) -> Tensors:
        theirs = {
            "model.embed_tokens.weight": ours["embedding.token.weight"],
            "model.norm.weight": ours["final_norm.weight"],
        }
        for layer in range(c.n_layer):
            here, there = f"blocks.{layer}.", f"model.layers.{layer}."
            for name, hf in self.BLOCK.items():
                theirs[f"{there}{hf}.weight"] = ours[f"{here}{name}.weight"]
            for part, rows in zip("qkv", ours[f"{here}attention.qkv.weight"].split(_qkv_rows(c)), strict=True):
                theirs[f"{there}self_attn.{part}_proj.weight"] = rows.contiguous()
            gate, up = ours[f"{here}feedforward.gate_up.weight"].chunk(2)
            theirs[f"{there}mlp.gate_proj.weight"], theirs[f"{there}mlp.up_proj.weight"] = (
                gate.contiguous(),
                up.contiguous(),
            )
            if c.qk_norm:
                theirs[f"{there}self_attn.q_norm.weight"] = ours[f"{here}attention.query_norm.weight"]
                theirs[f"{there}self_attn.k_norm.weight"] = ours[f"{here}attention.key_norm.weight"]
        if not c.tied_head:
            theirs["lm_head.weight"] = ours["head.weight"]
        return theirs

    def read_tensors(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        theirs = {n: t for n, t in theirs.items() if not n.endswith("rotary_emb.inv_freq")}
        ours = {
            "embedding.token.weight": theirs.pop("model.embed_tokens.weight"),
            "final_norm.weight": theirs.pop("model.norm.weight"),
        }
        for layer in range(c.n_layer):
            here, there = f"blocks.{layer}.", f"model.layers.{layer}."
            for name, hf in self.BLOCK.items():
                ours[f"{here}{name}.weight"] = theirs.pop(f"{there}{hf}.weight")
            ours[f"{here}attention.qkv.weight"] = torch.cat(
                [theirs.pop(f"{there}self_attn.{part}_proj.weight") for part in "qkv"]
            )
            ours[f"{here}feedforward.gate_up.weight"] = torch.cat(
                [theirs.pop(f"{there}mlp.{part}_proj.weight") for part in ("gate", "up")]
            )
            if c.qk_norm:
                ours[f"{here}attention.query_norm.weight"] = theirs.pop(f"{there}self_attn.q_norm.weight")
                ours[f"{here}attention.key_norm.weight"] = theirs.pop(f"{there}self_attn.k_norm.weight")
        head = theirs.pop("lm_head.weight", None)
        if not c.tied_head:
            ours["head.weight"] = ours["embedding.token.weight"] if head is None else head
        return _all_used(ours, theirs)


class Llama(Qwen3):
    """`LlamaForCausalLM`: modern models without QK-norm. It insists on n_embd being a multiple of n_head."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    qk_norm = False

    def expresses(self, c: ModelConfig) -> bool:
        return super().expresses(c) and c.n_embd % c.n_head == 0


class Glassformer:
    """Our own names, for what no family above can express. Loads with this package alone."""

    model_type = "glassformer"
    architecture = "GlassformerDecoder"

    def expresses(self, c: ModelConfig) -> bool:
        return True

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        return {"decoder": c.model_dump()}

    def read_config(self, given: dict[str, Any]) -> dict[str, Any]:
        return given["decoder"]

    def write_tensors(self, ours: Tensors, c: ModelConfig) -> Tensors:
        return ours

    def read_tensors(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        return theirs


Family = GPT2 | Qwen3 | Llama | Glassformer

# In the order in which they are asked.
INTERCHANGE_FAMILIES: dict[str, Family] = {f.model_type: f for f in (GPT2(), Qwen3(), Llama(), Glassformer())}


def family_that_expresses(config: ModelConfig) -> Family:
    """The first family that can hold this configuration; ours can hold any."""
    return next(family for family in INTERCHANGE_FAMILIES.values() if family.expresses(config))


def _qkv_rows(c: ModelConfig) -> list[int]:
    return [c.n_head * c.head_width, c.n_kv_head * c.head_width, c.n_kv_head * c.head_width]


def _all_used(ours: Tensors, left_over: Tensors) -> Tensors:
    if left_over:
        raise ModelFolderError(
            f"{len(left_over)} tensors have no place in this family, the first is {next(iter(left_over))}"
        )
    return ours
