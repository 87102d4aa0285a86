"""BERT: an encoder with norms behind, positions and segments learned, and one of several questions at the end.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805. Which question stands in `architectures`:

    BertForMaskedLM                 which token stands here
    BertForPreTraining              the same, and whether the second text follows the first (a class of the whole)
    BertForSequenceClassification   a class of the whole          BertForTokenClassification   a class of each token
    BertModel                       none, but a vector of the whole
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.hub.families.family import STACK_KEYS, Family, classes_of, matches, refuse
from glassformer.hub.families.weight_table import Row, Tensors, layer, one, under_one_name
from glassformer.models import EncoderConfig

# architecture -> our fields; n_classes: how many, or None for any number
QUESTIONS: dict[str, dict[str, Any]] = {
    name: dict(zip(("token_head", "token_transform", "pooler", "n_classes"), values, strict=True))
    for name, values in {
        "BertForMaskedLM": ("vocabulary", True, False, 0),
        "BertForPreTraining": ("vocabulary", True, True, 2),
        "BertForSequenceClassification": ("none", False, True, None),
        "BertForTokenClassification": ("classes", False, False, None),
        "BertModel": ("none", False, True, 0),
    }.items()
}
# What all encoders there call alike.
ENCODER_KEYS = {**STACK_KEYS, "layer_norm_eps": "norm_eps"}
ENCODER_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}


def encoder_rows(here: str, there: str, attention: str, attention_norm: str, feedforward_norm: str) -> Iterable[Row]:
    """The rows of a block; `attention` and the norms are where they stand there."""
    yield from layer(f"{here}.attention.qkv", *(f"{attention}.{part}" for part in ("query", "key", "value")))
    yield from layer(f"{here}.attention.out", f"{there}.attention.output.dense")
    yield from layer(f"{here}.attention_norm", attention_norm)
    yield from layer(f"{here}.feedforward.up", f"{there}.intermediate.dense")
    yield from layer(f"{here}.feedforward.down", f"{there}.output.dense")
    yield from layer(f"{here}.feedforward_norm", feedforward_norm)


class BERT(Family):
    """`bert`. Biases and at least one segment are always there; those that ours lacks are zeros."""

    model_type = "bert"
    architecture = "BertModel"  # of the five in `QUESTIONS`
    configuration = EncoderConfig
    preset = "original"
    keys: ClassVar = {**ENCODER_KEYS, "vocab_size": "vocab_size", "max_position_embeddings": "block_size"}
    defaults: ClassVar = ENCODER_DEFAULTS
    constants: ClassVar = {
        "tie_word_embeddings": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    fixed: ClassVar = {
        "positions": "learned",
        "norm": "layernorm",
        "norm_place": "post",
        "final_norm": False,
        "embedding_norm": True,
        "embedding_scale": 1.0,
        "feedforward": "plain",
        "qk_norm": False,
        "tied_head": True,
    }
    free = frozenset({"bias", "head_bias", "n_segments", "n_classes", "pooler", "token_head", "token_transform"})
    base_prefix = "bert."

    def can_represent(self, c: EncoderConfig) -> bool:
        vectors = not c.n_classes and c.token_head == "none"  # they may be pooled in any way
        free = {*self.keys.values(), *self.free, "n_kv_head", "head_width", *(("pooling",) if vectors else ())}
        return _architecture(c) is not None and matches(c, free=free, **self.fixed) and self.fits(c)

    def extra_keys(self, c: EncoderConfig) -> dict[str, Any]:
        return {
            "architectures": [_architecture(c)],
            "type_vocab_size": max(c.n_segments, 1),
            **({"num_labels": c.n_classes} if c.n_classes else {}),
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse(given, "is_decoder", "add_cross_attention")
        if given.get("position_embedding_type", "absolute") != "absolute":
            raise ModelFolderError("config.json sets relative positions (position_embedding_type), which are not read")
        architecture = given["architectures"][0]
        if architecture not in QUESTIONS:
            known = did_you_mean(str(architecture), QUESTIONS)
            raise ModelFolderError(f"{architecture!r} is not a BERT that glassformer reads; {known}")
        question = QUESTIONS[architecture]
        if question["token_head"] == "vocabulary" and not given.get("tie_word_embeddings", True):
            raise ModelFolderError("config.json sets tie_word_embeddings=false, which our encoders cannot express")
        return {
            **question,
            "n_classes": classes_of(given) if question["n_classes"] is None else question["n_classes"],
            "n_segments": given.get("type_vocab_size", 2),
            "head_bias": question["token_head"] == "vocabulary",
        }

    def table(self, c: EncoderConfig) -> list[Row]:
        prefix = "" if _architecture(c) == "BertModel" else self.base_prefix
        embeddings = f"{prefix}embeddings"
        rows = [
            one("embedding.token.weight", f"{embeddings}.word_embeddings.weight"),
            one("positions.weight", f"{embeddings}.position_embeddings.weight"),
            one("embedding.segment.weight", f"{embeddings}.token_type_embeddings.weight"),
            *layer("embedding.norm", f"{embeddings}.LayerNorm"),
        ]
        for number in range(c.n_layer):
            there = f"{prefix}encoder.layer.{number}"
            norms = f"{there}.attention.output.LayerNorm", f"{there}.output.LayerNorm"
            rows += encoder_rows(f"blocks.{number}", there, f"{there}.attention.self", *norms)
        return rows + _heads(c, prefix)

    def write_tensors(self, ours: Tensors, c: EncoderConfig) -> Tensors:
        no_segments = {"embedding.segment.weight": ours["embedding.token.weight"].new_zeros(1, c.n_embd)}
        return super().write_tensors({**no_segments, **ours}, c)

    def normalize_keys(self, theirs: Tensors, c: EncoderConfig) -> Tensors:
        # the first files write gamma and beta, and all keep what is tied or can be counted
        theirs = {n.replace("LayerNorm.gamma", "LayerNorm.weight"): t for n, t in theirs.items()}
        theirs = {n.replace("LayerNorm.beta", "LayerNorm.bias"): t for n, t in theirs.items()}
        words = f"{'' if _architecture(c) == 'BertModel' else self.base_prefix}embeddings.word_embeddings.weight"
        theirs = under_one_name(theirs, words, "cls.predictions.decoder.weight")
        theirs = under_one_name(theirs, "cls.predictions.bias", "cls.predictions.decoder.bias")
        unused = ["embeddings.position_ids"]
        if not c.pooler:  # what pre-training left behind
            unused += ["pooler.dense.weight", "pooler.dense.bias"]
        if c.token_head == "vocabulary" and not c.n_classes:
            unused += ["cls.seq_relationship.weight", "cls.seq_relationship.bias"]
        return {n: t for n, t in theirs.items() if n.removeprefix("bert.") not in unused}


def _heads(c: EncoderConfig, prefix: str) -> list[Row]:
    rows: list[Row] = []
    if c.pooler:
        rows += layer("pooler", f"{prefix}pooler.dense")
    if c.token_head == "vocabulary":
        rows += layer("transform", "cls.predictions.transform.dense")
        rows += layer("transform_norm", "cls.predictions.transform.LayerNorm")
        rows += [Row("head.bias", ("cls.predictions.bias",), like="embedding.token.weight")]
    elif c.token_head == "classes":
        return [*rows, *layer("head", "classifier")]
    if c.n_classes:
        rows += layer("classifier", "cls.seq_relationship" if c.token_head == "vocabulary" else "classifier")
    return rows


def _architecture(c: EncoderConfig) -> str | None:
    """The architecture that asks what this configuration asks, or None."""
    if c.token_head == "none" and not c.n_classes:
        return "BertModel"  # whose vectors may be pooled in any way
    for name, question in QUESTIONS.items():
        asked = {field: getattr(c, field) for field in question}
        if question["n_classes"] is None and c.n_classes:
            asked["n_classes"] = None
        if asked == question:
            return name
    return None
