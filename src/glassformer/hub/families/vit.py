"""ViT: an encoder over the patches of an image, which classifies it. `ViTForImageClassification`.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.bert import ENCODER_DEFAULTS, ENCODER_KEYS, encoder_rows
from glassformer.hub.families.family import Family, classes_of, heads_fill_the_width
from glassformer.hub.families.weight_table import UNSQUEEZE, Row, layer, one
from glassformer.models import EncoderConfig


class ViT(Family):
    """`vit`. Biases are always there; those that ours lacks are zeros."""

    model_type = "vit"
    architecture = "ViTForImageClassification"
    configuration = EncoderConfig
    keys: ClassVar = {
        **ENCODER_KEYS,
        "image_size": "image_size",
        "patch_size": "patch_size",
        "num_channels": "n_channels",
    }
    defaults: ClassVar = {**ENCODER_DEFAULTS, "num_channels": 3}
    constants: ClassVar = {"qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fixed: ClassVar = {
        "stem": "patches",
        "positions": "learned",
        "norm": "layernorm",
        "feedforward": "plain",
        "qk_norm": False,
    }
    free = frozenset({"bias", "n_classes"})
    base_prefix = "vit."

    def fits(self, c: EncoderConfig) -> bool:
        return heads_fill_the_width(c) and c.n_classes > 0

    def extra_keys(self, c: EncoderConfig) -> dict[str, Any]:
        return {"num_labels": c.n_classes}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("qkv_bias", True):
            raise ModelFolderError("config.json sets qkv_bias=false, which our models cannot express")
        n_patches = (given["image_size"] // max(given["patch_size"], 1)) ** 2
        return {"vocab_size": 1, "block_size": n_patches + 1, "n_classes": classes_of(given)}

    def table(self, c: EncoderConfig) -> list[Row]:
        rows = [
            *layer("embedding.patch", "vit.embeddings.patch_embeddings.projection"),
            one("embedding.class_token", "vit.embeddings.cls_token"),
            one("positions.weight", "vit.embeddings.position_embeddings", UNSQUEEZE),
        ]
        for number in range(c.n_layer):
            there = f"vit.encoder.layer.{number}"
            norms = f"{there}.layernorm_before", f"{there}.layernorm_after"
            rows += encoder_rows(f"blocks.{number}", there, f"{there}.attention.attention", *norms)
        return [*rows, *layer("final_norm", "vit.layernorm"), *layer("classifier", "classifier")]
