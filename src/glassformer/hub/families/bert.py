"""BERT: an encoder with norms behind, positions and segments learned, and one of several questions at the end.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805. Which question stands in `architectures`:

    BertForMaskedLM                 which token stands here
    BertForPreTraining              the same, and whether the second text follows the first (a class of the whole)
    BertForSequenceClassification   a class of the whole          BertForTokenClassification   a class of each token
    BertModel                       none, but a vector of the whole
"""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.hub.families.family import Family, activation, agrees, classes_of, heads_fill_the_width, refuse
from glassformer.hub.families.weight_table import Row, Tensors, layer, one, under_one_name
from glassformer.models import EncoderConfig

# architecture -> our fields; n_classes: how many, or None for any number
QUESTIONS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {"token_head": "vocabulary", "token_transform": True, "pooler": False, "n_classes": 0},
    "BertForPreTraining": {"token_head": "vocabulary", "token_transform": True, "pooler": True, "n_classes": 2},
    "BertForSequenceClassification": {
        "token_head": "none",
        "token_transform": False,
        "pooler": True,
        "n_classes": None,
    },
    "BertForTokenClassification": {
        "token_head": "classes",
        "token_transform": False,
        "pooler": False,
        "n_classes": None,
    },
    "BertModel": {"token_head": "none", "token_transform": False, "pooler": True, "n_classes": 0},
}


class BERT(Family):
    """`bert`. Biases and at least one segment are always there; those that ours lacks are zeros."""

    model_type = "bert"
    configuration = EncoderConfig
    base_prefix = "bert."

    def can_represent(self, c: EncoderConfig) -> bool:
        return (
            _architecture(c) is not None
            and agrees(
                c,
                free={
                    *("n_kv_head", "head_width", "norm_eps", "activation", "bias", "head_bias", "n_segments"),
                    *("n_classes", "pooler", "token_head", "token_transform"),
                    *(() if c.n_classes or c.token_head != "none" else ("pooling",)),
                },
                positions="learned",
                norm="layernorm",
                norm_place="post",
                final_norm=False,
                embedding_norm=True,
                feedforward="plain",
                qk_norm=False,
                tied_head=True,
            )
            and heads_fill_the_width(c)
        )

    def write_config(self, c: EncoderConfig) -> dict[str, Any]:
        return {
            "architectures": [_architecture(c)],
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.block_size,
            "type_vocab_size": max(c.n_segments, 1),
            "hidden_size": c.n_embd,
            "num_hidden_layers": c.n_layer,
            "num_attention_heads": c.n_head,
            "intermediate_size": c.n_hidden,
            "hidden_act": c.activation,
            "layer_norm_eps": c.norm_eps,
            "tie_word_embeddings": True,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **({"num_labels": c.n_classes} if c.n_classes else {}),
        }

    def read_config(self, given: dict[str, Any]) -> EncoderConfig:
        refuse(given, "is_decoder", "add_cross_attention")
        if given.get("position_embedding_type", "absolute") != "absolute":
            raise ModelFolderError("config.json has relative positions (position_embedding_type), which ours has not")
        architecture = given["architectures"][0]
        if architecture not in QUESTIONS:
            known = did_you_mean(str(architecture), QUESTIONS)
            raise ModelFolderError(f"{architecture!r} is not a BERT that glassformer reads; {known}")
        question = QUESTIONS[architecture]
        if question["token_head"] == "vocabulary" and not given.get("tie_word_embeddings", True):
            raise ModelFolderError("config.json has a head of its own over the vocabulary, which our encoders have not")
        return EncoderConfig.make(
            **question | ({"n_classes": classes_of(given)} if question["n_classes"] is None else {}),
            family="original",
            vocab_size=given["vocab_size"],
            block_size=given["max_position_embeddings"],
            n_segments=given.get("type_vocab_size", 2),
            n_embd=given["hidden_size"],
            n_layer=given["num_hidden_layers"],
            n_head=given["num_attention_heads"],
            n_hidden=given["intermediate_size"],
            activation=activation(given.get("hidden_act", "gelu")),
            norm_eps=given.get("layer_norm_eps", 1e-12),
            positions="learned",
            embedding_norm=True,
            embedding_scale=1.0,
            head_bias=question["token_head"] == "vocabulary",
        )

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
            here, there = f"blocks.{number}", f"{prefix}encoder.layer.{number}"
            parts = (f"{there}.attention.self.{part}" for part in ("query", "key", "value"))
            rows += [
                *layer(f"{here}.attention.qkv", *parts),
                *layer(f"{here}.attention.out", f"{there}.attention.output.dense"),
                *layer(f"{here}.attention_norm", f"{there}.attention.output.LayerNorm"),
                *layer(f"{here}.feedforward.up", f"{there}.intermediate.dense"),
                *layer(f"{here}.feedforward.down", f"{there}.output.dense"),
                *layer(f"{here}.feedforward_norm", f"{there}.output.LayerNorm"),
            ]
        return rows + _heads(c, prefix)

    def write_tensors(self, ours: Tensors, c: EncoderConfig) -> Tensors:
        no_segments = {"embedding.segment.weight": ours["embedding.token.weight"].new_zeros(1, c.n_embd)}
        return super().write_tensors({**no_segments, **ours}, c)

    def normalize_keys(self, theirs: Tensors, c: EncoderConfig) -> Tensors:
        # the first files say gamma and beta, and all keep what is tied or can be counted
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
