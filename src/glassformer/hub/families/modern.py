"""Decoders of Llama's kind, and what their families have in common: names of tensors, words of config.json.

Query, key and value are three matrices there and one here, gate and up two and one. A family is a `Modern` with what it
has otherwise: biases, windows, norms in other places, layers without positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family, activation, agrees, is_known_activation
from glassformer.hub.families.weight_table import Row, Stack, Tensors, layer, one, with_head
from glassformer.models import ModelConfig

# The kinds of rotary scaling that both know. Ours has `ntk` besides, theirs `dynamic` and `longrope`.
SCALINGS = ("linear", "yarn", "llama3")
NORMS = {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
ATTENTION_BIASES, MLP_BIASES = ("qkv_bias", "out_bias"), ("feedforward_bias",)


class Modern(Family):
    """What the families of this kind share."""

    configuration = ModelConfig
    architecture: ClassVar[str]  # their class
    defaults: ClassVar[dict[str, Any]] = {}  # what transformers takes where config.json lacks a word
    fixed: ClassVar[dict[str, Any]] = {}  # our fields that all models of the family have, where no default
    free: ClassVar[frozenset[str]] = frozenset()  # further fields of ours that may be as they like
    biases: ClassVar[dict[str, tuple[str, ...]]] = {}  # words that say whether there are biases: fields of ours
    norms: ClassVar[dict[str, str]] = NORMS  # of a block: our name, theirs
    base: ClassVar[float] = 10_000.0  # of rotary positions, where config.json lacks it
    scalings: ClassVar[tuple[str, ...]] = SCALINGS
    activation_word: ClassVar[str] = "hidden_act"

    def can_represent(self, c: ModelConfig) -> bool:
        common = {"n_kv_head", "head_width", "norm_eps", "activation", "tied_head", "rotary_base", "rotary_scaling"}
        biases = {field for fields in self.biases.values() for field in fields}
        fixed = {"positions": "rotary", "norm": "rmsnorm", "feedforward": "gated", "bias": False, **self.fixed}
        return (
            agrees(c, free=common | biases | self.free, **fixed)
            and all(len({getattr(c, field) for field in fields}) == 1 for fields in self.biases.values())
            and is_known_activation(c.activation)
            and (c.rotary_scaling is None or c.rotary_scaling.rope_type in self.scalings)
            and self.fits(c)
        )

    def fits(self, c: ModelConfig) -> bool:
        """Whether the `free` fields have values that the family can say."""
        return True

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
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
            self.activation_word: c.activation,
            "rms_norm_eps": c.norm_eps,
            **rope_words(c),
            **{word: bool(getattr(c, fields[0])) for word, fields in self.biases.items()},
            "tie_word_embeddings": c.tied_head,
            "attention_dropout": 0.0,
            **self.own_words(c),
        }

    def own_words(self, c: ModelConfig) -> dict[str, Any]:
        """What this family says besides, or otherwise."""
        return {}

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        given = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, **self.defaults, **given}
        n_head, block_size = given["num_attention_heads"], given["max_position_embeddings"]
        biases = {field: True for word, fields in self.biases.items() if given.get(word) for field in fields}
        fields = {
            **self.fixed,
            "vocab_size": given["vocab_size"],
            "block_size": block_size,
            "n_embd": given["hidden_size"],
            "n_layer": given["num_hidden_layers"],
            "n_head": n_head,
            "n_kv_head": given.get("num_key_value_heads") or n_head,
            "head_width": given.get("head_dim") or given["hidden_size"] // n_head,
            "n_hidden": given["intermediate_size"],
            "activation": activation(given.get(self.activation_word, "silu")),
            "norm_eps": given["rms_norm_eps"],
            "tied_head": given["tie_word_embeddings"],
            **biases,
            **self.rope_fields(given),
            **self.own_fields(given),
        }
        return ModelConfig.make(family="modern", **fields)

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Our fields of rotary positions."""
        rope = rope_of(given)
        if (rope.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1.0) != 1.0:
            raise ModelFolderError(
                "config.json turns a part of each head only (partial_rotary_factor), which this family cannot say"
            )
        return {
            "rotary_base": float(rope.get("rope_theta") or given.get("rope_theta") or self.base),
            "rotary_scaling": scaling_of(rope, given["max_position_embeddings"], self.scalings),
        }

    def own_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Our fields that this family says besides, or otherwise. Raises `ModelFolderError` for what we cannot do."""
        return {}

    def table(self, c: ModelConfig) -> list[Row | Stack]:
        rows: list[Row | Stack] = [
            one("embedding.token.weight", "model.embed_tokens.weight"),
            one("final_norm.weight", "model.norm.weight"),
        ]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"model.layers.{number}"
            rows += [one(f"{here}.{ours}.weight", f"{there}.{theirs}.weight") for ours, theirs in self.norms.items()]
            rows += self.attention_rows(c, f"{here}.attention", f"{there}.self_attn")
            rows += self.feedforward_rows(c, f"{here}.feedforward", f"{there}.mlp")
        return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]

    def attention_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row]:
        qkv = (c.n_head * c.head_width, c.n_kv_head * c.head_width, c.n_kv_head * c.head_width)
        qkv_bias, out_bias, _ = c.biases()
        yield from layer(f"{here}.qkv", *(f"{there}.{part}_proj" for part in "qkv"), sizes=qkv, bias=qkv_bias)
        yield from layer(f"{here}.out", f"{there}.o_proj", bias=out_bias)
        if c.qk_norm:
            yield one(f"{here}.query_norm.weight", f"{there}.q_norm.weight")
            yield one(f"{here}.key_norm.weight", f"{there}.k_norm.weight")

    def feedforward_rows(self, c: ModelConfig, here: str, there: str) -> Iterable[Row | Stack]:
        bias = c.biases()[2]
        yield from layer(f"{here}.gate_up", f"{there}.gate_proj", f"{there}.up_proj", bias=bias)
        yield from layer(f"{here}.down", f"{there}.down_proj", bias=bias)

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        theirs = {n: t for n, t in theirs.items() if not n.endswith("rotary_emb.inv_freq")}
        return with_head(theirs, "model.embed_tokens.weight", "lm_head.weight", tied=c.tied_head)


def rope_words(c: ModelConfig, **also: Any) -> dict[str, Any]:
    """Base and scaling under the old keys and the new one: transformers 4 reads the first two, transformers 5 the last.

    also: further words of the dictionary.
    """
    scaling = {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()
    return {
        "rope_theta": c.rotary_base,
        **({} if c.rotary_scaling is None else {"rope_scaling": {**scaling, **also}}),
        "rope_parameters": {**scaling, "rope_theta": c.rotary_base, **also},
    }


def rope_of(given: dict[str, Any]) -> dict[str, Any]:
    """The dictionary about rotary positions, under its old or its new name; transformers asks the old one first."""
    return given.get("rope_scaling") or given.get("rope_parameters") or {}


def scaling_of(rope: dict[str, Any], block_size: int, known: tuple[str, ...] = SCALINGS) -> dict[str, Any] | None:
    """What `rope_parameters` (transformers 5) or `rope_scaling` (transformers 4) say beside the base."""
    words = {
        n: v for n, v in rope.items() if n not in ("type", "rope_theta", "partial_rotary_factor") and v is not None
    }
    kind = words.setdefault("rope_type", rope.get("type", "default"))  # "type": before 2024
    if kind == "default":
        return None
    if kind not in known:
        raise ModelFolderError(f"rotary scaling {kind!r} is not supported; {', '.join(known)} and default are")
    if kind == "linear":
        words.pop("original_max_position_embeddings", None)  # it has no use for it
    else:
        words.setdefault("original_max_position_embeddings", block_size)
    return words
