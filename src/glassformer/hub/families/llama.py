"""`LlamaForCausalLM`, and what the many families that follow it have in common: keys of config.json, names of tensors.

Query, key and value are three matrices there and one here, gate and up two and one. A family is a `LlamaLike` with what
it has otherwise: biases, windows, norms in other places, layers without positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import DECODER_KEYS, Family, is_classifier, matches
from glassformer.hub.families.layer_types import are_windows_of_one_width, patterns_of, types_of, window_of
from glassformer.hub.families.rope import SCALINGS, rope_keys, rope_of, scaling_of
from glassformer.hub.families.weight_table import Row, Stack, Tensors, layer, one
from glassformer.models import DecoderClassifierConfig, ModelConfig

ATTENTION_BIASES, MLP_BIASES = ("qkv_bias", "out_bias"), ("feedforward_bias",)
PARTIAL = "config.json sets partial_rotary_factor (rotates a part of each head), which this family cannot express"
FIXED = {"positions": "rotary", "norm": "rmsnorm", "feedforward": "gated", "bias": False, "qk_norm": False}


class LlamaLike(Family):
    """What the families of this kind share."""

    preset = "modern"
    keys: ClassVar = {
        **DECODER_KEYS,
        "num_key_value_heads": "n_kv_head",
        "head_dim": "head_width",
        "rms_norm_eps": "norm_eps",
    }
    constants: ClassVar = {"attention_dropout": 0.0}
    fixed: ClassVar = FIXED
    biases: ClassVar[dict[str, tuple[str, ...]]] = {}  # keys that turn biases on: fields of ours
    norms: ClassVar[dict[str, str]] = {
        "attention_norm": "input_layernorm",
        "feedforward_norm": "post_attention_layernorm",
    }
    base: ClassVar[float] = 10_000.0  # of rotary positions, where config.json lacks it
    scalings: ClassVar[tuple[str, ...]] = SCALINGS
    embedding = "model.embed_tokens.weight"
    unused = ("rotary_emb.inv_freq",)

    def can_represent(self, c: ModelConfig) -> bool:
        biases = {field for fields in self.biases.values() for field in fields}
        free = {*self.keys.values(), *self.free, *biases, "rotary_base", "rotary_scaling", "n_classes"}
        return (
            matches(c, free=free, **self.fixed)
            and all(len({getattr(c, field) for field in fields}) == 1 for fields in self.biases.values())
            and (c.rotary_scaling is None or c.rotary_scaling.rope_type in self.scalings)
            and self.fits(c)
        )

    def fits(self, c: ModelConfig) -> bool:
        return True

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        biases = {key: bool(getattr(c, fields[0])) for key, fields in self.biases.items()}
        keys = {**rope_keys(c), **biases, **super().write_config(c)}
        return keys | {"architectures": [self.classifier], "num_labels": c.n_classes} if is_classifier(c) else keys

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        common = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu"}
        given = {**common, **self.defaults, **given}
        n_head = given["num_attention_heads"]
        given["num_key_value_heads"] = given.get("num_key_value_heads") or n_head
        given["head_dim"] = given.get("head_dim") or given["hidden_size"] // n_head
        config = super().read_config(given)
        if self.classifier is None or self.classifier not in (given.get("architectures") or ()):
            return config  # type: ignore[no-any-return]
        n = len(given.get("id2label") or ()) or given.get("num_labels", 2)
        return DecoderClassifierConfig.make(**config.model_dump(), n_classes=n)

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        biases = {field: True for key, fields in self.biases.items() if given.get(key) for field in fields}
        return {**biases, **self.rope_fields(given)}

    def rope_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Our fields of rotary positions."""
        rope = rope_of(given)
        if (rope.get("partial_rotary_factor") or given.get("partial_rotary_factor") or 1.0) != 1.0:
            raise ModelFolderError(PARTIAL)
        return {
            "rotary_base": float(rope.get("rope_theta") or given.get("rope_theta") or self.base),
            "rotary_scaling": scaling_of(rope, given["max_position_embeddings"], self.scalings),
        }

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
        if is_classifier(c):
            return [*rows, one("classifier.weight", "score.weight")]
        return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        if not is_classifier(c):
            return super().normalize_keys(theirs, c)
        unused = (*self.unused, self.head)
        return {name: tensor for name, tensor in theirs.items() if not name.endswith(unused)}

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


class Windowed(LlamaLike):
    """Families in which some layers have a window of `sliding_window` tokens, the others see all."""

    free = frozenset({"patterns"})

    def fits(self, c: ModelConfig) -> bool:
        return are_windows_of_one_width(c)

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {"sliding_window": window_of(c), "layer_types": types_of(c)}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        patterns = patterns_of(self.layer_types(given), given["num_hidden_layers"], self.window(given))
        return {**super().extra_fields(given), "patterns": patterns}

    def window(self, given: dict[str, Any]) -> int | None:
        """The width of the windows, if any."""
        return given.get("sliding_window")

    def layer_types(self, given: dict[str, Any]) -> list[str]:
        """The type of each layer, as config.json names it or transformers counts it."""
        raise NotImplementedError


class Llama(LlamaLike):
    """`llama`. It insists on n_embd being a multiple of n_head."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    classifier = "LlamaForSequenceClassification"
    biases: ClassVar = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}

    def fits(self, c: ModelConfig) -> bool:
        return c.n_embd % c.n_head == 0
