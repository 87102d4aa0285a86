"""ViT: an encoder over the patches of an image, which says what is on it. `ViTForImageClassification`.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929.
"""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family, activation, agrees, classes_of, heads_fill_the_width
from glassformer.hub.families.weight_table import IN_A_BATCH, Row, layer, one
from glassformer.models import EncoderConfig


class ViT(Family):
    """`vit`. Biases are always there; those that ours lacks are zeros."""

    model_type = "vit"
    configuration = EncoderConfig
    base_prefix = "vit."

    def can_represent(self, c: EncoderConfig) -> bool:
        return (
            agrees(
                c,
                free={
                    *("n_kv_head", "head_width", "norm_eps", "activation", "bias", "n_classes"),
                    *("image_size", "patch_size", "n_channels"),
                },
                stem="patches",
                positions="learned",
                norm="layernorm",
                feedforward="plain",
                qk_norm=False,
            )
            and heads_fill_the_width(c)
            and c.n_classes > 0
        )

    def write_config(self, c: EncoderConfig) -> dict[str, Any]:
        return {
            "architectures": ["ViTForImageClassification"],
            "image_size": c.image_size,
            "patch_size": c.patch_size,
            "num_channels": c.n_channels,
            "hidden_size": c.n_embd,
            "num_hidden_layers": c.n_layer,
            "num_attention_heads": c.n_head,
            "intermediate_size": c.n_hidden,
            "hidden_act": c.activation,
            "layer_norm_eps": c.norm_eps,
            "qkv_bias": True,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "num_labels": c.n_classes,
        }

    def read_config(self, given: dict[str, Any]) -> EncoderConfig:
        if not given.get("qkv_bias", True):
            raise ModelFolderError(
                "config.json leaves out some biases only (qkv_bias), which our models cannot express"
            )
        image_size, patch_size = given["image_size"], given["patch_size"]
        return EncoderConfig.make(
            family="classic",
            stem="patches",
            image_size=image_size,
            patch_size=patch_size,
            n_channels=given.get("num_channels", 3),
            vocab_size=1,
            block_size=(image_size // max(patch_size, 1)) ** 2 + 1,
            n_embd=given["hidden_size"],
            n_layer=given["num_hidden_layers"],
            n_head=given["num_attention_heads"],
            n_hidden=given["intermediate_size"],
            activation=activation(given.get("hidden_act", "gelu")),
            norm_eps=given.get("layer_norm_eps", 1e-12),
            n_classes=classes_of(given),
        )

    def table(self, c: EncoderConfig) -> list[Row]:
        rows = [
            *layer("embedding.patch", "vit.embeddings.patch_embeddings.projection"),
            one("embedding.class_token", "vit.embeddings.cls_token"),
            one("positions.weight", "vit.embeddings.position_embeddings", IN_A_BATCH),
        ]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"vit.encoder.layer.{number}"
            parts = (f"{there}.attention.attention.{part}" for part in ("query", "key", "value"))
            rows += [
                *layer(f"{here}.attention_norm", f"{there}.layernorm_before"),
                *layer(f"{here}.attention.qkv", *parts),
                *layer(f"{here}.attention.out", f"{there}.attention.output.dense"),
                *layer(f"{here}.feedforward_norm", f"{there}.layernorm_after"),
                *layer(f"{here}.feedforward.up", f"{there}.intermediate.dense"),
                *layer(f"{here}.feedforward.down", f"{there}.output.dense"),
            ]
        return [*rows, *layer("final_norm", "vit.layernorm"), *layer("classifier", "classifier")]
